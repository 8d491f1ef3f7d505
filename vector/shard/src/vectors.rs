//! Vectors, wherever they lie: one shard in this process, or a cluster of nodes.
//!
//! What holds neither nodes nor tables writes and searches through this, and does not know which of
//! the two it is. Invariants: calls block, and end within their budget (a shard in this process
//! works for as long as the search takes); an answer that lacks a shard says so.

use crate::admin::{Admin, Overview};
use crate::collection::Collections;
use crate::coordination::nodes::Nodes;
use crate::error::Error;
use crate::router::{Ask, Router, Searched};
use crate::store::{Store, StoreError, Stores};
use skerry_vector_index::{Query, Record, Write};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};
use tonic::transport::ClientTlsConfig;

/// A handle; clones share what is behind it.
#[derive(Clone)]
pub struct Vectors(Arc<Where>);

enum Where {
    /// A collection of this process's own: no wire, no copies, no hedges.
    Here(Arc<dyn Store>),
    Cluster {
        router: Router,
        runtime: Handle,
        seeds: Vec<String>,
        tls: Option<ClientTlsConfig>,
    },
}

impl Vectors {
    /// One shard, in a folder.
    pub fn here(dir: &Path, collections: &Collections) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(Where::Here(collections.open(dir)?))))
    }

    /// The cluster that these nodes (`host:port`) belong to. Called on the runtime that serves it,
    /// which has several threads.
    #[must_use]
    pub fn cluster(seeds: Vec<String>, tls: Option<ClientTlsConfig>) -> Self {
        let nodes = Nodes::follow(seeds.clone(), tls.clone());
        Self(Arc::new(Where::Cluster {
            router: Router::new(Arc::new(nodes), tls.clone()),
            runtime: Handle::current(),
            seeds,
            tls,
        }))
    }

    /// The nearest records, a list for each query.
    pub fn search(&self, queries: &[Query], budget_ms: u32) -> Result<Searched, Error> {
        match &*self.0 {
            Where::Here(store) => Ok(Searched {
                lists: store.search_batch(queries)?,
                missing: Vec::new(),
                epoch: 0,
            }),
            Where::Cluster {
                router, runtime, ..
            } => {
                let ask = Ask {
                    budget_ms,
                    ..Ask::default()
                };
                wait(runtime, router.search(queries, ask))
            }
        }
    }

    /// Writes all of it, or says what was not. Durable when it returns.
    pub fn write(&self, writes: Vec<Write>, budget_ms: u32) -> Result<(), Error> {
        match &*self.0 {
            Where::Here(store) => Ok(store.write(writes).map(drop)?),
            Where::Cluster {
                router, runtime, ..
            } => wait(runtime, async {
                router.write(writes, budget_ms).await?.all().map(drop)
            }),
        }
    }

    /// Records by id, in any order; those that are not there are left out.
    pub fn get(&self, ids: &[&str], budget_ms: u32) -> Result<Vec<Record>, Error> {
        match &*self.0 {
            Where::Here(store) => {
                let found = ids.iter().filter_map(|id| store.get(id).transpose());
                let found = found.map(|found| found.map(|(record, _)| record));
                found.collect::<Result<_, _>>().map_err(Error::Store)
            }
            Where::Cluster {
                router, runtime, ..
            } => {
                let ask = Ask {
                    budget_ms,
                    ..Ask::default()
                };
                let found = wait(runtime, router.get(ids, ask))?;
                Ok(found.into_iter().map(|(record, _)| record).collect())
            }
        }
    }

    /// Records and last sequence number of the shard in this process; nothing of a cluster.
    #[must_use]
    pub fn here_stats(&self) -> Option<(u64, u64)> {
        match &*self.0 {
            Where::Here(store) => Some((store.len(), store.seq())),
            Where::Cluster { .. } => None,
        }
    }

    /// Shards and their replicas, as the first node says that answers.
    pub fn overview(&self) -> Result<Overview, Error> {
        self.administer(Overview::of_one, async |admin| admin.overview().await)
    }

    /// Does what operators do, by way of the first node that answers; `here` is what a shard in this
    /// process says to it.
    pub fn administer<T>(
        &self,
        here: impl FnOnce(u64, u64) -> Result<T, Error>,
        work: impl AsyncFn(&Admin) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (router, runtime, seeds, tls) = match &*self.0 {
            Where::Here(store) => return here(store.len(), store.seq()),
            Where::Cluster {
                router,
                runtime,
                seeds,
                tls,
            } => (router, runtime, seeds, tls),
        };
        let view = router.view();
        let known = view.iter().flat_map(|view| view.nodes.values());
        let all: BTreeSet<&String> = known.chain(seeds).collect();
        wait(runtime, async {
            let mut last = Error::Unreachable("no node is named".to_owned());
            for addr in all {
                match work(&Admin::new(addr, tls.clone())).await {
                    Err(error @ (Error::Unreachable(_) | Error::Deadline)) => last = error,
                    done => return done,
                }
            }
            Err(last)
        })
    }
}

/// Waits for the runtime's work, on a thread of a runtime or on another one.
fn wait<T>(runtime: &Handle, work: impl Future<Output = T>) -> T {
    match Handle::try_current() {
        Ok(here) if here.runtime_flavor() != RuntimeFlavor::CurrentThread => {
            tokio::task::block_in_place(|| runtime.block_on(work))
        }
        _ => runtime.block_on(work),
    }
}
