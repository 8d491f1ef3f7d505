//! Payload indexes of a segment: bytes are refused, or they are an index that answers with its own
//! rows and says the same after writing and reading.

#![no_main]

use libfuzzer_sys::fuzz_target;
use skerry_types::{Filter, Test, Value};
use skerry_vector_index::PayloadIndex;

const ROWS: u32 = 70_000;

fuzz_target!(|data: &[u8]| {
    let fields: [Box<str>; 2] = ["a".into(), "b".into()];
    let Ok(index) = PayloadIndex::from_bytes(&fields, ROWS, data) else {
        return;
    };
    let again = PayloadIndex::from_bytes(&fields, ROWS, &index.to_bytes()).expect("it reads again");
    let moved = index.renumber(ROWS, &|row| Some(ROWS - 1 - row));
    for field in fields {
        for test in [
            Test::Exists(true),
            Test::Gt(Value::Int(0)),
            Test::Lte(Value::Float(0.5)),
            Test::Gte(Value::text("m")),
            Test::NotIn(vec![Value::Int(1), Value::text("x"), Value::Null]),
        ] {
            let field = field.clone();
            let filter = Filter::Field { field, test };
            let rows = index.matching(&filter).expect("the field is known");
            assert!(rows.max().is_none_or(|row| row < ROWS));
            assert_eq!(again.matching(&filter).expect("as before"), rows);
            let moved = moved.matching(&filter).expect("as before");
            assert!(moved.into_iter().map(|row| ROWS - 1 - row).rev().eq(rows));
        }
    }
});
