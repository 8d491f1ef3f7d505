//! The router: asks every shard that a search needs, and sends writes to leaders. A library of the
//! process that asks; it holds no records.
//!
//! Invariants: one deadline for a request, and what is left of it travels along; a search is merged
//! under one epoch, and an answer without a shard says so; hedges are at most 5 % of the calls, retries
//! at most the retry budget; a write is sent again only where surely nothing was done.

use crate::clock;
use crate::coordination::{CoordinationError, Directory, View, Views};
use crate::error::Error;
use crate::peers::Peers;
use crate::slots::{SlotSet, slot_of};
use crate::table::{NodeId, Shard, ShardId};
use crate::wire::{self, WRITES_MAX, grpc as g};
use futures::FutureExt;
use futures::future::join_all;
use parking_lot::Mutex;
use skerry_resilience::{Breaker, LatencyWindow, RetryBudget};
use skerry_telemetry::exposition::{Kind, Text};
use skerry_types::Budget;
use skerry_vector_index::{Found, Query, Record, Write};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use tonic::transport::ClientTlsConfig;

mod replicas;
pub mod write;

pub use write::{Failure, Written};

/// How often a request looks for a newer table: once for a flip, and once more where a second one
/// follows at its heels.
pub const EPOCH_ROUNDS_MAX: u32 = 2;

/// What a writer knows, so that it reads its own writes: how far each shard's log was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadToken {
    pub epoch: u64,
    pub seqs: BTreeMap<ShardId, u64>,
}

impl ReadToken {
    /// Both writers' writes.
    pub fn merge(&mut self, other: &Self) {
        self.epoch = self.epoch.max(other.epoch);
        for (shard, seq) in &other.seqs {
            let known = self.seqs.entry(*shard).or_default();
            *known = (*known).max(*seq);
        }
    }
}

/// How a search is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// Milliseconds for all of it.
    pub budget_ms: u32,
    /// Read at least this.
    pub after: Option<&'a ReadToken>,
    /// Only the shards that have any of these slots; all where there is none.
    pub slots: Option<&'a SlotSet>,
}

/// What the shards found.
#[derive(Debug, Clone, PartialEq)]
pub struct Searched {
    /// One list for each query, best first.
    pub lists: Vec<Vec<Found>>,
    /// Shards that did not answer: the lists lack what they hold.
    pub missing: Vec<ShardId>,
    pub epoch: u64,
}

impl Searched {
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        !self.missing.is_empty()
    }
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// First calls to shards, hedges and retries aside.
    pub calls: u64,
    pub hedges: u64,
    pub retries: u64,
    pub epoch_rounds: u64,
}

struct NodeState {
    breaker: Breaker,
    in_flight: u32,
}

struct State {
    nodes: HashMap<NodeId, NodeState>,
    latency: LatencyWindow,
    hedges: RetryBudget,
    retries: RetryBudget,
    counts: Counts,
}

/// A handle; clones share connections and budgets.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    directory: Arc<dyn Directory>,
    views: Views,
    /// A view that was fetched because a node knew of a later table.
    fetched: Mutex<Option<Arc<View>>>,
    peers: Peers,
    state: Mutex<State>,
}

impl Router {
    #[must_use]
    pub fn new(directory: Arc<dyn Directory>, tls: Option<ClientTlsConfig>) -> Self {
        let now = clock::now();
        Self(Arc::new(Inner {
            views: directory.watch(),
            directory,
            fetched: Mutex::new(None),
            peers: Peers::new(tls),
            state: Mutex::new(State {
                nodes: HashMap::new(),
                latency: LatencyWindow::default(),
                hedges: RetryBudget::hedging(now),
                retries: RetryBudget::new(now),
                counts: Counts::default(),
            }),
        }))
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.state.lock().counts
    }

    /// The same, as text for the `/metrics` of the process that asks.
    #[must_use]
    pub fn metrics(&self) -> String {
        let counts = self.counts();
        let mut text = Text::default();
        let mut counter = |name, help, count| text.single(name, Kind::Counter, help, count);
        counter(
            "skerry_vector_router_calls_total",
            "First calls to shards, hedges and retries aside.",
            counts.calls,
        );
        counter(
            "skerry_vector_router_hedges_total",
            "Second calls because the first was late; at most 5 % of the calls.",
            counts.hedges,
        );
        counter(
            "skerry_vector_router_retries_total",
            "Further calls because one failed or took too long.",
            counts.retries,
        );
        counter(
            "skerry_vector_router_epoch_rounds_total",
            "Requests that were routed again by a newer table.",
            counts.epoch_rounds,
        );
        text.finish()
    }

    /// The table that requests are routed by.
    #[must_use]
    pub fn view(&self) -> Option<Arc<View>> {
        self.0.view()
    }

    /// The nearest records of all shards that are asked, merged. An error only where the caller is at
    /// fault or nothing could be asked at all; else what is missing is named.
    pub async fn search(&self, queries: &[Query], ask: Ask<'_>) -> Result<Searched, Error> {
        let inner = &self.0;
        let budget = Budget::starting(clock::now(), ask.budget_ms);
        let asked = queries.iter().map(wire::query_out);
        let asked = asked.collect::<Result<Vec<_>, _>>()?;
        let mut epoch = ask.after.map_or(0, |token| token.epoch);
        let mut round = 0;
        loop {
            let view = inner.view_since(epoch, budget).await?;
            let shards = view.table.shards().iter().filter(|shard| {
                let wanted = |slots: &SlotSet| {
                    slots
                        .iter()
                        .any(|slot| shard.slots.contains(skerry_types::Slot(slot)))
                };
                !shard.slots.is_empty() && ask.slots.is_none_or(wanted)
            });
            let shards: Vec<&Shard> = shards.collect();
            let replies = shards.iter().map(|shard| {
                let after = ask.after.and_then(|token| token.seqs.get(&shard.id));
                inner.search_shard(&view, shard, &asked, after.copied().unwrap_or(0), budget)
            });
            let replies = join_all(replies).await;
            let later = replies.iter().filter_map(|reply| match reply {
                Err(error) => later_epoch(error, view.table.epoch()),
                Ok(_) => None,
            });
            if let Some(later) = later.max()
                && round < EPOCH_ROUNDS_MAX
                && !budget.spent(clock::now())
            {
                round += 1;
                epoch = later;
                inner.state.lock().counts.epoch_rounds += 1;
                continue;
            }
            return merge(queries, &view, &shards, replies);
        }
    }

    /// Records by id, from where their slots are.
    pub async fn get(&self, ids: &[&str], ask: Ask<'_>) -> Result<Vec<(Record, u64)>, Error> {
        let inner = &self.0;
        let budget = Budget::starting(clock::now(), ask.budget_ms);
        let mut epoch = ask.after.map_or(0, |token| token.epoch);
        let mut round = 0;
        loop {
            let view = inner.view_since(epoch, budget).await?;
            let mut by_shard: BTreeMap<ShardId, Vec<String>> = BTreeMap::new();
            for id in ids {
                if let Some(shard) = view.table.owner(slot_of(id)) {
                    by_shard.entry(shard.id).or_default().push((*id).to_owned());
                }
            }
            let replies = by_shard.into_iter().map(|(shard, ids)| {
                let after = ask.after.and_then(|token| token.seqs.get(&shard));
                inner.get_shard(&view, shard, ids, after.copied().unwrap_or(0), budget)
            });
            let replies: Result<Vec<_>, Error> = join_all(replies).await.into_iter().collect();
            match replies {
                Ok(lists) => return Ok(lists.into_iter().flatten().collect()),
                Err(error) => match later_epoch(&error, view.table.epoch()) {
                    Some(later) if round < EPOCH_ROUNDS_MAX => {
                        round += 1;
                        epoch = later;
                    }
                    _ => return Err(error),
                },
            }
        }
    }
}

/// The epoch that a refusing node knows, where it is later than ours.
fn later_epoch(error: &Error, known: u64) -> Option<u64> {
    match error {
        Error::Refused { code, epoch, .. } if *epoch > known => {
            let moved = ["shard_epoch", "shard_not_here", "shard_slot_not_owned"];
            moved.contains(&code.as_str()).then_some(*epoch)
        }
        _ => None,
    }
}

fn merge(
    queries: &[Query],
    view: &View,
    shards: &[&Shard],
    replies: Vec<Result<Vec<Vec<Found>>, Error>>,
) -> Result<Searched, Error> {
    let mut lists: Vec<Vec<Found>> = vec![Vec::new(); queries.len()];
    let mut missing = Vec::new();
    let mut last_error = None;
    for (shard, reply) in shards.iter().zip(replies) {
        match reply {
            Ok(found) if found.len() == lists.len() => {
                lists
                    .iter_mut()
                    .zip(found)
                    .for_each(|(list, found)| list.extend(found));
            }
            Ok(_) => missing.push(shard.id),
            Err(error) if error.is_callers() => return Err(error),
            Err(error) => {
                tracing::debug!(shard = %shard.id, code = error.code(), %error, "a shard is missing");
                missing.push(shard.id);
                last_error = Some(error);
            }
        }
    }
    if let Some(error) = last_error
        && missing.len() == shards.len()
    {
        return Err(error);
    }
    for (list, query) in lists.iter_mut().zip(queries) {
        list.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
        let mut seen = HashSet::new();
        list.retain(|found| seen.insert(found.id.clone()));
        list.truncate(query.k);
    }
    Ok(Searched {
        lists,
        missing,
        epoch: view.table.epoch(),
    })
}

impl Inner {
    fn view(&self) -> Option<Arc<View>> {
        let seen = self.views.borrow().clone();
        let fetched = self.fetched.lock().clone();
        match (seen, fetched) {
            (Some(seen), Some(fetched)) if fetched.table.epoch() > seen.table.epoch() => {
                Some(Arc::new(View {
                    table: Arc::clone(&fetched.table),
                    ..seen.as_ref().clone()
                }))
            }
            (seen, fetched) => seen.or(fetched),
        }
    }

    /// A view that is not older than `epoch`, if need be by asking coordination.
    async fn view_since(&self, epoch: u64, budget: Budget) -> Result<Arc<View>, Error> {
        if let Some(view) = self.view()
            && view.table.epoch() >= epoch
        {
            return Ok(view);
        }
        let left_ms = u64::from(budget.left_ms(clock::now()));
        let late = || CoordinationError::Unavailable("it is late".to_owned());
        let table = clock::within(left_ms, self.directory.table()).await;
        let table = table.ok_or_else(late)??;
        // Who leads and where nodes are is in what is followed: right after the start it is waited for.
        let mut views = self.views.clone();
        let left_ms = u64::from(budget.left_ms(clock::now()));
        let seen = clock::within(left_ms, views.wait_for(Option::is_some)).await;
        let seen = seen.and_then(Result::ok).and_then(|view| view.clone());
        let (leaders, nodes) = seen.map_or_else(Default::default, |view| {
            (view.leaders.clone(), view.nodes.clone())
        });
        let view = Arc::new(View {
            table,
            leaders,
            nodes,
        });
        *self.fetched.lock() = Some(Arc::clone(&view));
        Ok(view)
    }

    async fn search_shard(
        self: &Arc<Self>,
        view: &Arc<View>,
        shard: &Shard,
        queries: &[g::Query],
        after: u64,
        budget: Budget,
    ) -> Result<Vec<Vec<Found>>, Error> {
        let call = |node: &NodeId| {
            let request = g::SearchRequest {
                shard: shard.id.0,
                epoch: view.table.epoch(),
                left_ms: budget.left_ms(clock::now()),
                min_seq: after.max(shard.base_seq),
                queries: queries.to_vec(),
            };
            let client = self.peers.client(view.addr(node).unwrap_or_default());
            async move {
                let reply = client?.search(request).await?.into_inner();
                Ok(reply.lists.into_iter().map(wire::found_in).collect())
            }
            .boxed()
        };
        self.any_replica(view, shard, budget, &call).await
    }

    async fn get_shard(
        self: &Arc<Self>,
        view: &Arc<View>,
        shard: ShardId,
        ids: Vec<String>,
        after: u64,
        budget: Budget,
    ) -> Result<Vec<(Record, u64)>, Error> {
        let shard = view.table.shard(shard).ok_or(Error::NotHere(shard))?;
        let call = |node: &NodeId| {
            let request = g::GetRequest {
                shard: shard.id.0,
                epoch: view.table.epoch(),
                left_ms: budget.left_ms(clock::now()),
                min_seq: after.max(shard.base_seq),
                ids: ids.clone(),
            };
            let client = self.peers.client(view.addr(node).unwrap_or_default());
            async move {
                let records = client?.get(request).await?.into_inner().records;
                let records = records.into_iter().map(|record| {
                    let record = wire::log_record_in(record)?;
                    match record.write {
                        Write::Upsert(upsert) => Ok((upsert, record.seq)),
                        Write::Delete(_) => Err(Error::Peer("a deleted record".to_owned())),
                    }
                });
                records.collect()
            }
            .boxed()
        };
        self.any_replica(view, shard, budget, &call).await
    }
}

/// Writes of one shard, in pieces that one request may have.
fn pieces(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut pieces: Vec<Vec<Write>> = Vec::new();
    let (mut bytes, mut ids) = (0usize, HashSet::new());
    for write in writes {
        let size = match &write {
            Write::Upsert(record) => record.vector.len() * 4 + 1_024,
            Write::Delete(id) => id.len(),
        };
        // An id that comes again is a later write: it begins a piece.
        let again = !ids.insert(wire::id_of(&write).to_owned());
        let full = pieces.last().is_none_or(|piece| piece.len() >= WRITES_MAX);
        if full || again || bytes + size > write::PIECE_BYTES_MAX {
            pieces.push(Vec::new());
            bytes = 0;
            ids.clear();
            ids.insert(wire::id_of(&write).to_owned());
        }
        bytes += size;
        if let Some(piece) = pieces.last_mut() {
            piece.push(write);
        }
    }
    pieces
}
