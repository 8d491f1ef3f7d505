//! One shard, any of its replicas: whom to ask first, when to ask a second one, whom to leave alone.
//!
//! Invariants: a hedge is taken from the hedge budget, a retry from the retry budget; the first answer
//! wins, and the other calls are dropped, which cancels them.

use super::{Inner, NodeState, later_epoch};
use crate::clock;
use crate::coordination::View;
use crate::error::Error;
use crate::table::{NodeId, Shard};
use crate::wire::grpc as g;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use skerry_resilience::{Admit, Breaker, BreakerConfig, Outcome};
use skerry_types::{Budget, Tick};
use std::sync::Arc;
use std::time::Duration;

/// Below this many samples there is no p95 to hedge at.
const HEDGE_SAMPLES_MIN: u32 = 20;
/// Never earlier than this, in microseconds: a hedge costs about as much.
const HEDGE_US_MIN: u64 = 1_000;
const HEDGE_QUANTILE: f64 = 0.95;
/// Longest probe of a node that failed, in milliseconds.
const PROBE_MS_MAX: u64 = 500;

/// A call of one replica.
pub type Call<'a, T> = &'a (dyn Fn(&NodeId) -> BoxFuture<'static, Result<T, Error>> + Sync);

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

impl Inner {
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

    /// Asks one replica, a second where the first is late (within the hedge budget), the next where one
    /// fails (within the retry budget, unless it is simply not there). The first answer wins; the
    /// others are dropped, which cancels them.
    pub async fn any_replica<T>(
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

/// Whether a node does not have the replica, or is not there at all: to go on to another costs nobody
/// anything, so no budget is spent on it.
fn is_absent(error: &Error) -> bool {
    match error {
        Error::Unreachable(_) | Error::Absent(_) => true,
        Error::Refused { code, .. } => code == "shard_starting" || code == "shard_not_here",
        _ => false,
    }
}
