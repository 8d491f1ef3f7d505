//! Snapshots of a node: its shards and the table they were under, from a running node or from the
//! folder of one that is down; and a folder made of a snapshot.
//!
//! Invariants: all shards are captured under one table: records that moved away while they were would
//! be in none of them. A folder that is being restored is marked, and no node starts in it; what a
//! restore cannot finish it takes away. A restored replica has no terms: whoever has another history
//! takes a snapshot of it, or it of them.

use crate::coordination::View;
use crate::coordination::embedded::Embedded;
use crate::error::Error;
use crate::files;
use crate::node::{Shared, VIEW, shard_dir};
use crate::replica::{self, blocking};
use crate::table::{NodeId, ShardId, ShardTable};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use skerry_vector_backup::{
    Kind, Manifest, OnProgress, Part, Pruned, SnapshotId, Snapshots, Stamp, Take,
};
use skerry_vector_index::store::{Collection, Options};
use skerry_wire::{codec, value::schema};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

mod folder;
mod serve;

pub use folder::refuse_half_restored;
pub use serve::serve;

/// Captures are begun anew when the table changes meanwhile, so often.
const CAPTURES_MAX: usize = 5;

/// What a snapshot keeps beside its shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Beside {
    table: Vec<u8>,
    epoch: u64,
}

/// A snapshot that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    pub id: SnapshotId,
    pub manifest: Manifest,
    pub pruned: Pruned,
}

/// A folder that was made of a snapshot.
#[derive(Debug, Clone)]
pub struct Restored {
    pub id: SnapshotId,
    pub node: NodeId,
    pub kind: Kind,
    pub shards: Vec<(ShardId, Part)>,
    /// Shards of the collection that the snapshot does not have: alone the folder cannot serve.
    pub missing: Vec<ShardId>,
}

fn shard_name(shard: ShardId) -> Box<str> {
    format!("shard-{:04}", shard.0).into()
}

impl Beside {
    fn of(table: &ShardTable) -> Result<Vec<u8>, Error> {
        let encode = || {
            let (table, epoch) = (table.encode()?, table.epoch());
            codec::encode_as(schema::SHARD_BACKUP, &Self { table, epoch })
        };
        encode().map_err(|error| Error::Peer(error.to_string()))
    }

    /// The table of a snapshot, and the shard of each part.
    fn table(id: &SnapshotId, manifest: &Manifest) -> Result<(ShardTable, Vec<ShardId>), Error> {
        let corrupt = |what: String| skerry_vector_backup::Error::Corrupt {
            object: format!("the manifest of {id}"),
            what,
        };
        let beside: Self = codec::decode_as(schema::SHARD_BACKUP, &manifest.beside)
            .map_err(|error| corrupt(error.to_string()))?;
        let table = ShardTable::decode(&beside.table, beside.epoch).map_err(corrupt)?;
        let parts = manifest.parts.iter().map(|part| {
            let mut shards = table.shards().iter().map(|shard| shard.id);
            let found = shards.find(|shard| shard_name(*shard) == part.name);
            found.ok_or_else(|| corrupt(format!("{:?} is no shard of its table", part.name)))
        });
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        Ok((table, parts))
    }
}

/// The shards of a running node, under one table.
pub(crate) async fn capture(shared: &Arc<Shared>) -> Result<Take, Error> {
    let node = &shared.options.id;
    for _ in 0..CAPTURES_MAX {
        let table = shared.table_since(0).await?;
        let mine = table.shards().iter();
        let mine = mine.filter(|shard| shard.replicas.contains(node) && !shard.slots.is_empty());
        let mut parts = Vec::new();
        for shard in mine {
            let replica = shared.replica(shard.id)?;
            if !replica.is_caught_up() {
                return Err(Error::Starting(shard.id));
            }
            let captured = blocking(move || Ok(replica.store().capture()?)).await?;
            parts.push((shard_name(shard.id), captured));
        }
        if shared.epoch() == table.epoch() {
            return Ok(Take {
                node: node.as_str().into(),
                parts,
                beside: Beside::of(&table)?,
            });
        }
    }
    Err(Error::Overloaded("changes of the table"))
}

/// Takes a snapshot of a node that is down, by its folder.
pub async fn take_stopped(
    dir: &Path,
    node: &NodeId,
    snapshots: &Snapshots,
    keep: Option<NonZeroUsize>,
    stop: &CancellationToken,
    progress: OnProgress<'_>,
) -> Result<Taken, Error> {
    let (folder, node) = (dir.to_path_buf(), node.clone());
    // Open, and so locked, until the end.
    let (take, _open) = blocking(move || open_stopped(&folder, &node)).await?;
    taken(snapshots, take, keep, stop, progress).await
}

/// Boxed: what it borrows is then known to the one who spawns it.
fn taken<'a>(
    snapshots: &'a Snapshots,
    take: Take,
    keep: Option<NonZeroUsize>,
    stop: &'a CancellationToken,
    progress: OnProgress<'a>,
) -> BoxFuture<'a, Result<Taken, Error>> {
    Box::pin(async move {
        let taken = snapshots.take(take, Stamp::now(), stop, progress).await;
        let (id, manifest) = taken?;
        let pruned = match keep {
            Some(keep) => snapshots.prune(keep, Stamp::now()).await?,
            None => Pruned::default(),
        };
        Ok(Taken {
            id,
            manifest,
            pruned,
        })
    })
}

/// Of coordination in one process, or of the last view where that is elsewhere.
fn stopped_table(dir: &Path) -> Result<Arc<ShardTable>, Error> {
    if let Some(table) = Embedded::table_of(dir)? {
        return Ok(table);
    }
    let path = dir.join(VIEW);
    match files::read_whole(&path).map_err(Error::io(&path))? {
        Some(bytes) => match View::decode(&bytes) {
            Ok(view) => Ok(view.table),
            Err(reason) => Err(Error::Corrupt { path, reason }),
        },
        None => Err(Error::Request(format!(
            "{} is no folder of a node: it has no table",
            dir.display()
        ))),
    }
}

fn open_stopped(dir: &Path, node: &NodeId) -> Result<(Take, Vec<Collection>), Error> {
    refuse_half_restored(dir)?;
    let table = stopped_table(dir)?;
    let quiet = Options {
        background: false,
        ..Options::default()
    };
    let (mut parts, mut open) = (Vec::new(), Vec::new());
    for shard in table
        .shards()
        .iter()
        .filter(|shard| !shard.slots.is_empty())
    {
        let Some(store) = replica::store_dir(&shard_dir(dir, shard.id))? else {
            continue;
        };
        let failed = skerry_vector_backup::Error::from;
        let collection = Collection::open(&store, quiet.clone()).map_err(failed)?;
        parts.push((shard_name(shard.id), collection.capture().map_err(failed)?));
        open.push(collection);
    }
    let take = Take {
        node: node.as_str().into(),
        parts,
        beside: Beside::of(&table)?,
    };
    Ok((take, open))
}

/// Makes a node's folder of a snapshot: of all the shards that it has. The folder must be empty or
/// missing; one in which an earlier restore died is cleared first.
pub async fn restore(
    snapshots: &Snapshots,
    id: Option<&SnapshotId>,
    dir: &Path,
    node: Option<NodeId>,
    stop: &CancellationToken,
    progress: OnProgress<'_>,
) -> Result<Restored, Error> {
    let (id, manifest) = snapshots.find(id).await?;
    let (table, shards) = Beside::table(&id, &manifest)?;
    let node = match node {
        Some(node) => node,
        None => NodeId::new(&manifest.node)?,
    };
    let owned = table
        .shards()
        .iter()
        .filter(|shard| !shard.slots.is_empty());
    let missing = owned.map(|shard| shard.id);
    let missing: Vec<ShardId> = missing.filter(|shard| !shards.contains(shard)).collect();
    let alone = match missing.as_slice() {
        [] => Some(table.alone(&node)?),
        _ => None,
    };
    let folder = dir.to_path_buf();
    let marked = blocking(move || folder::Marked::begin(&folder)).await?;
    let store_of = |part: &Part| -> PathBuf {
        let places = manifest.parts.iter().zip(&shards);
        let shard = places.into_iter().find(|(one, _)| one.name == part.name);
        let shard = shard.map_or_else(Default::default, |(_, shard)| *shard);
        replica::first_store_dir(&shard_dir(dir, shard))
    };
    let fetched = snapshots.restore(&id, &manifest, store_of, stop, progress);
    let fetched = fetched.await.map_err(Error::from);
    let all = shards.clone();
    let end = move || match fetched {
        Ok(()) => marked.finish(&all, alone.as_ref()),
        Err(error) => {
            marked.clear()?;
            Err(error)
        }
    };
    blocking(end).await?;
    Ok(Restored {
        id,
        node,
        kind: manifest.kind.clone(),
        shards: shards.into_iter().zip(manifest.parts).collect(),
        missing,
    })
}
