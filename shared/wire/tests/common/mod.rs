//! Golden files: bytes that must not change by accident. `SKERRY_BLESS=1 cargo test` rewrites them;
//! the diff then belongs into the review.

use std::path::PathBuf;

pub fn golden(name: &str, got: &[u8]) {
    // Cargo runs tests in the folder of their package.
    let path = PathBuf::from("tests/golden").join(name);
    let got = [got, b"\n"].concat();
    if std::env::var_os("SKERRY_BLESS").is_some() {
        std::fs::write(&path, &got).unwrap();
    }
    let want = std::fs::read(&path).unwrap_or_default();
    assert!(
        want == got,
        "{name} changed; now:\n{}",
        String::from_utf8_lossy(&got)
    );
}
