//! Segment files of a vector collection: refused, or read whole without a panic. Each input is tried
//! as it is, and with its checksums made right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use skerry_vector_index::store::fuzzing::{reseal, segment};
use skerry_vector_index::{Metric, Spec, Stored};

fuzz_target!(|data: &[u8]| {
    let spec = Spec {
        dim: 2,
        metric: Metric::Dot,
        stored: Stored::F32,
        fields: vec!["year".into()],
    };
    // Mapped like every segment: one file of this process, written anew each time.
    let path = std::env::temp_dir().join(format!("fuzzed-{}.skv", std::process::id()));
    let mut bytes = data.to_vec();
    for _ in 0..2 {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, &bytes).expect("a folder for temporary files");
        let _ = segment(&path, &spec);
        reseal("segment-1.skv", &mut bytes);
    }
    let _ = std::fs::remove_file(&path);
});
