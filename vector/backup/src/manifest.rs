//! What a snapshot is made of: its manifest, and the object that says what a place belongs to.
//!
//! Invariant: both carry a checksum of all that they say; a manifest names the place that it was made
//! for, and itself.

use crate::error::Error;
use crate::names::{self, SnapshotId};
use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skerry_vector_index::{Metric, Spec, Stored};
use skerry_wire::CodecError;
use skerry_wire::codec;
use skerry_wire::value::schema;
use std::fmt;

/// What kind of collection a place is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    pub dim: u64,
    pub metric: Box<str>,
    pub stored: Box<str>,
    pub fields: Vec<Box<str>>,
}

impl From<&Spec> for Kind {
    fn from(spec: &Spec) -> Self {
        let metric = match spec.metric {
            Metric::Dot => "dot",
            Metric::Cosine => "cosine",
            Metric::L2 => "l2",
        };
        let stored = match spec.stored {
            Stored::F32 => "f32",
            Stored::F16 => "f16",
        };
        Self {
            dim: spec.dim as u64,
            metric: metric.into(),
            stored: stored.into(),
            fields: spec.fields.clone(),
        }
    }
}

/// As the flags of a node.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dim, metric, stored) = (self.dim, &self.metric, &self.stored);
        let fields = self.fields.join(",");
        // Said even where there are none: a node has some unless it is told.
        write!(
            f,
            "--dim {dim} --metric {metric} --stored {stored} --fields={fields}"
        )
    }
}

/// What a place belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub id: u128,
    pub kind: Kind,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The place that it was made for.
    pub(crate) place: u128,
    /// Its own name.
    id: Box<str>,
    pub made_ms: u64,
    /// Whose it is: pruning counts for each node alone.
    pub node: Box<str>,
    pub kind: Kind,
    /// What its maker keeps beside the parts.
    pub beside: Vec<u8>,
    pub parts: Vec<Part>,
}

/// A collection at one sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: Box<str>,
    /// It holds all writes up to this one, and none after.
    pub seq: u64,
    /// Records that are alive.
    pub rows: u64,
    pub files: Vec<PartFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartFile {
    pub name: Box<str>,
    pub bytes: u64,
    pub crc32c: u32,
    /// Of a segment, which snapshots share.
    pub identity: Option<u128>,
}

impl Manifest {
    pub(crate) fn new(place: &Place, id: &SnapshotId, made_ms: u64, node: &str) -> Self {
        Self {
            place: place.id,
            id: id.as_str().into(),
            made_ms,
            node: node.into(),
            kind: place.kind.clone(),
            beside: Vec::new(),
            parts: Vec::new(),
        }
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        let parts = self.parts.iter();
        parts.map(Part::bytes).sum()
    }

    #[must_use]
    pub fn rows(&self) -> u64 {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// Every object that it needs, itself aside.
    pub(crate) fn objects<'a>(
        &'a self,
        id: &'a SnapshotId,
    ) -> impl Iterator<Item = (Path, &'a PartFile)> {
        let parts = self.parts.iter();
        parts.flat_map(move |part| {
            let files = part.files.iter();
            files.map(move |file| (names::of_file(id, part, file), file))
        })
    }

    pub(crate) fn encode(&self, object: &Path) -> Result<Vec<u8>, Error> {
        encode(schema::BACKUP_MANIFEST, self, object)
    }

    /// What the manifest of `id` says, where it is one of `place`.
    pub(crate) fn decode(id: &SnapshotId, place: &Place, bytes: &[u8]) -> Result<Self, Error> {
        let object = names::manifest(id);
        let manifest: Self = decode(schema::BACKUP_MANIFEST, &object, bytes)?;
        if manifest.place != place.id {
            let what = "it was made for another place".to_owned();
            let object = object.to_string();
            return Err(Error::Foreign { object, what });
        }
        if *manifest.id != *id.as_str() {
            let what = format!("it is that of {}", manifest.id);
            return Err(Error::corrupt(&object, what));
        }
        if let Some(part) = manifest
            .parts
            .iter()
            .find(|part| !names::is_part(&part.name))
        {
            let what = format!("{:?} is no name of a part", part.name);
            return Err(Error::corrupt(&object, what));
        }
        Ok(manifest)
    }
}

impl Part {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl Place {
    pub fn encode(&self, object: &Path) -> Result<Vec<u8>, Error> {
        encode(schema::BACKUP_PLACE, self, object)
    }

    pub fn decode(object: &Path, bytes: &[u8]) -> Result<Self, Error> {
        decode(schema::BACKUP_PLACE, object, bytes)
    }
}

fn encode<T: Serialize>(schema: u16, value: &T, object: &Path) -> Result<Vec<u8>, Error> {
    let bytes = codec::encode_as(schema, value);
    let mut bytes = bytes.map_err(|error| Error::corrupt(object, error.to_string()))?;
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(schema: u16, object: &Path, bytes: &[u8]) -> Result<T, Error> {
    let short = || Error::corrupt(object, "it is too short");
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(short)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(Error::corrupt(object, "its checksum is wrong"));
    }
    codec::decode_as(schema, body).map_err(|error| match error {
        // Whole, and yet not known: what a later version writes.
        CodecError::Encoding(_) | CodecError::Schema { .. } => Error::Newer {
            object: object.to_string(),
            what: error.to_string(),
        },
        error => Error::corrupt(object, error.to_string()),
    })
}
