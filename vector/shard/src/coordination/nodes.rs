//! Where shards are, as their nodes know it: for processes that ask a cluster and have no part in
//! its coordination.
//!
//! Invariants: what was seen never goes back (an older table or an older leader is left); where no
//! node answers, the last view stays. Following ends with the last holder.

use super::{Answer, CALL_MS_MAX, CoordinationError, Directory, View, Views};
use crate::clock;
use crate::peers::Peers;
use crate::table::ShardTable;
use crate::wire::grpc as g;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;
use tonic::transport::ClientTlsConfig;

/// How often a node is asked, and after a failure the next one, in milliseconds.
const LOOK_MS: u64 = 500;
const RETRY_MS: u64 = 100;
/// Longest call to one node, in milliseconds: several fit into one of the port.
const NODE_MS_MAX: u64 = 500;

/// A handle; clones follow together.
#[derive(Clone)]
pub struct Nodes(Arc<Inner>);

struct Inner {
    /// `host:port` of nodes that were named.
    seeds: Vec<String>,
    peers: Peers,
    views: watch::Sender<Option<Arc<View>>>,
    /// Whose turn it is.
    turn: AtomicUsize,
}

impl Nodes {
    /// Follows a cluster by some of its nodes (`host:port`); others are found through them. Runs on the
    /// runtime that it is called on.
    #[must_use]
    pub fn follow(seeds: Vec<String>, tls: Option<ClientTlsConfig>) -> Self {
        let inner = Arc::new(Inner {
            seeds,
            peers: Peers::new(tls),
            views: watch::Sender::new(None),
            turn: AtomicUsize::new(0),
        });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            while let Some(inner) = weak.upgrade() {
                let seen = inner.look().await;
                drop(inner);
                clock::sleep_ms(if seen.is_ok() { LOOK_MS } else { RETRY_MS }).await;
            }
        });
        Self(inner)
    }
}

impl Inner {
    /// Asks the node whose turn it is.
    async fn look(&self) -> Result<Arc<ShardTable>, CoordinationError> {
        let known = self.views.borrow().clone();
        let known = known.iter().flat_map(|view| view.nodes.values());
        let all: BTreeSet<&str> = self.seeds.iter().chain(known).map(String::as_str).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % all.len().max(1);
        let none = || CoordinationError::Unavailable("no node is named".to_owned());
        let addr = all.into_iter().nth(turn).ok_or_else(none)?.to_owned();
        let failed = |error: String| CoordinationError::Unavailable(format!("{addr}: {error}"));
        let mut client = self
            .peers
            .client(&addr)
            .map_err(|error| failed(error.to_string()))?;
        let reply = clock::within(NODE_MS_MAX, client.stats(g::StatsRequest {})).await;
        let reply = reply
            .ok_or_else(|| failed("it is late".to_owned()))?
            .map_err(|status| failed(status.message().to_owned()))?;
        let view = reply.into_inner().view;
        if view.is_empty() {
            return Err(CoordinationError::NoTable);
        }
        let view = View::decode(&view).map_err(CoordinationError::Corrupt)?;
        Ok(self.take(view))
    }

    /// Takes over what is newer; the table that is known then.
    fn take(&self, seen: View) -> Arc<ShardTable> {
        let mut table = Arc::clone(&seen.table);
        self.views.send_if_modified(|known| {
            let next = match known {
                Some(known) => newest(known, seen),
                None => seen,
            };
            table = Arc::clone(&next.table);
            let changed = known.as_deref() != Some(&next);
            if changed {
                *known = Some(Arc::new(next));
            }
            changed
        });
        table
    }
}

/// Of two views the later table, the later leader of each shard, and the addresses of the later one.
fn newest(known: &View, seen: View) -> View {
    if seen.table.epoch() < known.table.epoch() {
        return known.clone();
    }
    let mut leaders = seen.leaders;
    for (shard, leader) in &known.leaders {
        let later = leaders
            .get(shard)
            .is_none_or(|other| other.token < leader.token);
        if later && seen.table.shard(*shard).is_some() {
            leaders.insert(*shard, leader.clone());
        }
    }
    View {
        leaders,
        table: seen.table,
        nodes: seen.nodes,
    }
}

impl Directory for Nodes {
    fn table(&self) -> Answer<'_, Arc<ShardTable>> {
        Box::pin(async move {
            let until = clock::now().plus_ms(CALL_MS_MAX);
            let least = self
                .0
                .views
                .borrow()
                .as_ref()
                .map(|view| view.table.epoch());
            loop {
                let seen = self.0.look().await;
                match seen {
                    // A node that has heard of less is no answer.
                    Ok(table) if Some(table.epoch()) >= least => return Ok(table),
                    Err(error) if clock::now() >= until => return Err(error),
                    _ => clock::sleep_ms(RETRY_MS).await,
                }
            }
        })
    }

    fn watch(&self) -> Views {
        self.0.views.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::Leader;
    use crate::table::{Draft, NodeId, ShardId};
    use std::collections::BTreeMap;

    fn view(epoch: u64, token: u64, addr: &str) -> View {
        let node = NodeId::new("a").unwrap();
        let draft = Draft::first(&[vec![node.clone()]]).unwrap();
        View {
            table: Arc::new(draft.settle(epoch).unwrap()),
            leaders: BTreeMap::from([(
                ShardId(0),
                Leader {
                    node: node.clone(),
                    token,
                },
            )]),
            nodes: BTreeMap::from([(node, addr.to_owned())]),
        }
    }

    #[test]
    fn what_was_seen_never_goes_back() {
        let cases = [
            ("the same", (3, 5, "x"), (3, 5, "x"), (3, 5, "x")),
            ("a later table", (3, 5, "x"), (4, 5, "y"), (4, 5, "y")),
            ("an older table", (3, 5, "x"), (2, 9, "y"), (3, 5, "x")),
            ("a later leader", (3, 5, "x"), (3, 6, "y"), (3, 6, "y")),
            ("an older leader", (3, 5, "x"), (3, 4, "y"), (3, 5, "y")),
        ];
        for (name, known, seen, expected) in cases {
            let make = |(epoch, token, addr)| view(epoch, token, addr);
            assert_eq!(newest(&make(known), make(seen)), make(expected), "{name}");
        }
    }
}
