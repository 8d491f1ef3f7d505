//! Between the domain's words and the messages of `shared/wire`. What comes in is checked here for
//! shape; a collection checks what it means.

use crate::error::Error;
use crate::store::LogRecord;
use skerry_types::{Filter, Metadata};
use skerry_vector_index::{Found, Merge, Query, Record, Write};
pub use skerry_wire::grpc;
use skerry_wire::value::{metadata, schema};
use skerry_wire::{codec, grpc as g};

/// Queries of one request, at most.
pub const QUERIES_MAX: usize = 256;
/// Writes of one request, at most; the collection's own bound.
pub const WRITES_MAX: usize = skerry_vector_index::BATCH_MAX;

fn wrong(what: &str) -> Error {
    Error::Request(what.to_owned())
}

pub fn record_out(record: Record) -> g::Record {
    g::Record {
        id: record.id.into(),
        vector: record.vector,
        payload: metadata::of(&record.payload).as_bytes().to_vec(),
    }
}

pub fn record_in(record: g::Record) -> Result<Record, Error> {
    let payload = metadata::read(&Metadata::from_bytes(&record.payload));
    Ok(Record {
        id: record.id.into(),
        vector: record.vector,
        payload: payload.map_err(|error| wrong(&format!("a payload: {error}")))?,
    })
}

pub fn write_out(write: Write) -> g::Write {
    let change = match write {
        Write::Upsert(record) => g::write::Change::Upsert(record_out(record)),
        Write::Delete(id) => g::write::Change::Delete(id.into()),
    };
    g::Write {
        change: Some(change),
    }
}

pub fn write_in(write: g::Write) -> Result<Write, Error> {
    match write.change {
        Some(g::write::Change::Upsert(record)) => Ok(Write::Upsert(record_in(record)?)),
        Some(g::write::Change::Delete(id)) => Ok(Write::Delete(id.into())),
        None => Err(wrong("a write that changes nothing")),
    }
}

pub fn writes_in(writes: Vec<g::Write>) -> Result<Vec<Write>, Error> {
    if writes.is_empty() || writes.len() > WRITES_MAX {
        return Err(Error::Request(format!(
            "{} writes: 1 to {WRITES_MAX}",
            writes.len()
        )));
    }
    writes.into_iter().map(write_in).collect()
}

/// The id that a write changes.
#[must_use]
pub fn id_of(write: &Write) -> &str {
    match write {
        Write::Upsert(record) => &record.id,
        Write::Delete(id) => id,
    }
}

pub fn log_record_out(record: LogRecord) -> g::LogRecord {
    g::LogRecord {
        seq: record.seq,
        write: Some(write_out(record.write)),
    }
}

pub fn log_record_in(record: g::LogRecord) -> Result<LogRecord, Error> {
    let write = record
        .write
        .ok_or_else(|| wrong("a log record without a write"))?;
    Ok(LogRecord {
        seq: record.seq,
        write: write_in(write)?,
    })
}

pub fn query_out(query: &Query) -> Result<g::Query, Error> {
    let filter = match &query.filter {
        Some(filter) => {
            codec::encode_as(schema::FILTER, filter).map_err(|error| wrong(&error.to_string()))?
        }
        None => Vec::new(),
    };
    let bounded = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(g::Query {
        vectors: query
            .vectors
            .iter()
            .map(|values| g::Vector {
                values: values.clone(),
            })
            .collect(),
        merge: match query.merge {
            Merge::Best => g::Merge::Best,
            Merge::Mean => g::Merge::Mean,
        }
        .into(),
        k: bounded(query.k),
        ef: query.ef.map_or(0, bounded),
        filter,
    })
}

pub fn query_in(query: g::Query) -> Result<Query, Error> {
    let filter = match query.filter.as_slice() {
        [] => None,
        bytes => Some(
            codec::decode_as::<Filter>(schema::FILTER, bytes)
                .map_err(|error| wrong(&format!("a filter: {error}")))?,
        ),
    };
    Ok(Query {
        merge: match query.merge() {
            g::Merge::Best => Merge::Best,
            g::Merge::Mean => Merge::Mean,
        },
        k: query.k as usize,
        ef: (query.ef > 0).then_some(query.ef as usize),
        filter,
        vectors: query.vectors.into_iter().map(|v| v.values).collect(),
    })
}

pub fn queries_in(queries: Vec<g::Query>) -> Result<Vec<Query>, Error> {
    if queries.is_empty() || queries.len() > QUERIES_MAX {
        return Err(Error::Request(format!(
            "{} queries: 1 to {QUERIES_MAX}",
            queries.len()
        )));
    }
    queries.into_iter().map(query_in).collect()
}

pub fn found_out(list: Vec<Found>) -> g::FoundList {
    let found = list.into_iter().map(|found| g::Found {
        id: found.id.into(),
        score: found.score,
        seq: found.seq,
    });
    g::FoundList {
        found: found.collect(),
    }
}

pub fn found_in(list: g::FoundList) -> Vec<Found> {
    let found = list.found.into_iter().map(|found| Found {
        id: found.id.into(),
        score: found.score,
        seq: found.seq,
    });
    found.collect()
}
