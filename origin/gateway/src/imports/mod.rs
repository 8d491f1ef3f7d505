//! Data in: MovieLens folders, JSON lines, CSV, and Parquet where it is built in. Every row is taken
//! or reported with its file, line and column; importing the same data again changes nothing.

mod movielens;
#[cfg(feature = "parquet")]
mod parquet;
mod table;

use crate::Error;
use sha2::{Digest, Sha256};
use skerry_origin_events::IMPORTED;
use skerry_types::{Event, Item, Millis, TenantId};
use skerry_wire::json;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows handed on at once.
pub const ROWS_AT_ONCE: usize = 2_000;
/// Errors kept with their lines; beyond it they are only counted.
pub const ERRORS_KEPT_MAX: usize = 1_000;
/// Files of a folder, at most.
const FILES_MAX: usize = 64;

/// Where rows go. Durable when it returns.
pub trait Sink {
    fn items(&self, items: Vec<Item>) -> Result<(), Error>;
    fn events(&self, events: Vec<Event>) -> Result<(), Error>;
    /// Rows read so far.
    fn progress(&self, rows: u64);
}

/// A row that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    pub file: String,
    /// From 1; of a Parquet file the row.
    pub line: u64,
    /// The column or field that is wrong, where it is one.
    pub column: Option<String>,
    pub code: &'static str,
    pub detail: String,
}

/// What an import read.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub rows: u64,
    pub items: u64,
    pub events: u64,
    /// The first [`ERRORS_KEPT_MAX`].
    pub errors: Vec<RowError>,
    pub errors_total: u64,
}

/// Stamp of imported events.
#[derive(Debug, Clone)]
pub struct Stamp {
    pub tenant: TenantId,
    pub now: Millis,
    pub region: Arc<str>,
}

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Items,
    Events,
}

/// A file to read, or the parts of a MovieLens folder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    MovieLens(PathBuf),
    Lines(PathBuf, Option<Kind>),
    Table(PathBuf, Option<Kind>),
    Parquet(PathBuf, Option<Kind>),
}

/// Forms that are read, for people.
const FORMS: &str = ".jsonl, .ndjson, .csv and .parquet";

/// What is at a path: a MovieLens folder, a folder of files of rows, or one such file.
fn parts(path: &Path) -> Result<Vec<Part>, Error> {
    let refuse = |reason: &str| Error::Import {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    if !path.exists() {
        return Err(refuse("there is nothing at this path"));
    }
    if path.is_file() {
        return Ok(vec![
            part(path).ok_or_else(|| refuse(&format!("only {FORMS} files are read")))?,
        ]);
    }
    if path.join("ratings.csv").is_file() && path.join("movies.csv").is_file() {
        return Ok(vec![Part::MovieLens(path.to_owned())]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(Error::io(path))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    // Items before events: the order of the words is the order of the files.
    files.sort_by_key(|path| (kind_of(path) != Some(Kind::Items), path.clone()));
    let parts: Vec<Part> = files
        .iter()
        .filter_map(|path| part(path))
        .take(FILES_MAX)
        .collect();
    if parts.is_empty() {
        return Err(refuse(&format!(
            "neither a MovieLens folder (ratings.csv, movies.csv) nor one with {FORMS} files"
        )));
    }
    Ok(parts)
}

fn part(path: &Path) -> Option<Part> {
    match path.extension()?.to_str()? {
        "jsonl" | "ndjson" => Some(Part::Lines(path.to_owned(), kind_of(path))),
        "csv" => Some(Part::Table(path.to_owned(), kind_of(path))),
        "parquet" => Some(Part::Parquet(path.to_owned(), kind_of(path))),
        _ => None,
    }
}

fn kind_of(path: &Path) -> Option<Kind> {
    let name = path.file_stem()?.to_str()?.to_ascii_lowercase();
    if name.starts_with("item") {
        Some(Kind::Items)
    } else if name.starts_with("event") {
        Some(Kind::Events)
    } else {
        None
    }
}

/// A digest of all that an import of `path` would read.
pub fn digest(path: &Path) -> Result<[u8; 32], Error> {
    let mut files = Vec::new();
    for part in parts(path)? {
        match part {
            Part::MovieLens(dir) => {
                files.extend(movielens::FILES.iter().map(|name| dir.join(name)))
            }
            Part::Lines(path, _) | Part::Table(path, _) | Part::Parquet(path, _) => {
                files.push(path)
            }
        }
    }
    let mut hash = Sha256::new();
    for path in files.iter().filter(|path| path.is_file()) {
        let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(
            file.metadata()
                .map_err(Error::io(path))?
                .len()
                .to_le_bytes(),
        );
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = file.read(&mut buffer).map_err(Error::io(path))?;
            if read == 0 {
                break;
            }
            hash.update(buffer.get(..read).unwrap_or_default());
        }
    }
    Ok(hash.finalize().into())
}

/// Reads all that is at `path` into a sink.
pub fn read(path: &Path, stamp: &Stamp, sink: &dyn Sink) -> Result<Summary, Error> {
    let mut import = Import {
        stamp,
        sink,
        read: Summary::default(),
        items: Vec::new(),
        events: Vec::new(),
    };
    let parts = parts(path)?;
    #[cfg(not(feature = "parquet"))]
    for part in &parts {
        if let Part::Parquet(path, _) = part {
            return Err(Error::NotBuiltIn {
                path: path.clone(),
                what: "Parquet",
                feature: "parquet",
            });
        }
    }
    for part in parts {
        match part {
            Part::MovieLens(dir) => movielens::read(&dir, &mut import)?,
            Part::Lines(path, kind) => lines(&path, kind, &mut import)?,
            Part::Table(path, kind) => table::read(&path, kind, &mut import)?,
            #[cfg(feature = "parquet")]
            Part::Parquet(path, kind) => parquet::read(&path, kind, &mut import)?,
            // Refused before anything is read.
            #[cfg(not(feature = "parquet"))]
            Part::Parquet(..) => {}
        }
    }
    import.flush()?;
    Ok(import.read)
}

/// An import on its way.
struct Import<'a> {
    stamp: &'a Stamp,
    sink: &'a dyn Sink,
    read: Summary,
    items: Vec<Item>,
    events: Vec<Event>,
}

impl Import<'_> {
    fn item(&mut self, item: Item) -> Result<(), Error> {
        self.read.items += 1;
        self.items.push(item);
        if self.items.len() >= ROWS_AT_ONCE {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn event(&mut self, event: Event) -> Result<(), Error> {
        self.read.events += 1;
        self.events.push(event);
        if self.events.len() >= ROWS_AT_ONCE {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// An event from the public JSON. One without an id gets one from its content, so that the
    /// same row is the same event at the next import.
    fn json_event(&mut self, file: &str, line: u64, body: &[u8]) -> Result<(), Error> {
        let mut parsed = match json::parse_events(body, self.stamp.now) {
            Ok(parsed) => parsed,
            Err(problem) => return self.problem(file, line, &problem),
        };
        let Some((_, mut input)) = parsed.accepted.pop() else {
            return Ok(());
        };
        if input.id.is_none() {
            let digest = Sha256::digest(body);
            let short = digest
                .iter()
                .take(16)
                .fold(0u128, |id, byte| id << 8 | u128::from(*byte));
            input.id = skerry_types::EventId::new(&format!("import:{short:032x}")).ok();
        }
        let event = input.accept(json::EventStamp {
            tenant: self.stamp.tenant.clone(),
            fresh_id: skerry_types::Uid::default(),
            accepted_ms: self.stamp.now,
            hlc: skerry_types::Hlc {
                ms: self.stamp.now,
                count: 0,
            },
            region: Arc::clone(&self.stamp.region),
            pop: Arc::from(IMPORTED),
        });
        self.event(event)
    }

    fn json_item(&mut self, file: &str, line: u64, body: &[u8]) -> Result<(), Error> {
        let body = [b"[", body, b"]"].concat();
        match json::parse_items(&body) {
            Ok(mut parsed) => match (parsed.accepted.pop(), parsed.rejected.pop()) {
                (Some((_, item)), _) => self.item(item),
                (None, Some(rejected)) => {
                    let column = column_of(&rejected.pointer);
                    self.error(file, line, column, rejected.code, rejected.detail);
                    Ok(())
                }
                (None, None) => Ok(()),
            },
            Err(problem) => self.problem(file, line, &problem),
        }
    }

    fn problem(&mut self, file: &str, line: u64, problem: &json::Problem) -> Result<(), Error> {
        match problem.errors.first() {
            Some(first) => {
                let column = column_of(&first.pointer);
                self.error(file, line, column, first.code, first.detail.clone());
            }
            None => self.error(file, line, None, problem.code, problem.detail.clone()),
        }
        Ok(())
    }

    fn error(
        &mut self,
        file: &str,
        line: u64,
        column: Option<&str>,
        code: &'static str,
        detail: String,
    ) {
        self.read.errors_total += 1;
        if self.read.errors.len() < ERRORS_KEPT_MAX {
            self.read.errors.push(RowError {
                file: file.to_owned(),
                line,
                column: column.map(str::to_owned),
                code,
                detail,
            });
        }
    }

    fn row(&mut self) {
        self.read.rows += 1;
    }

    fn flush(&mut self) -> Result<(), Error> {
        if !self.items.is_empty() {
            self.sink.items(std::mem::take(&mut self.items))?;
        }
        if !self.events.is_empty() {
            self.sink.events(std::mem::take(&mut self.events))?;
        }
        self.sink.progress(self.read.rows);
        Ok(())
    }
}

/// The column that a JSON pointer into a row means: attributes are columns too.
fn column_of(pointer: &str) -> Option<&str> {
    let mut steps = pointer.split('/').skip(1).peekable();
    // Items are read as a list of one.
    steps.next_if(|step| *step == "0");
    let first = steps.next().filter(|step| !step.is_empty())?;
    if first == "attributes" {
        return steps.next().or(Some(first));
    }
    Some(first)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("data")
        .to_owned()
}

/// One JSON object a line. A file whose name says nothing is judged by its lines: what has a `type`
/// is an event.
fn lines(path: &Path, kind: Option<Kind>, import: &mut Import<'_>) -> Result<(), Error> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let name = file_name(path);
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let limit = json::BODY_BYTES_MAX as u64 + 1;
        let read = reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut line)
            .map_err(Error::io(path))?;
        if read == 0 {
            break;
        }
        import.row();
        if line.last() != Some(&b'\n') && read as u64 == limit {
            import.error(
                &name,
                number,
                None,
                json::codes::BODY_TOO_LARGE,
                format!("a line has at most {} bytes", limit - 1),
            );
            // The rest of the line.
            loop {
                line.clear();
                let more = reader
                    .by_ref()
                    .take(limit)
                    .read_until(b'\n', &mut line)
                    .map_err(Error::io(path))?;
                if more == 0 || line.last() == Some(&b'\n') {
                    break;
                }
            }
            continue;
        }
        let body = line.trim_ascii();
        if body.is_empty() {
            continue;
        }
        let kind = kind.unwrap_or_else(|| {
            let is_event = body.windows(6).any(|window| window == b"\"type\"");
            if is_event { Kind::Events } else { Kind::Items }
        });
        match kind {
            Kind::Items => import.json_item(&name, number, body)?,
            Kind::Events => import.json_event(&name, number, body)?,
        }
    }
    import.flush()
}

#[cfg(test)]
mod tests;
