use super::*;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use skerry_decide::filter::matches;
use std::collections::BTreeMap;

// Strategies are boxed: without, an unoptimised one that nests takes more stack than a test has.

const FIELDS: [&str; 3] = ["a", "b", "c"];

fn fields() -> Vec<Box<str>> {
    FIELDS.map(Into::into).to_vec()
}

fn index(payloads: &[Attributes]) -> PayloadIndex {
    let mut index = PayloadIndex::new(&fields());
    for (row, payload) in (0..).zip(payloads) {
        index.add(row, payload);
    }
    index
}

fn expected(payloads: &[Attributes], filter: &Filter) -> RoaringBitmap {
    let rows = (0..).zip(payloads);
    rows.filter(|(_, payload)| matches(filter, payload))
        .map(|(row, _)| row)
        .collect()
}

/// Numbers near each other where it matters: around 0, where floats stop telling whole numbers
/// apart, and at the ends.
fn number() -> BoxedStrategy<Value> {
    const EDGE: i64 = 1 << 53;
    let int = prop_oneof![
        -3..4i64,
        EDGE - 2..EDGE + 4,
        -EDGE - 3..-EDGE + 3,
        Just(i64::MAX),
        Just(i64::MAX - 1),
        Just(i64::MIN),
        Just(i64::MIN + 1),
    ];
    let float = prop_oneof![
        (-6..7i32).prop_map(|half| f64::from(half) / 2.0),
        Just(-0.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::MIN_POSITIVE),
        int.clone().prop_map(|int| int as f64),
        Just(EDGE as f64 + 2.0),
        Just(1e300),
    ];
    prop_oneof![int.prop_map(Value::Int), float.prop_map(Value::Float)].boxed()
}

fn scalar() -> BoxedStrategy<Value> {
    prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        4 => number(),
        3 => "[ab\u{e9}\u{10000}]{0,2}".prop_map(|text| Value::text(&text)),
    ]
    .boxed()
}

fn value() -> BoxedStrategy<Value> {
    prop_oneof![
        4 => scalar(),
        2 => vec(scalar(), 0..4).prop_map(Value::List),
        // No border lets a list in a list in; in memory there can be one.
        1 => vec(vec(scalar(), 0..2).prop_map(Value::List), 1..3).prop_map(Value::List),
    ]
    .boxed()
}

fn payload() -> impl Strategy<Value = Attributes> {
    let field = (0..FIELDS.len()).prop_map(|at| Box::from(FIELDS[at]));
    btree_map(field, value(), 0..4)
}

fn test() -> BoxedStrategy<Test> {
    prop_oneof![
        2 => value().prop_map(Test::Eq),
        2 => vec(value(), 0..4).prop_map(Test::In),
        2 => vec(value(), 0..6).prop_map(Test::NotIn),
        1 => value().prop_map(Test::Gt),
        1 => value().prop_map(Test::Gte),
        1 => value().prop_map(Test::Lt),
        1 => value().prop_map(Test::Lte),
        1 => any::<bool>().prop_map(Test::Exists),
    ]
    .boxed()
}

fn filter() -> impl Strategy<Value = Filter> {
    let leaf = (0..FIELDS.len(), test()).prop_map(|(at, test)| Filter::Field {
        field: FIELDS[at].into(),
        test,
    });
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Filter::All),
            vec(inner.clone(), 0..4).prop_map(Filter::Any),
            inner.prop_map(|inner| Filter::Not(Box::new(inner))),
        ]
    })
}

fn packed(index: &PayloadIndex) -> PayloadIndex {
    index.renumber(index.rows(), &Some)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn rows_match_as_their_payloads_do(
        payloads in vec(payload(), 0..40),
        filters in vec(filter(), 1..8),
    ) {
        let added = index(&payloads);
        let packed = packed(&added);
        let read = PayloadIndex::from_bytes(&fields(), added.rows(), &added.to_bytes()).unwrap();
        for filter in &filters {
            let expected = expected(&payloads, filter);
            for index in [&added, &packed, &read] {
                prop_assert_eq!(&index.matching(filter).unwrap(), &expected, "{:?}", filter);
            }
        }
        prop_assert!(packed.to_bytes() == added.to_bytes());
        prop_assert!(read.to_bytes() == added.to_bytes());
    }

    /// Each value against each value, in one field: the rules of comparing, without a tree.
    #[test]
    fn values_compare_as_in_payloads(values in vec(scalar(), 1..30), wanted in vec(value(), 1..6)) {
        let payloads: Vec<Attributes> = values
            .into_iter()
            .map(|value| [("a".into(), value)].into())
            .collect();
        let index = index(&payloads);
        for value in wanted {
            for test in [
                Test::Eq(value.clone()),
                Test::Gt(value.clone()),
                Test::Gte(value.clone()),
                Test::Lt(value.clone()),
                Test::Lte(value.clone()),
                Test::NotIn(vec![value.clone()]),
            ] {
                let filter = Filter::Field { field: "a".into(), test };
                prop_assert_eq!(index.matching(&filter).unwrap(), expected(&payloads, &filter), "{:?}", filter);
            }
        }
    }

    /// Two segments become one: some rows go, the others move anywhere.
    #[test]
    fn merged_segments_match_as_if_made_of_the_payloads(
        parts in vec(vec((payload(), any::<Option<u32>>()), 0..20), 1..4),
        filters in vec(filter(), 1..6),
    ) {
        // The kept rows in the order of a random key.
        let mut kept: Vec<(u32, usize, u32)> = Vec::new();
        for (part, rows) in parts.iter().enumerate() {
            let keys = (0..).zip(rows);
            kept.extend(keys.filter_map(|(row, (_, key))| Some(((*key)?, part, row))));
        }
        kept.sort_unstable();
        let new: BTreeMap<(usize, u32), u32> =
            kept.iter().zip(0..).map(|((_, part, row), new)| ((*part, *row), new)).collect();
        let payloads: Vec<Attributes> =
            kept.iter().map(|(_, part, row)| parts[*part][*row as usize].0.clone()).collect();

        let indexes: Vec<PayloadIndex> = parts
            .iter()
            .map(|rows| index(&rows.iter().map(|(payload, _)| payload.clone()).collect::<Vec<_>>()))
            .collect();
        let maps: Vec<_> = (0..parts.len())
            .map(|part| { let new = &new; move |row| new.get(&(part, row)).copied() })
            .collect();
        let moved: Vec<Moved<'_>> =
            indexes.iter().zip(&maps).map(|(index, map)| (index, map as &dyn Fn(_) -> _)).collect();
        let merged = PayloadIndex::merged(&fields(), payloads.len() as u32, &moved);

        for filter in &filters {
            prop_assert_eq!(merged.matching(filter).unwrap(), expected(&payloads, filter), "{:?}", filter);
        }
        prop_assert!(merged.to_bytes() == index(&payloads).to_bytes());
    }

    #[test]
    fn mutated_bytes_are_refused_or_read(
        payloads in vec(payload(), 0..40),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<Option<prop::sample::Index>>(),
        filter in filter(),
    ) {
        let rows = payloads.len() as u32;
        let mut bytes = index(&payloads).to_bytes();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if let Some(at) = cut {
            bytes.truncate(at.index(bytes.len()));
        }
        if let Ok(read) = PayloadIndex::from_bytes(&fields(), rows, &bytes) {
            let matching = read.matching(&filter).unwrap();
            prop_assert!(matching.max().is_none_or(|row| row < rows));
            let again = PayloadIndex::from_bytes(&fields(), rows, &read.to_bytes()).unwrap();
            prop_assert_eq!(again.matching(&filter).unwrap(), matching);
        }
    }
}

/// Each with each, where whole numbers and floats part: rare among random ones.
#[test]
fn numbers_compare_as_in_payloads_at_the_edges() {
    let mut numbers = vec![Value::Float(f64::NAN), Value::Float(f64::INFINITY)];
    for edge in [
        0,
        1,
        1 << 53,
        1 << 54,
        i64::MAX - 3,
        i64::MIN + 3,
        -(1 << 53),
    ] {
        for int in edge - 3..=edge + 3 {
            numbers.extend([Value::Int(int), Value::Float(int as f64)]);
        }
        numbers.extend([0.5, -0.0].map(|more| Value::Float(edge as f64 + more)));
    }
    // Rows of one number, of each with the next one, and of eight.
    let mut values = numbers.clone();
    values.extend(numbers.windows(2).map(|pair| Value::List(pair.to_vec())));
    values.extend(numbers.windows(8).map(|some| Value::List(some.to_vec())));
    let payloads: Vec<Attributes> = values
        .into_iter()
        .map(|value| [("a".into(), value)].into())
        .collect();
    let added = index(&payloads);
    let packed = packed(&added);
    let check = |test| {
        let filter = one("a", test);
        let expected = expected(&payloads, &filter);
        assert_eq!(added.matching(&filter).unwrap(), expected, "{filter:?}");
        assert_eq!(packed.matching(&filter).unwrap(), expected, "{filter:?}");
    };
    for number in &numbers {
        check(Test::Eq(number.clone()));
        check(Test::Gt(number.clone()));
        check(Test::Gte(number.clone()));
        check(Test::Lt(number.clone()));
        check(Test::Lte(number.clone()));
    }
    // Among eight, ranges of whole numbers that are equal to one float overlap, and nest.
    for some in numbers.windows(8) {
        check(Test::In(some.to_vec()));
        check(Test::NotIn(some.to_vec()));
    }
    let nested = [Value::Float((1i64 << 54) as f64), Value::Int(1 << 54)];
    check(Test::NotIn(nested.to_vec()));
    check(Test::NotIn(nested[..1].to_vec()));
}

fn one(field: &str, test: Test) -> Filter {
    Filter::Field {
        field: field.into(),
        test,
    }
}

/// Enough rows that values have bitmaps, rare ones do not, and packing happens on the way.
fn many() -> Vec<Attributes> {
    let row = |row: i64| -> Attributes {
        let mut payload: Attributes = [
            ("a".into(), Value::Int(row % 7)),
            (
                "b".into(),
                Value::text(&format!("{:06}", row * 7_919 % 30_011)),
            ),
        ]
        .into();
        let list = (0..row % 4).map(|at| Value::Float((row * at % 9) as f64 + 0.5));
        payload.insert("c".into(), Value::List(list.collect()));
        payload
    };
    (0..30_000).map(row).collect()
}

#[test]
fn packed_and_waiting_values_are_found_alike() {
    let payloads = many();
    let added = index(&payloads);
    assert!(!added.field("b").unwrap().texts.is_packed());
    let packed = packed(&added);
    assert!(packed.field("b").unwrap().texts.is_packed());
    assert!(packed.field("b").unwrap().texts.dense.is_empty());
    assert_eq!(packed.field("a").unwrap().whole.dense.len(), 7);
    for filter in [
        one("a", Test::Eq(Value::Int(3))),
        one("a", Test::NotIn(vec![Value::Float(3.0), Value::Int(4)])),
        one("b", Test::Gte(Value::text("020000"))),
        one("b", Test::Lt(Value::text("000009"))),
        one("b", Test::NotIn(vec![Value::text("000009")])),
        one("c", Test::Gt(Value::Int(7))),
        one("c", Test::NotIn(vec![Value::Float(0.5), Value::Float(1.5)])),
        one("c", Test::Exists(true)),
        Filter::All(vec![
            Filter::Not(Box::new(one("a", Test::Lte(Value::Int(2))))),
            one("b", Test::Gt(Value::text("01"))),
        ]),
    ] {
        let expected = expected(&payloads, &filter);
        assert!(!expected.is_empty() && expected.len() < 30_001);
        assert_eq!(added.matching(&filter).unwrap(), expected, "{filter:?}");
        assert_eq!(packed.matching(&filter).unwrap(), expected, "{filter:?}");
    }
    let read = PayloadIndex::from_bytes(&fields(), 30_000, &added.to_bytes()).unwrap();
    assert!(read.to_bytes() == packed.to_bytes());
}

#[test]
fn rows_can_be_added_to_what_was_read() {
    let payloads = many();
    let (before, after) = payloads.split_at(20_000);
    let bytes = index(before).to_bytes();
    let mut read = PayloadIndex::from_bytes(&fields(), 20_000, &bytes).unwrap();
    for (row, payload) in (20_000..).zip(after) {
        read.add(row, payload);
    }
    assert!(read.to_bytes() == index(&payloads).to_bytes());
}

#[test]
fn an_unknown_field_is_named_with_the_known_ones() {
    let unknown = one("genre", Test::Exists(true));
    // Also where the answer does not depend on it.
    let beside = Filter::All(vec![Filter::Any(vec![]), Filter::Not(Box::new(unknown))]);
    let error = index(&[]).matching(&beside).unwrap_err();
    assert_eq!(error.code(), "vector_unknown_field");
    assert_eq!(
        error.to_string(),
        r#""genre" is no field of this collection, which has a, b, c"#
    );
    let error = PayloadIndex::new(&[]).matching(&beside).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#""genre" is no field of this collection, which has none"#
    );
}

#[test]
fn what_is_nested_too_deeply_passes_nothing() {
    let payloads = vec![Attributes::new(); 3];
    let index = index(&payloads);
    let mut filter = Filter::All(vec![]);
    for depth in 1..40 {
        filter = Filter::All(vec![filter]);
        let matching = index.matching(&filter).unwrap();
        assert_eq!(matching, expected(&payloads, &filter), "{depth}");
    }
}

#[test]
fn rows_left_out_have_no_payload() {
    let mut index = PayloadIndex::new(&fields());
    index.add(5, &[("a".into(), Value::Int(1))].into());
    assert_eq!(index.rows(), 6);
    let rows = |test| -> Vec<u32> { index.matching(&one("a", test)).unwrap().iter().collect() };
    assert_eq!(rows(Test::Exists(false)), [0, 1, 2, 3, 4]);
    assert_eq!(rows(Test::Eq(Value::Float(1.0))), [5]);
}

/// A claimed length is not believed: the largest claims in every place that holds a length.
#[test]
fn claimed_lengths_take_no_memory() {
    let bytes = index(&many()[..100]).to_bytes();
    for at in 0..bytes.len().saturating_sub(8) {
        for claim in [u64::MAX, 1 << 40, 0xffff_ffff, 0x7fff_ffff] {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&claim.to_le_bytes());
            let _ = PayloadIndex::from_bytes(&fields(), 100, &bytes);
        }
    }
}

#[test]
fn damage_is_named() {
    let rows = 4;
    let payloads: Vec<Attributes> = (0..4)
        .map(|row| [("a".into(), Value::text(["x", "y", "é", "z"][row]))].into())
        .collect();
    let index = index(&payloads);
    let bytes = index.to_bytes();
    let read = |rows, bytes: &[u8]| match PayloadIndex::from_bytes(&fields(), rows, bytes) {
        Ok(_) => "read",
        Err(Damaged(what)) => what,
    };
    assert_eq!(read(rows, &bytes), "read");
    assert_eq!(read(rows, &[]), "it is cut off");
    assert_eq!(read(rows, &[9, 0, 0, 0]), "its layout is unknown");
    assert_eq!(
        read(rows, &[&bytes[..], &[0]].concat()),
        "something follows it"
    );
    assert_eq!(read(3, &bytes), "a row is beyond the last");
    assert_eq!(read(u32::MAX, &bytes), "it has too many rows");
    // A bitmap of one run.
    let mut runs = RoaringBitmap::from_iter(0..4);
    runs.optimize();
    let mut with_runs = 1u32.to_le_bytes().to_vec();
    with_runs.extend((runs.serialized_size() as u32).to_le_bytes());
    runs.serialize_into(&mut with_runs).unwrap();
    assert_eq!(read(rows, &with_runs), "a bitmap has runs");
    for end in 0..bytes.len() {
        assert_ne!(read(rows, &bytes[..end]), "read", "{end} bytes");
    }
    let texts = bytes
        .windows(5)
        .position(|at| at == "xyzé".as_bytes())
        .unwrap();
    let change = |from: usize, to: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[from..from + to.len()].copy_from_slice(to);
        read(rows, &bytes)
    };
    assert_eq!(change(texts, b"yx"), "values are not in order");
    assert_eq!(change(texts, &[0xff]), "a text is not UTF-8");
    let (ends, sparse) = (texts + 5, texts + 5 + 16);
    assert_eq!(change(texts - 8, &[2, 0, 0, 0, 1]), "a value is cut off");
    assert_eq!(change(ends, &[9]), "rows of a value are beyond the last");
    assert_eq!(change(ends, &[0]), "a value has no rows");
    assert_eq!(change(ends + 12, &[3]), "a value has no rows");
    assert_eq!(change(ends, &[2, 0, 0, 0, 2]), "a value has no rows");
    assert_eq!(change(sparse + 12, &[4]), "a row is beyond the last");
}

/// However many values there are, a row and field take little: see `DENSE_ROWS_MIN`.
#[test]
fn memory_is_bounded_with_a_value_for_each_row() {
    let rows = 100_000u32;
    let payloads = |value: &dyn Fn(u32) -> Value| {
        let mut index = PayloadIndex::new(&["a".into()]);
        for row in 0..rows {
            index.add(row, &[("a".into(), value(row))].into());
        }
        (index.bytes() as f64, packed(&index).bytes() as f64)
    };
    let scattered = |row: u32| i64::from(row.wrapping_mul(2_654_435_761));
    for (what, per_row, (added, packed)) in [
        (
            "a whole number each",
            16.5,
            payloads(&|row| Value::Int(scattered(row))),
        ),
        (
            "a float each",
            16.5,
            payloads(&|row| Value::Float(f64::from(row) + 0.1)),
        ),
        (
            "10 bytes each",
            26.5,
            payloads(&|row| Value::text(&format!("{row:010}"))),
        ),
        (
            "20 rows each",
            5.0,
            payloads(&|row| Value::Int(scattered(row) % 5_000)),
        ),
        ("one for all", 0.5, payloads(&|_| Value::Bool(true))),
        (
            "a hundred",
            3.0,
            payloads(&|row| Value::Int(scattered(row) % 100)),
        ),
    ] {
        let rows = f64::from(rows);
        assert!(packed <= per_row * rows, "{what}: {} a row", packed / rows);
        assert!(
            added <= 2.0 * per_row * rows,
            "{what}: {} a row",
            added / rows
        );
    }
}
