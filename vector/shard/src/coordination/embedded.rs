//! Coordination of nodes in one process: the default. With a folder, table, tokens and in-sync sets
//! outlive the process.
//!
//! Invariant: what a call changed is on disk before the call returns. Leases are of this process: none
//! outlives it.

use super::{
    Answer, Coordination, CoordinationError, Directory, Fence, InSync, Leader, Lease, LeaseState,
    Registration, View, Views,
};
use crate::clock;
use crate::files;
use crate::table::{Draft, NodeId, ShardId, ShardTable};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skerry_types::Tick;
use skerry_wire::{codec, value::schema};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

const FILE: &str = "COORDINATION";

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Kept {
    /// The table and its epoch.
    table: Option<(Vec<u8>, u64)>,
    /// The last revision that was given out, as an epoch or as a token.
    revision: u64,
    in_sync: Vec<(ShardId, InSync)>,
}

#[derive(Default)]
struct Held {
    kept: Kept,
    table: Option<Arc<ShardTable>>,
    leaders: BTreeMap<ShardId, (Leader, Arc<LeaseState>)>,
    nodes: BTreeMap<NodeId, (String, Arc<LeaseState>)>,
}

struct Inner {
    path: Option<PathBuf>,
    held: Mutex<Held>,
    views: watch::Sender<Option<Arc<View>>>,
}

/// A handle; clones share one coordination.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

impl Default for Embedded {
    fn default() -> Self {
        Self::new(None, Held::default())
    }
}

impl Embedded {
    /// Kept in a file of `dir`.
    pub fn open(dir: &Path) -> Result<Self, CoordinationError> {
        let path = dir.join(FILE);
        let corrupt =
            |error: String| CoordinationError::Corrupt(format!("{}: {error}", path.display()));
        let mut held = Held::default();
        if let Some(bytes) = files::read_whole(&path).map_err(|error| corrupt(error.to_string()))? {
            held.kept = codec::decode_as(schema::SHARD_COORDINATION, &bytes)
                .map_err(|error: codec::CodecError| corrupt(error.to_string()))?;
            if let Some((bytes, epoch)) = &held.kept.table {
                held.table = Some(Arc::new(
                    ShardTable::decode(bytes, *epoch).map_err(corrupt)?,
                ));
            }
        }
        Ok(Self::new(Some(path), held))
    }

    /// The table that a folder keeps, if it keeps one.
    pub fn table_of(dir: &Path) -> Result<Option<Arc<ShardTable>>, CoordinationError> {
        let embedded = Self::open(dir)?;
        let table = embedded.0.held.lock().table.clone();
        Ok(table)
    }

    /// Keeps a table in a folder that has none. What was led before is led by nobody.
    pub fn begin_with(dir: &Path, table: &ShardTable) -> Result<(), CoordinationError> {
        let corrupt =
            |error: skerry_wire::CodecError| CoordinationError::Corrupt(error.to_string());
        let kept = Kept {
            table: Some((table.encode().map_err(corrupt)?, table.epoch())),
            revision: table.epoch(),
            in_sync: Vec::new(),
        };
        let inner = Self::new(Some(dir.join(FILE)), Held::default()).0;
        inner.keep(&kept)
    }

    fn new(path: Option<PathBuf>, held: Held) -> Self {
        let inner = Inner {
            path,
            held: Mutex::new(held),
            views: watch::Sender::new(None),
        };
        inner.publish(&inner.held.lock());
        Self(Arc::new(inner))
    }
}

impl Inner {
    fn publish(&self, held: &Held) {
        let view = held.table.as_ref().map(|table| {
            let leaders = held.leaders.iter().map(|(id, (l, _))| (*id, l.clone()));
            let nodes = held
                .nodes
                .iter()
                .map(|(id, (a, _))| (id.clone(), a.clone()));
            Arc::new(View {
                table: Arc::clone(table),
                leaders: leaders.collect(),
                nodes: nodes.collect(),
            })
        });
        self.views.send_replace(view);
    }

    fn keep(&self, kept: &Kept) -> Result<(), CoordinationError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let failed =
            |error: String| CoordinationError::Unavailable(format!("{}: {error}", path.display()));
        let bytes = codec::encode_as(schema::SHARD_COORDINATION, kept);
        let bytes = bytes.map_err(|error| failed(error.to_string()))?;
        files::write_whole(path, &bytes).map_err(|error| failed(error.to_string()))
    }

    /// Changes what is kept, on disk first, then shows it.
    fn change<T>(
        &self,
        change: impl FnOnce(&Held, &mut Kept) -> Result<T, CoordinationError>,
        then: impl FnOnce(&mut Held, &T),
    ) -> Result<T, CoordinationError> {
        let mut held = self.held.lock();
        let mut kept = held.kept.clone();
        let made = change(&held, &mut kept)?;
        self.keep(&kept)?;
        held.kept = kept;
        then(&mut held, &made);
        self.publish(&held);
        Ok(made)
    }

    fn swap(&self, draft: Draft, fences: &[Fence]) -> Result<Arc<ShardTable>, CoordinationError> {
        let expected = draft.after();
        self.change(
            |held, kept| {
                let current = held.table.as_ref().map_or(0, |table| table.epoch());
                let lead = fences.iter().all(|fence| held.leads(*fence));
                if current != expected || !lead {
                    return Err(CoordinationError::Conflict { expected, current });
                }
                kept.revision += 1;
                let table = draft.settle(kept.revision)?;
                let bytes = table.encode();
                let bytes = bytes.map_err(|error| CoordinationError::Corrupt(error.to_string()))?;
                kept.table = Some((bytes, kept.revision));
                Ok(Arc::new(table))
            },
            |held, table| held.table = Some(Arc::clone(table)),
        )
    }

    fn lead(&self, shard: ShardId, node: NodeId) -> Result<Lease, CoordinationError> {
        let state = LeaseState::until(Tick(u64::MAX));
        let token = self.change(
            |held, kept| {
                if held.leaders.contains_key(&shard) {
                    return Err(CoordinationError::Taken(shard));
                }
                kept.revision += 1;
                Ok(kept.revision)
            },
            |held, token| {
                let leader = Leader {
                    node: node.clone(),
                    token: *token,
                };
                held.leaders.insert(shard, (leader, Arc::clone(&state)));
            },
        )?;
        Ok(Lease::new(shard, node, token, state))
    }
}

impl Held {
    fn leads(&self, fence: Fence) -> bool {
        self.leaders
            .get(&fence.shard)
            .is_some_and(|(leader, _)| leader.token == fence.token)
    }
}

/// Takes an entry out when it is dropped: at the end of its task, or of the runtime below it.
struct Ending<F: FnOnce(&mut Held)> {
    inner: Arc<Inner>,
    state: Arc<LeaseState>,
    remove: Option<F>,
}

impl<F: FnOnce(&mut Held)> Drop for Ending<F> {
    fn drop(&mut self) {
        self.state.lose();
        let mut held = self.inner.held.lock();
        if let Some(remove) = self.remove.take() {
            remove(&mut held);
        }
        self.inner.publish(&held);
    }
}

impl Embedded {
    /// One process has one clock: nothing ends a lease but its holder's end.
    fn end_with(
        &self,
        state: Arc<LeaseState>,
        ttl_ms: u64,
        remove: impl FnOnce(&mut Held) + Send + 'static,
    ) {
        let ending = Ending {
            inner: Arc::clone(&self.0),
            state,
            remove: Some(remove),
        };
        tokio::spawn(async move {
            loop {
                ending.state.prolong(clock::now().plus_ms(ttl_ms));
                tokio::select! {
                    () = ending.state.dropped().cancelled() => break,
                    () = clock::sleep_ms(ttl_ms / 3) => {}
                }
            }
        });
    }
}

impl Directory for Embedded {
    fn table(&self) -> Answer<'_, Arc<ShardTable>> {
        let table = self.0.held.lock().table.clone();
        Box::pin(async move { table.ok_or(CoordinationError::NoTable) })
    }

    fn watch(&self) -> Views {
        self.0.views.subscribe()
    }
}

impl Coordination for Embedded {
    fn compare_and_swap(&self, draft: Draft, fences: Vec<Fence>) -> Answer<'_, Arc<ShardTable>> {
        Box::pin(async move { self.0.swap(draft, &fences) })
    }

    fn lead(&self, shard: ShardId, node: NodeId, ttl_ms: u64) -> Answer<'_, Lease> {
        Box::pin(async move {
            let lease = self.0.lead(shard, node)?;
            let token = lease.token;
            self.end_with(Arc::clone(&lease.state), ttl_ms, move |held| {
                if held.leads(Fence { shard, token }) {
                    held.leaders.remove(&shard);
                }
            });
            Ok(lease)
        })
    }

    fn in_sync(&self, shard: ShardId) -> Answer<'_, Option<InSync>> {
        Box::pin(async move {
            let held = self.0.held.lock();
            let found = held.kept.in_sync.iter().find(|(id, _)| *id == shard);
            Ok(found.map(|(_, set)| set.clone()))
        })
    }

    fn set_in_sync(&self, fence: Fence, members: Vec<NodeId>) -> Answer<'_, ()> {
        Box::pin(async move {
            self.0.change(
                |held, kept| {
                    if !held.leads(fence) {
                        return Err(CoordinationError::Lost(fence.shard));
                    }
                    kept.in_sync.retain(|(id, _)| *id != fence.shard);
                    let token = fence.token;
                    kept.in_sync.push((fence.shard, InSync { token, members }));
                    Ok(())
                },
                |_, ()| {},
            )
        })
    }

    fn register(&self, node: NodeId, addr: String, ttl_ms: u64) -> Answer<'_, Registration> {
        Box::pin(async move {
            let state = LeaseState::until(clock::now().plus_ms(ttl_ms));
            {
                let mut held = self.0.held.lock();
                held.nodes.insert(node.clone(), (addr, Arc::clone(&state)));
                self.0.publish(&held);
            }
            let mine = Arc::clone(&state);
            self.end_with(Arc::clone(&state), ttl_ms, move |held| {
                // A later registration of the same name stays.
                if held
                    .nodes
                    .get(&node)
                    .is_some_and(|(_, state)| Arc::ptr_eq(state, &mine))
                {
                    held.nodes.remove(&node);
                }
            });
            Ok(Registration(state))
        })
    }
}
