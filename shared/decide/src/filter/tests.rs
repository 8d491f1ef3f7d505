use super::*;
use proptest::prelude::*;

fn field(name: &str, test: Test) -> Filter {
    Filter::Field {
        field: name.into(),
        test,
    }
}

fn matrix() -> Attributes {
    let genres = ["Action", "Sci-Fi"].map(Value::text).to_vec();
    [
        ("title", Value::text("The Matrix")),
        ("year", Value::Int(1999)),
        ("score", Value::Float(8.5)),
        ("genre", Value::List(genres)),
        ("adult", Value::Bool(false)),
        ("none", Value::List(Vec::new())),
        ("gone", Value::Null),
    ]
    .map(|(name, value)| (name.into(), value))
    .into()
}

#[test]
fn conditions() {
    let text = Value::text;
    let cases = [
        ("equal", "year", Test::Eq(Value::Int(1999)), true),
        (
            "whole and not whole",
            "year",
            Test::Eq(Value::Float(1999.0)),
            true,
        ),
        ("kinds differ", "year", Test::Eq(text("1999")), false),
        ("boolean", "adult", Test::Eq(Value::Bool(false)), true),
        (
            "boolean is no number",
            "adult",
            Test::Eq(Value::Int(0)),
            false,
        ),
        ("any element equal", "genre", Test::Eq(text("Sci-Fi")), true),
        (
            "any element in",
            "genre",
            Test::In(vec![text("Drama"), text("Action")]),
            true,
        ),
        (
            "no element in",
            "genre",
            Test::In(vec![text("Drama")]),
            false,
        ),
        ("in nothing", "genre", Test::In(vec![]), false),
        (
            "any element not in",
            "genre",
            Test::NotIn(vec![text("Action")]),
            true,
        ),
        (
            "every element is in",
            "genre",
            Test::NotIn(vec![text("Action"), text("Sci-Fi")]),
            false,
        ),
        ("not in nothing", "year", Test::NotIn(vec![]), true),
        (
            "an empty list has no element",
            "none",
            Test::NotIn(vec![]),
            false,
        ),
        ("greater", "year", Test::Gt(Value::Int(1999)), false),
        (
            "greater or equal",
            "year",
            Test::Gte(Value::Int(1999)),
            true,
        ),
        (
            "less than a fraction",
            "score",
            Test::Lt(Value::Float(8.6)),
            true,
        ),
        (
            "fraction against whole",
            "score",
            Test::Lte(Value::Int(8)),
            false,
        ),
        ("strings by bytes", "title", Test::Gt(text("THE")), true),
        ("number against string", "year", Test::Gt(text("1")), false),
        (
            "no order with NaN",
            "score",
            Test::Gte(Value::Float(f64::NAN)),
            false,
        ),
        ("missing, equal", "nope", Test::Eq(Value::Null), false),
        ("missing, not in", "nope", Test::NotIn(vec![]), false),
        ("missing, less", "nope", Test::Lt(Value::Int(9)), false),
        (
            "null counts as missing",
            "gone",
            Test::Eq(Value::Null),
            false,
        ),
        ("exists", "year", Test::Exists(true), true),
        ("an empty list exists", "none", Test::Exists(true), true),
        ("does not exist", "year", Test::Exists(false), false),
        ("missing exists not", "nope", Test::Exists(false), true),
        ("null exists not", "gone", Test::Exists(true), false),
    ];
    for (name, on, test, want) in cases {
        assert_eq!(matches(&field(on, test), &matrix()), want, "{name}");
    }
}

#[test]
fn groups() {
    let yes = || field("year", Test::Exists(true));
    let no = || field("year", Test::Exists(false));
    let cases = [
        ("all of nothing", Filter::All(vec![]), true),
        ("any of nothing", Filter::Any(vec![]), false),
        ("all", Filter::All(vec![yes(), yes()]), true),
        ("not all", Filter::All(vec![yes(), no()]), false),
        ("any", Filter::Any(vec![no(), yes()]), true),
        ("none", Filter::Any(vec![no(), no()]), false),
        ("not", Filter::Not(Box::new(no())), true),
    ];
    for (name, filter, want) in cases {
        assert_eq!(matches(&filter, &matrix()), want, "{name}");
    }
}

#[test]
fn too_deep_a_tree_passes_nothing() {
    let nested = |levels: usize| {
        (0..levels).fold(field("year", Test::Exists(true)), |filter, _| {
            Filter::All(vec![filter])
        })
    };
    assert!(matches(&nested(TREE_DEPTH_MAX), &matrix()));
    assert!(!matches(&nested(TREE_DEPTH_MAX + 1), &matrix()));
    assert!(!matches(
        &Filter::Not(Box::new(nested(TREE_DEPTH_MAX))),
        &matrix()
    ));
}

// A second opinion, written from the contract rather than from the code above: every value is
// spelled out as a list of (kind, number, bytes) first.

type Plain = (u8, f64, Vec<u8>);

fn plain(value: &Value) -> Plain {
    match value {
        Value::Null => (0, 0.0, vec![]),
        Value::Bool(b) => (1, f64::from(u8::from(*b)), vec![]),
        Value::Int(i) => (2, *i as f64, vec![]),
        Value::Float(f) => (2, *f, vec![]),
        Value::Text(t) => (3, 0.0, t.bytes().collect()),
        Value::List(_) => (9, 0.0, vec![]),
    }
}

fn oracle(filter: &Filter, item: &Attributes) -> bool {
    match filter {
        Filter::All(list) => !list.iter().any(|one| !oracle(one, item)),
        Filter::Any(list) => list.iter().filter(|one| oracle(one, item)).count() > 0,
        Filter::Not(one) => !oracle(one, item),
        Filter::Field { field, test } => {
            let found: Option<Vec<Plain>> = match item.get(field) {
                None | Some(Value::Null) => None,
                Some(Value::List(list)) => Some(list.iter().map(plain).collect()),
                Some(one) => Some(vec![plain(one)]),
            };
            if let Test::Exists(wanted) = test {
                return found.is_some() == *wanted;
            }
            found.unwrap_or_default().iter().any(|have| {
                let same = |want: &Value| plain(want) == *have;
                let sorts = |want: &Value| have.0 == plain(want).0 && matches!(have.0, 2 | 3);
                let less = |want: &Value| {
                    sorts(want) && (have.1 < plain(want).1 || have.2 < plain(want).2)
                };
                let more = |want: &Value| {
                    sorts(want) && (have.1 > plain(want).1 || have.2 > plain(want).2)
                };
                match test {
                    Test::Eq(want) => same(want),
                    Test::In(list) => list.iter().any(same),
                    Test::NotIn(list) => !list.iter().any(same),
                    Test::Gt(want) => more(want),
                    Test::Lt(want) => less(want),
                    Test::Gte(want) => more(want) || sorts(want) && same(want),
                    Test::Lte(want) => less(want) || sorts(want) && same(want),
                    Test::Exists(_) => false,
                }
            })
        }
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-3i64..4).prop_map(Value::Int),
        (-6i32..7).prop_map(|half| Value::Float(f64::from(half) / 2.0)),
        "[ab]{0,2}".prop_map(|text| Value::text(&text)),
    ]
}

fn test() -> impl Strategy<Value = Test> {
    let list = || prop::collection::vec(scalar(), 0..4);
    prop_oneof![
        scalar().prop_map(Test::Eq),
        list().prop_map(Test::In),
        list().prop_map(Test::NotIn),
        scalar().prop_map(Test::Gt),
        scalar().prop_map(Test::Gte),
        scalar().prop_map(Test::Lt),
        scalar().prop_map(Test::Lte),
        any::<bool>().prop_map(Test::Exists),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    let leaf = ("[xyz]", test()).prop_map(|(name, test)| field(&name, test));
    leaf.prop_recursive(6, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::All),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::Any),
            inner.prop_map(|one| Filter::Not(Box::new(one))),
        ]
    })
}

fn item() -> impl Strategy<Value = Attributes> {
    let value = prop_oneof![3 => scalar(), 1 => prop::collection::vec(scalar(), 0..4).prop_map(Value::List)];
    prop::collection::btree_map("[xyz]".prop_map(String::into_boxed_str), value, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn agrees_with_a_second_opinion(filter in filter(), item in item()) {
        prop_assert_eq!(matches(&filter, &item), oracle(&filter, &item));
    }
}
