//! The router: asks every shard that a search needs, and sends writes to leaders. A library of the
//! process that asks; it holds no records.
//!
//! Invariants: one deadline for a request, and what is left of it travels along; a search is merged
//! under one epoch, and an answer without a shard says so; hedges are at most 5 % of the calls, retries
//! at most the retry budget; a write is sent again only where surely nothing was done.

use crate::clock;
use crate::coordination::{Coordination, CoordinationError, View, Views};
use crate::error::Error;
use crate::peers::Peers;
use crate::slots::{SlotSet, slot_of};
use crate::table::{NodeId, Shard, ShardId};
use crate::wire::{self, WRITES_MAX, grpc as g};
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use skerry_resilience::{Admit, Breaker, BreakerConfig, LatencyWindow, Outcome, RetryBudget};
use skerry_types::{Budget, Tick};
use skerry_vector_index::{Found, Query, Record, Write};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::ClientTlsConfig;

pub mod write;

pub use write::{Failure, Written};

/// How often a request looks for a newer table: once for a flip, and once more where a second one
/// follows at its heels.
pub const EPOCH_ROUNDS_MAX: u32 = 2;
/// Below this many samples there is no p95 to hedge at.
const HEDGE_SAMPLES_MIN: u32 = 20;
/// Never earlier than this, in microseconds: a hedge costs about as much.
const HEDGE_US_MIN: u64 = 1_000;
const HEDGE_QUANTILE: f64 = 0.95;
/// Longest probe of a node that failed, in milliseconds.
const PROBE_MS_MAX: u64 = 500;

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
    coordination: Arc<dyn Coordination>,
    views: Views,
    /// A view that was fetched because a node knew of a later table.
    fetched: Mutex<Option<Arc<View>>>,
    peers: Peers,
    state: Mutex<State>,
}

/// A call of one replica.
type Call<'a, T> = &'a (dyn Fn(&NodeId) -> BoxFuture<'static, Result<T, Error>> + Sync);

/// Counts a call while it lasts, whatever ends it.
struct InFlight<'a> {
    inner: &'a Inner,
    node: &'a NodeId,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(node) = self.inner.state.lock().nodes.get_mut(self.node) {
            node.in_flight = node.in_flight.saturating_sub(1);
        }
    }
}

impl Router {
    #[must_use]
    pub fn new(coordination: Arc<dyn Coordination>, tls: Option<ClientTlsConfig>) -> Self {
        let now = clock::now();
        Self(Arc::new(Inner {
            views: coordination.watch(),
            coordination,
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

/// Whether a node does not have the replica, or is not there at all: to go on to another costs nobody
/// anything, so no budget is spent on it.
fn is_absent(error: &Error) -> bool {
    match error {
        Error::Unreachable(_) | Error::Absent(_) => true,
        Error::Refused { code, .. } => code == "shard_starting" || code == "shard_not_here",
        _ => false,
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
        let table = clock::within(left_ms, self.coordination.table()).await;
        let table = table.ok_or_else(late)??;
        let (leaders, nodes) = self
            .views
            .borrow()
            .as_ref()
            .map_or_else(Default::default, |view| {
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

    /// Replicas of a shard in the order in which to ask them: of those that are well the less busy of
    /// two first; those whose breaker is open last.
    fn order<'a>(self: &Arc<Self>, view: &View, shard: &'a Shard) -> Vec<&'a NodeId> {
        let now = clock::now();
        let mut state = self.state.lock();
        state.counts.calls += 1;
        state.hedges.on_call(now);
        state.retries.on_call(now);
        let turn = state.counts.calls;
        let (mut well, mut ill, mut probes) = (Vec::new(), Vec::new(), Vec::new());
        for node in shard
            .replicas
            .iter()
            .filter(|node| view.addr(node).is_some())
        {
            let known = state
                .nodes
                .entry(node.clone())
                .or_insert_with(|| NodeState {
                    breaker: Breaker::new(BreakerConfig::ORIGIN, turn),
                    in_flight: 0,
                });
            match known.breaker.admits(now, turn) {
                Admit::Go => well.push((node, known.in_flight)),
                Admit::Probe => {
                    probes.push(node.clone());
                    ill.push(node);
                }
                Admit::No => ill.push(node),
            }
        }
        drop(state);
        for node in probes {
            tokio::spawn(Arc::clone(self).probe(node));
        }
        let count = well.len().max(1);
        well.rotate_left((turn % count as u64) as usize % count);
        if let [first, second, ..] = well.as_mut_slice()
            && second.1 < first.1
        {
            std::mem::swap(first, second);
        }
        well.into_iter().map(|(node, _)| node).chain(ill).collect()
    }

    /// Asks a node that failed whether it is back, off the users' path.
    async fn probe(self: Arc<Self>, node: NodeId) {
        let addr = self
            .view()
            .and_then(|view| view.addr(&node).map(str::to_owned));
        let asked = async {
            let mut client = self.peers.client(&addr.unwrap_or_default())?;
            client.stats(g::StatsRequest {}).await?;
            Ok::<_, Error>(())
        };
        let ok = clock::within(PROBE_MS_MAX, asked)
            .await
            .is_some_and(|done| done.is_ok());
        if let Some(known) = self.state.lock().nodes.get_mut(&node) {
            known.breaker.probe_done(ok, clock::now());
        }
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

    /// Asks one replica, a second where the first is late (within the hedge budget), the next where one
    /// fails (within the retry budget, unless it is simply not there). The first answer wins; the
    /// others are dropped, which cancels them.
    async fn any_replica<T>(
        self: &Arc<Self>,
        view: &View,
        shard: &Shard,
        budget: Budget,
        call: Call<'_, T>,
    ) -> Result<T, Error> {
        let order = self.order(view, shard);
        let mut next = order.iter().copied();
        let mut running = FuturesUnordered::new();
        let attempt = |node| self.attempt(node, call(node));
        match next.next() {
            Some(node) => running.push(attempt(node)),
            None => {
                let reason = format!("shard {} has no node", shard.id);
                return Err(Error::Unreachable(reason));
            }
        }
        // A hedge at p95; where that is not allowed, a retry when half of the time is over.
        let began = clock::now();
        let mut hedge_at = self.hedge_us().map(|us| Tick(began.0 + us));
        let mut retry_at = Some(Tick(began.0 + budget.deadline().since_us(began) / 2));
        loop {
            let now = clock::now();
            let due = [hedge_at, retry_at].into_iter().flatten().min();
            let due_us = due.map_or(u64::MAX, |at| at.since_us(now));
            let left_us = budget.deadline().since_us(now);
            let wait = Duration::from_micros(left_us.min(due_us));
            match tokio::time::timeout(wait, running.next()).await {
                Ok(Some(Ok(found))) => return Ok(found),
                Ok(Some(Err(error))) => {
                    let later = later_epoch(&error, view.table.epoch()).is_some();
                    if later || error.is_callers() {
                        return Err(error);
                    }
                    let absent = is_absent(&error);
                    match next.next() {
                        Some(node) if absent || self.may_retry() => running.push(attempt(node)),
                        _ if running.is_empty() => return Err(error),
                        _ => {}
                    }
                }
                Ok(None) => return Err(Error::Deadline),
                Err(_) if budget.spent(clock::now()) => {
                    self.on_late(&order);
                    return Err(Error::Deadline);
                }
                Err(_) => {
                    let now = clock::now();
                    let hedges = hedge_at.take_if(|at| now >= *at).is_some();
                    let retries = retry_at.take_if(|at| now >= *at).is_some();
                    let may = next.len() > 0
                        && (hedges && self.may_hedge() || retries && self.may_retry());
                    if may && let Some(node) = next.next() {
                        retry_at = None;
                        running.push(attempt(node));
                    }
                }
            }
        }
    }

    async fn attempt<T>(
        &self,
        node: &NodeId,
        call: BoxFuture<'static, Result<T, Error>>,
    ) -> Result<T, Error> {
        if let Some(known) = self.state.lock().nodes.get_mut(node) {
            known.in_flight += 1;
        }
        let _in_flight = InFlight { inner: self, node };
        let began = clock::now();
        let done = call.await;
        let now = clock::now();
        let mut state = self.state.lock();
        let outcome = match &done {
            Ok(_) => {
                state.latency.record(now.since_us(began), now);
                Outcome::Ok
            }
            Err(Error::Refused { code, .. }) if code == "shard_overloaded" => Outcome::Overload,
            // It lives: it said no.
            Err(Error::Refused { .. } | Error::Request(_)) => Outcome::Ok,
            Err(_) => Outcome::Failure,
        };
        if let Some(known) = state.nodes.get_mut(node) {
            known.breaker.on(outcome, now);
        }
        done
    }

    /// A request that got no answer at all: the node that was asked first is to blame.
    fn on_late(&self, order: &[&NodeId]) {
        let now = clock::now();
        let mut state = self.state.lock();
        if let Some(known) = order.first().and_then(|node| state.nodes.get_mut(*node)) {
            known.breaker.on(Outcome::Failure, now);
        }
    }

    fn hedge_us(&self) -> Option<u64> {
        let now = clock::now();
        let mut state = self.state.lock();
        if state.latency.samples(now) < HEDGE_SAMPLES_MIN {
            return None;
        }
        let p95 = state.latency.quantile_us(HEDGE_QUANTILE, now);
        p95.map(|us| us.max(HEDGE_US_MIN))
    }

    fn may_hedge(&self) -> bool {
        let mut state = self.state.lock();
        let may = state.hedges.try_spend(clock::now());
        state.counts.hedges += u64::from(may);
        may
    }

    fn may_retry(&self) -> bool {
        let mut state = self.state.lock();
        let may = state.retries.try_spend(clock::now());
        state.counts.retries += u64::from(may);
        may
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
