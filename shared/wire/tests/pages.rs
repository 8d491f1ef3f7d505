//! Every code that a client, an operator or a log can meet has a page, and the OpenAPI document
//! shows what the goldens say.

use skerry_types::{Cause, IdError, WarningCode};
use skerry_wire::codec::CodecError;
use skerry_wire::json::codes;
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from("../..")
}

fn check_page(code: &str) {
    let path = root().join("docs/errors").join(format!("{code}.md"));
    let page = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        page.starts_with(&format!("# {code}\n")),
        "{code}: the page's title is the code"
    );
    assert!(page.len() > 80, "{code}: says too little");
}

#[test]
fn every_code_has_a_page() {
    for (code, title) in codes::ALL {
        check_page(code);
        assert!(!title.is_empty() && codes::title(code) == *title);
    }
    Cause::ALL
        .iter()
        .for_each(|cause| check_page(cause.as_str()));
    WarningCode::ALL
        .iter()
        .for_each(|warning| check_page(warning.as_str()));
    let schema = CodecError::Schema {
        found: 1,
        wanted: 2,
    };
    let body = CodecError::Body(String::new());
    let codecs = [
        CodecError::Short(0),
        CodecError::Magic(0),
        CodecError::Encoding(0),
        schema,
        CodecError::Large(0),
        CodecError::Trailing,
        body,
    ];
    codecs.iter().for_each(|error| check_page(error.code()));
    for error in [
        IdError::Empty,
        IdError::TooLong(300),
        IdError::Control,
        IdError::Surface,
        IdError::Uuid,
    ] {
        assert!(
            codes::ALL.iter().any(|(code, _)| *code == error.code()),
            "{}",
            error.code()
        );
    }
}

/// Answers that this crate's version of the contract promises are those in the document: each
/// golden stands in it, on one line.
#[test]
fn openapi_shows_the_goldens() {
    let document = std::fs::read_to_string(root().join("shared/wire/openapi.yaml")).unwrap();
    let goldens = [
        "recommend.request.json",
        "recommend.response.json",
        "similar.request.json",
        "rank.request.json",
        "events.request.json",
        "events.response.json",
        "problem.response.json",
    ];
    for name in goldens {
        let path = root().join("shared/wire/tests/golden").join(name);
        let golden = std::fs::read_to_string(path).unwrap();
        assert!(
            document.contains(golden.trim_end()),
            "{name} is not in openapi.yaml"
        );
    }
    for (path, method) in [
        ("/v1/recommend/{user_id}:", "get"),
        ("/v1/recommend:", "post"),
        ("/v1/similar:", "post"),
        ("/v1/rank:", "post"),
        ("/v1/events:", "post"),
        ("/v1/popular:", "get"),
        ("/healthz:", "get"),
        ("/readyz:", "get"),
        ("/metrics:", "get"),
    ] {
        assert!(
            document.contains(&format!("\n  {path}\n    {method}:\n")),
            "{method} {path}"
        );
    }
    for rung in skerry_types::Rung::ALL {
        assert!(document.contains(rung.as_str()));
    }
    for cause in Cause::ALL {
        assert!(document.contains(cause.as_str()), "{cause}");
    }
}
