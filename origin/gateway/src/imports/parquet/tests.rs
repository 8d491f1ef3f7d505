use super::super::tests::{Kept, errors};
use super::super::{Stamp, Summary, read as read_data};
use crate::Error;
use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use skerry_types::{TenantId, Value};
use std::path::Path;
use std::sync::Arc;

/// Values of one column of a row group, with its definition and repetition levels.
enum Values {
    Bool(Vec<bool>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    Bytes(Vec<&'static [u8]>),
}

struct Chunk(Values, Vec<i16>, Vec<i16>);

/// Every value is there.
fn full(values: Values) -> Chunk {
    Chunk(values, vec![], vec![])
}

/// Some are null: 1 is there, 0 is not.
fn some(values: Values, there: &[i16]) -> Chunk {
    Chunk(values, there.to_vec(), vec![])
}

fn text(values: &[&'static str]) -> Values {
    Values::Bytes(values.iter().map(|value| value.as_bytes()).collect())
}

fn write(path: &Path, schema: &str, compression: Compression, groups: &[Vec<Chunk>]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(
        WriterProperties::builder()
            .set_compression(compression)
            .build(),
    );
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    for chunks in groups {
        let mut group = writer.next_row_group().unwrap();
        for chunk in chunks {
            let mut column = group.next_column().unwrap().unwrap();
            put(&mut column, chunk);
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn put(column: &mut SerializedColumnWriter<'_>, Chunk(values, defs, reps): &Chunk) {
    let defs = (!defs.is_empty()).then_some(defs.as_slice());
    let reps = (!reps.is_empty()).then_some(reps.as_slice());
    let written = match values {
        Values::Bool(values) => column.typed::<BoolType>().write_batch(values, defs, reps),
        Values::I32(values) => column.typed::<Int32Type>().write_batch(values, defs, reps),
        Values::I64(values) => column.typed::<Int64Type>().write_batch(values, defs, reps),
        Values::F64(values) => column.typed::<DoubleType>().write_batch(values, defs, reps),
        Values::Bytes(values) => {
            let values: Vec<ByteArray> = values.iter().map(|value| value.to_vec().into()).collect();
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, defs, reps)
        }
    };
    written.unwrap();
}

fn import(path: &Path) -> (Kept, Result<Summary, Error>) {
    let stamp = Stamp {
        tenant: TenantId::default(),
        now: 2_000_000_000_000,
        region: "r".into(),
    };
    let kept = Kept::default();
    let summary = read_data(path, &stamp, &kept);
    (kept, summary)
}

const ITEMS: &str = "message items {
    required int64 id;
    optional binary title (UTF8);
    optional int32 year;
    optional group genre (LIST) { repeated group list { optional binary element (UTF8); } }
    optional boolean hidden;
    optional int32 maturity;
    optional int32 released (DATE);
    optional int32 price (DECIMAL(9,2));
    optional binary tags (UTF8);
    optional binary raw;
}";

#[test]
fn items_are_the_same_records_as_in_the_other_forms() {
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(Default::default()),
        Compression::LZ4_RAW,
        Compression::GZIP(Default::default()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("items.parquet");
        let there = &[1, 1, 0];
        let first = vec![
            full(Values::I64(vec![1, 2, 3])),
            some(text(&["A", "B"]), there),
            some(Values::I32(vec![1999, 2001]), there),
            // Two genres, an empty list, none.
            Chunk(text(&["Drama", "War"]), vec![3, 3, 1, 0], vec![0, 1, 0, 0]),
            some(Values::Bool(vec![true, false]), there),
            // The second is no age.
            some(Values::I32(vec![16, 400]), there),
            some(Values::I32(vec![10_000]), &[1, 0, 0]),
            some(Values::I32(vec![1250]), &[1, 0, 0]),
            some(text(&["x|y"]), &[1, 0, 0]),
            some(Values::Bytes(vec![b"\xff\xfe"]), &[0, 0, 1]),
        ];
        let nothing = &[0];
        let second = vec![
            full(Values::I64(vec![4])),
            some(text(&["D"]), &[1]),
            some(Values::I32(vec![]), nothing),
            Chunk(text(&[]), vec![0], vec![0]),
            some(Values::Bool(vec![]), nothing),
            some(Values::I32(vec![]), nothing),
            some(Values::I32(vec![]), nothing),
            some(Values::I32(vec![]), nothing),
            some(text(&[]), nothing),
            some(Values::Bytes(vec![]), nothing),
        ];
        write(&path, ITEMS, compression, &[first, second]);
        let (kept, summary) = import(&path);
        let summary = summary.unwrap();
        let want = [
            ("items.parquet", 2, Some("maturity"), "out_of_range"),
            ("items.parquet", 3, Some("raw"), "invalid_utf8"),
        ];
        assert_eq!(errors(&summary), want, "{compression:?}");
        assert_eq!(
            (summary.rows, summary.items, summary.errors_total),
            (4, 2, 2)
        );
        let items = kept.items.into_inner();
        assert_eq!((items[0].id.as_str(), items[1].id.as_str()), ("1", "4"));
        assert_eq!(items[0].title(), "A");
        assert!(items[0].rights.hidden && items[0].rights.maturity == Some(16));
        let list =
            |names: &[&str]| Value::List(names.iter().map(|name| Value::text(name)).collect());
        let want = [
            ("genre", list(&["Drama", "War"])),
            ("tags", list(&["x", "y"])),
            ("year", Value::Int(1999)),
            ("released", Value::text("1997-05-19T00:00:00Z")),
        ];
        for (name, value) in want {
            assert_eq!(items[0].attributes.get(name), Some(&value), "{name}");
        }
        assert_eq!(
            items[0].attributes.get("price").and_then(Value::as_f64),
            Some(12.5)
        );
        assert_eq!(items[1].attributes.len(), 1, "nulls are absent");
    }
}

#[test]
fn events_take_seconds_timestamps_and_nanoseconds() {
    let cases: [(&str, Chunk); 4] = [
        ("required int64 at", full(Values::I64(vec![964_982_703; 3]))),
        (
            "required int64 at (TIMESTAMP(MILLIS,true))",
            full(Values::I64(vec![964_982_703_000; 3])),
        ),
        (
            "required int64 at (TIMESTAMP(NANOS,true))",
            full(Values::I64(vec![964_982_703_000_000_000; 3])),
        ),
        (
            "required binary at (UTF8)",
            full(text(&["2000-07-30T18:45:03Z"; 3])),
        ),
    ];
    for (at, times) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.parquet");
        let schema = format!(
            "message events {{ required int32 user; required int64 item; optional double value; {at}; }}"
        );
        let rows = vec![
            full(Values::I32(vec![7, 7, 8])),
            full(Values::I64(vec![1, 2, 1])),
            some(Values::F64(vec![4.5, f64::NAN]), &[1, 1, 0]),
            times,
        ];
        write(&path, &schema, Compression::SNAPPY, &[rows]);
        let (kept, summary) = import(&path);
        let summary = summary.unwrap();
        let want = [
            ("data.parquet", 2, Some("value"), "out_of_range"),
            ("data.parquet", 3, Some("type"), "missing_field"),
        ];
        assert_eq!(errors(&summary), want, "{at}");
        let events = kept.events.into_inner();
        let [event] = events.as_slice() else {
            panic!("one event")
        };
        assert_eq!(event.at_ms, 964_982_703_000, "{at}");
        assert_eq!(event.user.as_ref().unwrap().as_str(), "7");
        assert_eq!((event.kind.as_str(), event.value), ("rating", Some(4.5)));
        let (again, _) = import(&path);
        assert_eq!(again.events.into_inner()[0].id, event.id);
    }
}

#[test]
fn members_of_attributes_are_attributes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("items.parquet");
    let schema = "message items {
        required binary id (UTF8);
        optional group attributes (MAP) {
            repeated group key_value { required binary key (UTF8); optional double value; }
        }
        optional group more { optional int32 a; }
    }";
    let rows = vec![
        full(text(&["i"])),
        Chunk(text(&["x", "y"]), vec![2, 2], vec![0, 1]),
        Chunk(Values::F64(vec![1.5, 2.0]), vec![3, 3], vec![0, 1]),
        Chunk(Values::I32(vec![5]), vec![2], vec![]),
    ];
    write(&path, schema, Compression::UNCOMPRESSED, &[rows]);
    let (kept, summary) = import(&path);
    let summary = summary.unwrap();
    let items = kept.items.into_inner();
    // Attributes are flat: a group is none.
    assert_eq!(summary.errors_total, 1, "{:?}", summary.errors);
    assert_eq!(summary.errors[0].column.as_deref(), Some("more"));
    assert!(items.is_empty());
}

#[test]
fn many_row_groups_are_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.parquet");
    let schema =
        "message e { required int64 user; required int64 item; required binary type (UTF8); }";
    let group = |at: i64| {
        vec![
            full(Values::I64((0..700).map(|n| at * 1_000 + n).collect())),
            full(Values::I64((0..700).collect())),
            full(text(&["like"; 700])),
        ]
    };
    let groups: Vec<Vec<Chunk>> = (0..10).map(group).collect();
    write(&path, schema, Compression::SNAPPY, &groups);
    let (kept, summary) = import(&path);
    assert_eq!(summary.unwrap().rows, 7_000);
    let events = kept.events.into_inner();
    assert_eq!(events.len(), 7_000);
    assert_eq!(events[6_999].user.as_ref().unwrap().as_str(), "9699");
}

/// Whatever is cut off or changed: rows or a refusal with the file's name, never a panic.
#[test]
fn broken_files_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.parquet");
    let schema =
        "message e { required int64 user; required int64 item; required binary type (UTF8); }";
    let rows = vec![
        full(Values::I64((0..200).collect())),
        full(Values::I64((0..200).map(|n| n % 7).collect())),
        full(text(&["like"; 200])),
    ];
    write(&path, schema, Compression::SNAPPY, &[rows]);
    let whole = std::fs::read(&path).unwrap();
    let check = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        match import(&path).1 {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.code(), "import");
                assert!(error.to_string().contains("events.parquet"), "{error}");
                true
            }
        }
    };
    for cut in [0, 3, 11, whole.len() / 2, whole.len() - 1] {
        assert!(check(&whole[..cut]), "cut at {cut}");
    }
    let mut huge = whole.clone();
    let end = huge.len();
    huge[end - 8..end - 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(check(&huge));
    // The panics of the library are caught; their messages would drown the test's own.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut refused = 0;
    for at in (4..whole.len() - 8).step_by(3) {
        for flip in [0x01, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            refused += usize::from(check(&bytes));
        }
    }
    std::panic::set_hook(hook);
    assert!(refused > 50, "{refused}");
}
