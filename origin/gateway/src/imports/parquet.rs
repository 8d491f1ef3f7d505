//! Parquet: each row becomes the public JSON, as a row of CSV does, and is judged as such.
//!
//! Row groups are read one after the other, a page of each column at a time: memory does not grow
//! with the file. The library panics on some files that are not whole; every call into it is
//! guarded, and a file that breaks off is refused by name and row, after what came before it was
//! taken.

mod footer;

use super::table::LISTS;
use super::{Import, Kind, file_name};
use crate::Error;
use parquet::basic::{LogicalType, TimeUnit};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use skerry_wire::json;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Leaf columns of a file.
const COLUMNS_MAX: usize = 1_024;
/// Nesting of a column.
const DEPTH_MAX: usize = 16;
/// The description at the end of a file.
const FOOTER_BYTES_MAX: u32 = 64 << 20;
/// What the library says of a broken file, in bytes: it may quote values.
const REASON_BYTES_MAX: usize = 300;
/// Bytes of a decimal number.
const DECIMAL_BYTES_MAX: usize = 32;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Why a value has no place in a record: code and detail.
type Bad = (&'static str, &'static str);

/// A top-level column.
struct Column {
    name: String,
    /// Whole numbers are nanoseconds since 1970.
    nanos: bool,
}

/// A file of items (`id`, `hidden`, `available`, `maturity`; every other column, and every member of
/// a column `attributes`, is an attribute) or events (the fields of the public event; `at` also as a
/// timestamp, or as seconds since 1970).
pub fn read(path: &Path, kind: Option<Kind>, import: &mut Import<'_>) -> Result<(), Error> {
    let refuse = |reason: String| Error::Import {
        path: path.to_owned(),
        reason,
    };
    let name = file_name(path);
    let file = File::open(path).map_err(Error::io(path))?;
    check_footer(&file).map_err(refuse)?;
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(refuse)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    if schema.num_columns() > COLUMNS_MAX || depth(schema.root_schema(), 0) > DEPTH_MAX {
        return Err(refuse(format!(
            "more than {COLUMNS_MAX} columns, or nested more than {DEPTH_MAX} deep"
        )));
    }
    let columns: Vec<Column> = schema
        .root_schema()
        .get_fields()
        .iter()
        .map(|field| column(field))
        .collect();
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    let kind = kind.unwrap_or(if has("user") || has("session") {
        Kind::Events
    } else {
        Kind::Items
    });
    if kind == Kind::Items && !has("id") {
        return Err(refuse("items need a column `id`".to_owned()));
    }
    let mut number = 0;
    for at in 0..reader.num_row_groups() {
        let broken = |number: u64, reason: String| {
            refuse(format!(
                "it breaks off at row {} (row group {at}): {reason}",
                number + 1
            ))
        };
        let group =
            guarded(|| reader.get_row_group(at)).map_err(|reason| broken(number, reason))?;
        let mut rows = guarded(|| RowIter::from_row_group(None, group.as_ref()))
            .map_err(|reason| broken(number, reason))?;
        loop {
            let row = match guarded(|| rows.next().transpose()) {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(reason) => {
                    import.flush()?;
                    return Err(broken(number, reason));
                }
            };
            number += 1;
            import.row();
            let made = match kind {
                Kind::Items => item_json(&columns, &row),
                Kind::Events => event_json(&columns, &row),
            };
            match (made, kind) {
                (Ok(body), Kind::Items) => import.json_item(&name, number, &body)?,
                (Ok(body), Kind::Events) => import.json_event(&name, number, &body)?,
                (Err((column, (code, detail))), _) => {
                    import.error(&name, number, Some(column), code, detail.to_owned());
                }
            }
        }
    }
    import.flush()
}

/// A call into the library: its errors and its panics are words.
fn guarded<T>(call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let mut reason = error.to_string();
            if reason.len() > REASON_BYTES_MAX {
                let end = reason.floor_char_boundary(REASON_BYTES_MAX);
                reason.truncate(end);
                reason.push_str(" ...");
            }
            Err(reason)
        }
        Err(_) => Err("it is not a whole Parquet file".to_owned()),
    }
}

/// Refuses, before the library allocates for it, a description that no real file has.
fn check_footer(mut file: &File) -> Result<(), String> {
    let mut tail = [0; 8];
    let read = file
        .seek(SeekFrom::End(-8))
        .and_then(|_| file.read_exact(&mut tail));
    let [a, b, c, d, magic @ ..] = tail;
    if read.is_err() || magic != *b"PAR1" {
        return Err("it is not a Parquet file, or its end is missing".to_owned());
    }
    let length = u32::from_le_bytes([a, b, c, d]);
    if length > FOOTER_BYTES_MAX {
        return Err(format!(
            "its description is larger than {FOOTER_BYTES_MAX} bytes"
        ));
    }
    let mut footer = Vec::new();
    file.seek(SeekFrom::End(-8 - i64::from(length)))
        .and_then(|_| file.take(u64::from(length)).read_to_end(&mut footer))
        .and_then(|_| file.rewind())
        .map_err(|_| "its description is cut off".to_owned())?;
    if footer::is_sane(&footer, DEPTH_MAX) {
        Ok(())
    } else {
        Err(format!(
            "its description is damaged, or nested more than {DEPTH_MAX} deep"
        ))
    }
}

fn depth(field: &Type, at: usize) -> usize {
    if at > DEPTH_MAX || !field.is_group() {
        return at;
    }
    let below = field.get_fields().iter().map(|field| depth(field, at + 1));
    below.max().unwrap_or(at)
}

fn column(field: &Type) -> Column {
    let nanos = matches!(
        field.get_basic_info().logical_type_ref(),
        Some(LogicalType::Timestamp(of)) if of.unit == TimeUnit::NANOS
    );
    Column {
        name: field.name().to_owned(),
        nanos,
    }
}

/// The columns of a row that hold something.
fn fields<'r>(
    columns: &'r [Column],
    row: &'r Row,
) -> impl Iterator<Item = (&'r Column, &'r Field)> {
    columns
        .iter()
        .zip(row.get_column_iter())
        .map(|(column, (_, field))| (column, field))
        .filter(|(_, field)| !matches!(field, Field::Null))
}

fn item_json<'c>(columns: &'c [Column], row: &'c Row) -> Result<Vec<u8>, (&'c str, Bad)> {
    let (mut out, mut attributes) = (b"{".to_vec(), Vec::new());
    for (column, field) in fields(columns, row) {
        let name = column.name.as_str();
        let put = |out: &mut Vec<u8>, name: &str| {
            if out.last().is_some_and(|last| *last != b'{') {
                out.push(b',');
            }
            json::write_string(out, name);
            out.push(b':');
        };
        let written = match (name, field) {
            ("id", field) => {
                put(&mut out, name);
                text(&mut out, field)
            }
            ("hidden" | "available" | "maturity", field) => {
                put(&mut out, name);
                value(&mut out, field)
            }
            ("attributes", Field::Group(group)) => {
                let mut members = group
                    .get_column_iter()
                    .filter(|(_, field)| !matches!(field, Field::Null));
                members.try_for_each(|(name, field)| {
                    put(&mut attributes, name);
                    value(&mut attributes, field)
                })
            }
            ("attributes", Field::MapInternal(map)) => {
                let mut members = map
                    .entries()
                    .iter()
                    .filter(|(_, field)| !matches!(field, Field::Null));
                members.try_for_each(|(key, field)| {
                    if !attributes.is_empty() {
                        attributes.push(b',');
                    }
                    text(&mut attributes, key)?;
                    attributes.push(b':');
                    value(&mut attributes, field)
                })
            }
            (name, Field::Str(list)) if LISTS.contains(&name) => {
                put(&mut attributes, name);
                parts(&mut attributes, list);
                Ok(())
            }
            (name, field) => {
                put(&mut attributes, name);
                match time_ms(column, field) {
                    Some(time) => time.map(|ms| {
                        json::write_string(&mut attributes, &json::format_time(ms));
                    }),
                    None => value(&mut attributes, field),
                }
            }
        };
        written.map_err(|bad| (name, bad))?;
    }
    if out.len() > 1 {
        out.push(b',');
    }
    out.extend_from_slice(b"\"attributes\":{");
    out.extend_from_slice(&attributes);
    out.extend_from_slice(b"}}");
    Ok(out)
}

fn event_json<'c>(columns: &'c [Column], row: &'c Row) -> Result<Vec<u8>, (&'c str, Bad)> {
    let mut out = b"{".to_vec();
    let (mut has_type, mut has_value) = (false, false);
    for (column, field) in fields(columns, row) {
        let name = column.name.as_str();
        if out.len() > 1 {
            out.push(b',');
        }
        json::write_string(&mut out, name);
        out.push(b':');
        has_type |= name == "type";
        has_value |= name == "value";
        let written = match name {
            "at" => match time_ms(column, field).or_else(|| seconds_ms(field)) {
                Some(time) => time.map(|ms| json::write_string(&mut out, &json::format_time(ms))),
                None => value(&mut out, field),
            },
            "value" | "positions" => value(&mut out, field),
            _ => text(&mut out, field),
        };
        written.map_err(|bad| (name, bad))?;
    }
    if !has_type && has_value {
        out.extend_from_slice(b",\"type\":\"rating\"");
    }
    out.push(b'}');
    Ok(out)
}

/// What is between `|`, as in CSV.
fn parts(out: &mut Vec<u8>, list: &str) {
    out.push(b'[');
    for (at, part) in list.split('|').filter(|part| !part.is_empty()).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::write_string(out, part);
    }
    out.push(b']');
}

/// The time that a timestamp or date is; `None` for anything else.
fn time_ms(column: &Column, field: &Field) -> Option<Result<u64, Bad>> {
    let ms = match field {
        Field::Long(nanos) if column.nanos => nanos.div_euclid(1_000_000),
        Field::TimestampMillis(ms) => *ms,
        Field::TimestampMicros(us) => us.div_euclid(1_000),
        Field::Date(days) => i64::from(*days).saturating_mul(DAY_MS),
        _ => return None,
    };
    Some(u64::try_from(ms).map_err(|_| ("time_invalid", "the time is before 1970")))
}

/// Seconds since 1970, as CSV has them.
fn seconds_ms(field: &Field) -> Option<Result<u64, Bad>> {
    let seconds = match field {
        Field::Int(seconds) => i64::from(*seconds),
        Field::Long(seconds) => *seconds,
        Field::UInt(seconds) => i64::from(*seconds),
        Field::ULong(seconds) => i64::try_from(*seconds).unwrap_or(i64::MAX),
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        Field::Double(seconds) if seconds.is_finite() => seconds.floor() as i64,
        _ => return None,
    };
    let seconds = u64::try_from(seconds).map(|seconds| seconds.saturating_mul(1000));
    Some(seconds.map_err(|_| ("time_invalid", "the time is before 1970")))
}

/// An id or name: whole numbers are text too.
fn text(out: &mut Vec<u8>, field: &Field) -> Result<(), Bad> {
    let number = match field {
        Field::Byte(number) => i128::from(*number),
        Field::Short(number) => i128::from(*number),
        Field::Int(number) => i128::from(*number),
        Field::Long(number) => i128::from(*number),
        Field::UByte(number) => i128::from(*number),
        Field::UShort(number) => i128::from(*number),
        Field::UInt(number) => i128::from(*number),
        Field::ULong(number) => i128::from(*number),
        other => return value(out, other),
    };
    json::write_string(out, &number.to_string());
    Ok(())
}

/// The JSON of a value. Recursion ends: the schema is at most [`DEPTH_MAX`] deep.
fn value(out: &mut Vec<u8>, field: &Field) -> Result<(), Bad> {
    let number = |out: &mut Vec<u8>, text: String| out.extend_from_slice(text.as_bytes());
    match field {
        Field::Null => out.extend_from_slice(b"null"),
        Field::Bool(is) => number(out, is.to_string()),
        Field::Byte(n) => number(out, n.to_string()),
        Field::Short(n) => number(out, n.to_string()),
        Field::Int(n) => number(out, n.to_string()),
        Field::Long(n) => number(out, n.to_string()),
        Field::UByte(n) => number(out, n.to_string()),
        Field::UShort(n) => number(out, n.to_string()),
        Field::UInt(n) => number(out, n.to_string()),
        Field::ULong(n) => number(out, n.to_string()),
        Field::Float16(n) => finite(out, f64::from(*n), n.to_string())?,
        Field::Float(n) => finite(out, f64::from(*n), n.to_string())?,
        Field::Double(n) => finite(out, *n, n.to_string())?,
        Field::Decimal(n) => {
            let sane =
                n.scale() >= 0 && n.precision() >= n.scale() && n.data().len() <= DECIMAL_BYTES_MAX;
            if !sane {
                return Err((json::codes::OUT_OF_RANGE, "the decimal number is too long"));
            }
            // Without a fraction it ends in a point, which JSON does not have.
            number(out, field.to_string().trim_end_matches('.').to_owned());
        }
        Field::Str(text) => json::write_string(out, text),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => json::write_string(out, text),
            Err(_) => return Err((json::codes::INVALID_UTF8, "the value is not UTF-8")),
        },
        Field::TimeMillis(_) | Field::TimeMicros(_) => {
            return Err((
                json::codes::WRONG_TYPE,
                "a time of day has no place in a record",
            ));
        }
        Field::Date(_) | Field::TimestampMillis(_) | Field::TimestampMicros(_) => {
            let column = Column {
                name: String::new(),
                nanos: false,
            };
            let ms = time_ms(&column, field).unwrap_or(Ok(0))?;
            json::write_string(out, &json::format_time(ms));
        }
        Field::Group(group) => {
            out.push(b'{');
            for (at, (name, field)) in group.get_column_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                json::write_string(out, name);
                out.push(b':');
                value(out, field)?;
            }
            out.push(b'}');
        }
        Field::ListInternal(list) => {
            out.push(b'[');
            for (at, field) in list.elements().iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                value(out, field)?;
            }
            out.push(b']');
        }
        Field::MapInternal(map) => {
            out.push(b'{');
            for (at, (key, field)) in map.entries().iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                text(out, key)?;
                out.push(b':');
                value(out, field)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn finite(out: &mut Vec<u8>, number: f64, text: String) -> Result<(), Bad> {
    if !number.is_finite() {
        return Err((json::codes::OUT_OF_RANGE, "the number is not finite"));
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests;
