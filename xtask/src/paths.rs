//! Pages that name code: `` `edge/core/src/serve.rs` `serve` `` must name a file that exists and
//! something in it.

use std::path::Path;

/// What is wrong with a page: one line for each name that is not true.
pub fn check(root: &Path, page: &str, text: &str, errors: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        let mut source: Option<(String, String)> = None;
        for token in quoted(line) {
            let at = || format!("{page}:{}", number + 1);
            if is_path(token) {
                source = None;
                if !root.join(token).exists() {
                    errors.push(format!("{}: `{token}` does not exist", at()));
                } else if token.ends_with(".rs") {
                    let content = std::fs::read_to_string(root.join(token)).unwrap_or_default();
                    source = Some((token.to_owned(), content));
                }
            } else if let Some((file, content)) = &source
                && let Some(name) = is_name(token)
                && !defines(content, name)
            {
                errors.push(format!("{}: `{file}` defines no `{name}`", at()));
            }
        }
    }
}

/// The parts of a line between backquotes.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// A path in this checkout: it has a slash and an ending that we use, and no placeholder.
fn is_path(token: &str) -> bool {
    let known = [".rs", ".md", ".wit", ".toml", ".json"];
    let plain = token
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    plain
        && token.contains('/')
        && !token.starts_with("..")
        && known.iter().any(|end| token.ends_with(end))
}

/// The last segment of a Rust path, `()` taken off.
fn is_name(token: &str) -> Option<&str> {
    let name = token.trim_end_matches("()").rsplit("::").next()?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (plain && !name.is_empty() && !name.as_bytes()[0].is_ascii_digit()).then_some(name)
}

fn defines(content: &str, name: &str) -> bool {
    [
        "fn ",
        "struct ",
        "enum ",
        "trait ",
        "const ",
        "type ",
        "mod ",
        "static ",
        "macro_rules! ",
    ]
    .iter()
    .any(|kind| {
        content
            .match_indices(&format!("{kind}{name}"))
            .any(|(at, found)| {
                let after = content[at + found.len()..].chars().next();
                !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_must_be_true() {
        let root = crate::cargo::root();
        let cases = [
            ("1. `xtask/src/paths.rs` `check` reads it", 0),
            ("1. `xtask/src/paths.rs` `paths::check()` reads it", 0),
            ("1. `xtask/src/paths.rs` `chec` is no function", 1),
            ("1. `xtask/src/nowhere.rs` `check`", 1),
            ("`check` before any file is prose", 0),
            ("`xtask/src/paths.rs` does `a thing`", 0),
        ];
        for (line, want) in cases {
            let mut errors = Vec::new();
            check(&root, "page", line, &mut errors);
            assert_eq!(errors.len(), want, "{line}: {errors:?}");
        }
    }
}
