//! CSV: rows by column name, each with its line; rows that are not whole are reported and skipped.

use super::{Import, Kind, file_name};
use crate::Error;
use csv::ByteRecord;
use skerry_wire::json;
use std::path::Path;

/// Columns whose values are lists, separated by `|`.
pub const LISTS: [&str; 4] = ["genre", "genres", "tag", "tags"];

/// The named columns of a file.
pub struct Table<const N: usize> {
    rows: csv::Reader<std::fs::File>,
    record: ByteRecord,
    columns: [usize; N],
    path: std::path::PathBuf,
    name: String,
}

impl<const N: usize> Table<N> {
    pub fn open(path: &Path, names: &[&str; N], _import: &mut Import<'_>) -> Result<Self, Error> {
        let mut rows = csv::ReaderBuilder::new()
            .from_path(path)
            .map_err(|error| refused(path, &error))?;
        let header = rows.byte_headers().map_err(|error| refused(path, &error))?;
        let mut columns = [0; N];
        for (column, name) in columns.iter_mut().zip(names) {
            let at = header
                .iter()
                .position(|field| field.trim_ascii() == name.as_bytes());
            *column = at.ok_or_else(|| Error::Import {
                path: path.to_owned(),
                reason: format!("the first line names no column {name}"),
            })?;
        }
        Ok(Self {
            rows,
            record: ByteRecord::new(),
            columns,
            path: path.to_owned(),
            name: file_name(path),
        })
    }

    /// The next whole row.
    pub fn next(&mut self, import: &mut Import<'_>) -> Result<Option<(u64, [String; N])>, Error> {
        while let Some(line) = step(
            &mut self.rows,
            &mut self.record,
            &self.path,
            &self.name,
            import,
        )? {
            let mut fields = [const { String::new() }; N];
            let mut whole = true;
            for (field, column) in fields.iter_mut().zip(self.columns) {
                match std::str::from_utf8(self.record.get(column).unwrap_or_default()) {
                    Ok(text) => *field = text.to_owned(),
                    Err(_) => whole = false,
                }
            }
            if whole {
                return Ok(Some((line, fields)));
            }
            import.error(
                &self.name,
                line,
                None,
                json::codes::INVALID_UTF8,
                "the row is not UTF-8".to_owned(),
            );
        }
        Ok(None)
    }
}

fn refused(path: &Path, error: &csv::Error) -> Error {
    Error::Import {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// Reads a row and says its line; `None` at the end.
fn step(
    rows: &mut csv::Reader<std::fs::File>,
    record: &mut ByteRecord,
    path: &Path,
    name: &str,
    import: &mut Import<'_>,
) -> Result<Option<u64>, Error> {
    loop {
        match rows.read_byte_record(record) {
            Ok(false) => return Ok(None),
            Ok(true) => {
                import.row();
                return Ok(Some(record.position().map_or(0, csv::Position::line)));
            }
            Err(error) => match error.kind() {
                csv::ErrorKind::UnequalLengths {
                    pos,
                    expected_len,
                    len,
                } => {
                    import.row();
                    let line = pos.as_ref().map_or(0, csv::Position::line);
                    import.error(
                        name,
                        line,
                        None,
                        "row_length",
                        format!("{len} fields where the first line has {expected_len}"),
                    );
                }
                _ => return Err(refused(path, &error)),
            },
        }
    }
}

/// A CSV file of items (`id`, `hidden`, `maturity`, attributes) or events (the fields of the public event; `at`
/// also as seconds since 1970). Rows become the public JSON and are judged as such.
pub fn read(path: &Path, kind: Option<Kind>, import: &mut Import<'_>) -> Result<(), Error> {
    let name = file_name(path);
    let mut rows = csv::ReaderBuilder::new()
        .from_path(path)
        .map_err(|error| refused(path, &error))?;
    let header = rows
        .headers()
        .map_err(|error| refused(path, &error))?
        .clone();
    let has = |name: &str| header.iter().any(|column| column.trim() == name);
    let kind = kind.unwrap_or(if has("user") || has("session") {
        Kind::Events
    } else {
        Kind::Items
    });
    if kind == Kind::Items && !has("id") {
        return Err(Error::Import {
            path: path.to_owned(),
            reason: "items need a column `id`".to_owned(),
        });
    }
    let mut record = ByteRecord::new();
    while let Some(line) = step(&mut rows, &mut record, path, &name, import)? {
        let fields: Option<Vec<(&str, &str)>> = header
            .iter()
            .zip(&record)
            .map(|(name, field)| Some((name.trim(), std::str::from_utf8(field).ok()?)))
            .collect();
        let Some(fields) = fields else {
            import.error(
                &name,
                line,
                None,
                json::codes::INVALID_UTF8,
                "the row is not UTF-8".to_owned(),
            );
            continue;
        };
        let fields = fields.into_iter().filter(|(_, text)| !text.is_empty());
        match kind {
            Kind::Items => import.json_item(&name, line, &item_json(fields))?,
            Kind::Events => import.json_event(&name, line, &event_json(fields))?,
        }
    }
    import.flush()
}

fn item_json<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>) -> Vec<u8> {
    let (mut out, mut attributes) = (b"{".to_vec(), Vec::new());
    for (name, text) in fields {
        match name {
            "id" => {
                out.extend_from_slice(b"\"id\":");
                json::write_string(&mut out, text);
                out.push(b',');
            }
            "hidden" | "maturity" => {
                json::write_string(&mut out, name);
                out.push(b':');
                scalar(&mut out, text);
                out.push(b',');
            }
            name => {
                if !attributes.is_empty() {
                    attributes.push(b',');
                }
                json::write_string(&mut attributes, name);
                attributes.push(b':');
                if LISTS.contains(&name) {
                    attributes.push(b'[');
                    for (at, part) in text.split('|').filter(|part| !part.is_empty()).enumerate() {
                        if at > 0 {
                            attributes.push(b',');
                        }
                        json::write_string(&mut attributes, part);
                    }
                    attributes.push(b']');
                } else {
                    scalar(&mut attributes, text);
                }
            }
        }
    }
    out.extend_from_slice(b"\"attributes\":{");
    out.extend_from_slice(&attributes);
    out.extend_from_slice(b"}}");
    out
}

fn event_json<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>) -> Vec<u8> {
    let mut out = b"{".to_vec();
    let (mut has_type, mut has_value) = (false, false);
    for (name, text) in fields {
        if out.len() > 1 {
            out.push(b',');
        }
        json::write_string(&mut out, name);
        out.push(b':');
        match (name, text.parse::<u64>()) {
            ("at", Ok(seconds)) => {
                json::write_string(&mut out, &json::format_time(seconds.saturating_mul(1000)))
            }
            ("value", _) => {
                has_value = true;
                scalar(&mut out, text);
            }
            _ => {
                has_type |= name == "type";
                json::write_string(&mut out, text);
            }
        }
    }
    if !has_type && has_value {
        out.extend_from_slice(b",\"type\":\"rating\"");
    }
    out.push(b'}');
    out
}

/// A number or boolean where the text is one, else a string.
fn scalar(out: &mut Vec<u8>, text: &str) {
    let is_number = text.parse::<f64>().is_ok_and(f64::is_finite)
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'e' | b'E'))
        && serde_json::from_str::<f64>(text).is_ok();
    if is_number || matches!(text, "true" | "false") {
        out.extend_from_slice(text.as_bytes());
    } else {
        json::write_string(out, text);
    }
}
