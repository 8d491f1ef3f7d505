//! Every call of our own index that the benchmark makes: what its interface changes, changes here.

use crate::worker::Engine;
use anyhow::Context;
use skerry_types::{Attributes, Filter, Test, Value};
use skerry_vector_index::graph::{BuildOptions, Packed, Scratch};
use skerry_vector_index::store::{Collection, Options};
pub use skerry_vector_index::{CodeKind, kernel_name};
use skerry_vector_index::{Merge, Metric, Query, Record, Spec, Stored, Write};
use std::path::Path;
use tempfile::TempDir;

/// Writes of one batch.
const BATCH: usize = 5_000;
/// The field that says which conditions a row meets.
const FIELD: &str = "meets";

/// The packed graph alone: what peers are compared with.
#[derive(Default)]
pub struct Ours {
    packed: Option<Packed>,
    scratch: Scratch,
}

impl Ours {
    pub fn over(dim: usize, base: &[f32]) -> anyhow::Result<Self> {
        let mut made = Self::default();
        made.build(dim, base)?;
        Ok(made)
    }

    /// Points that no search can reach.
    pub fn unreachable(&self) -> usize {
        self.packed.as_ref().map_or(0, Packed::unreachable)
    }
}

impl Engine for Ours {
    fn build(&mut self, dim: usize, base: &[f32]) -> anyhow::Result<()> {
        let options = BuildOptions::default();
        self.packed = Some(Packed::build(dim, Metric::Cosine, base, &options)?);
        Ok(())
    }

    fn search(
        &mut self,
        base: &[f32],
        query: &[f32],
        k: usize,
        ef: usize,
        rows: &mut Vec<u32>,
    ) -> anyhow::Result<()> {
        let packed = self.packed.as_ref().context("not built yet")?;
        let found = packed.search(&mut self.scratch, query, k, ef, base);
        rows.extend(found.into_iter().map(|(row, _)| row));
        Ok(())
    }

    fn hot_bytes(&self) -> Option<usize> {
        self.packed.as_ref().map(Packed::hot_bytes)
    }
}

/// A durable collection, as the product has it; ids are numbers.
pub struct Kept {
    collection: Collection,
    _folder: Option<TempDir>,
}

/// How a collection is made.
pub struct Making {
    pub mutable_rows: usize,
    pub build_threads: usize,
    pub codes: CodeKind,
}

impl Default for Making {
    fn default() -> Self {
        let usual = Options::default();
        Self {
            mutable_rows: usual.mutable_rows,
            build_threads: usual.build_threads,
            codes: usual.codes,
        }
    }
}

/// What a collection does in the background while it is measured.
pub enum Upkeep {
    /// Nothing.
    Off,
    /// What it does for everybody.
    Usual,
    /// It compacts all the time, as quickly as so many threads can, as soon as one row of a hundred is
    /// dead.
    Busy(usize),
}

impl Kept {
    pub fn empty(dim: usize) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let making = Making {
            mutable_rows: 1 << 20,
            ..Making::default()
        };
        let mut made = Self::create(&folder.path().join("collection"), dim, making)?;
        made._folder = Some(folder);
        Ok(made)
    }

    /// One that is loaded, then built, in a folder that is not there yet.
    pub fn create(folder: &Path, dim: usize, making: Making) -> anyhow::Result<Self> {
        let spec = Spec {
            dim,
            metric: Metric::Cosine,
            stored: Stored::F32,
            fields: vec![FIELD.into()],
        };
        let options = Options {
            mutable_rows: making.mutable_rows,
            build_threads: making.build_threads,
            codes: making.codes,
            background: false,
            ..Options::default()
        };
        Ok(Self {
            collection: Collection::create(folder, spec, options)?,
            _folder: None,
        })
    }

    pub fn open(folder: &Path, upkeep: &Upkeep) -> anyhow::Result<Self> {
        let usual = Options::default();
        let options = match upkeep {
            // What is hot is then what is sealed.
            Upkeep::Off => Options {
                mutable_rows: 1,
                background: false,
                ..usual
            },
            Upkeep::Usual => usual,
            Upkeep::Busy(threads) => Options {
                build_threads: *threads,
                cpu_percent: 100,
                dead_percent_max: 1,
                ..usual
            },
        };
        Ok(Self {
            collection: Collection::open(folder, options)?,
            _folder: None,
        })
    }

    pub fn close(self) {
        self.collection.close();
    }

    pub fn hot_bytes(&self) -> u64 {
        self.collection.stats().hot_bytes
    }

    pub fn segments(&self) -> usize {
        self.collection.stats().segments
    }

    /// Writes rows under their ids, with the names of the conditions that each meets.
    pub fn upsert<'a>(
        &self,
        rows: impl Iterator<Item = (u32, &'a [f32], Vec<&'a str>)>,
    ) -> anyhow::Result<()> {
        let writes = rows.map(|(id, vector, meets)| {
            let meets = meets.into_iter().map(Value::text).collect();
            Write::Upsert(Record {
                id: id.to_string().into(),
                vector: vector.to_vec(),
                payload: Attributes::from([(FIELD.into(), Value::List(meets))]),
            })
        });
        self.write(writes)
    }

    pub fn delete(&self, ids: &[u32]) -> anyhow::Result<()> {
        self.write(ids.iter().map(|id| Write::Delete(id.to_string().into())))
    }

    fn write(&self, mut writes: impl Iterator<Item = Write>) -> anyhow::Result<()> {
        loop {
            let batch: Vec<Write> = writes.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            self.collection.write(batch)?;
        }
    }

    /// Seals what is in memory, and makes one segment of all.
    pub fn compact(&self) -> anyhow::Result<()> {
        self.collection.seal()?;
        Ok(self.collection.compact()?)
    }

    /// The nearest of the rows that meet a condition, or of all.
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        ef: usize,
        meets: Option<&str>,
    ) -> anyhow::Result<Vec<u32>> {
        let filter = meets.map(|name| Filter::Field {
            field: FIELD.into(),
            test: Test::Eq(Value::text(name)),
        });
        let found = self.collection.search(&Query {
            vectors: vec![query.to_vec()],
            merge: Merge::Best,
            k,
            ef: Some(ef),
            filter,
        })?;
        let ids = found.iter().map(|found| Ok(found.id.parse()?));
        ids.collect()
    }
}
