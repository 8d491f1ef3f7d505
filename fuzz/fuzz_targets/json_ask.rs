//! Questions, by POST and by GET: whatever comes is understood or refused with a well-formed
//! problem, and what is understood survives the way to the origin.

#![no_main]

use libfuzzer_sys::fuzz_target;
use skerry_types::{Attributes, TenantId, Uid, Value};
use skerry_wire::codec::{decode_as, encode_as};
use skerry_wire::json::{
    ERRORS_MAX, ParsedAsk, Problem, parse_attributes, parse_items, parse_popular_get, parse_rank,
    parse_recommend, parse_recommend_get, parse_similar,
};

fn check(result: Result<ParsedAsk, Problem>) -> bool {
    match result {
        Ok(ParsedAsk { ask, .. }) => {
            if let Some(filter) = &ask.filter {
                let item: Attributes = [
                    ("year".into(), Value::Int(1999)),
                    ("genre".into(), Value::List(vec![Value::text("Drama")])),
                ]
                .into();
                let passes = skerry_decide::filter::matches(filter, &item);
                let not = skerry_types::Filter::Not(Box::new(filter.clone()));
                assert_ne!(passes, skerry_decide::filter::matches(&not, &item));
            }
            let bytes = encode_as(900, &ask).expect("a parsed question encodes");
            assert_eq!(
                decode_as::<skerry_types::Ask>(900, &bytes).expect("and decodes"),
                ask
            );
            true
        }
        Err(problem) => {
            refused(&problem);
            false
        }
    }
}

fn refused(problem: &Problem) {
    assert!(
        matches!(problem.status, 400 | 413)
            && !problem.code.is_empty()
            && problem.errors.len() <= ERRORS_MAX
    );
    let body = problem.render(Uid(1));
    assert!(body.len() < 64 << 10, "{} bytes of problem", body.len());
    serde_json::from_slice::<serde_json::Value>(&body).expect("a problem is JSON");
}

fuzz_target!(|data: &[u8]| {
    let tenant = TenantId::default();
    let is_json = serde_json::from_slice::<serde_json::Value>(data).is_ok();
    for result in [
        parse_recommend(data, &tenant),
        parse_similar(data, &tenant),
        parse_rank(data, &tenant),
    ] {
        assert!(!check(result) || is_json, "taken although it is not JSON");
    }
    if let Err(problem) = parse_attributes(data) {
        refused(&problem);
    }
    if let Err(problem) = parse_items(data) {
        refused(&problem);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let (user, query) = text.split_once('?').unwrap_or((text, text));
        check(parse_recommend_get(user, query, &tenant));
        check(parse_popular_get(query, &tenant));
    }
});
