//! Nodes to start, kill and start again.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use skerry_types::{Attributes, Value};
use skerry_vector_index::{Merge, Metric, Query, Record, Spec, Stored, Write};
use skerry_vector_shard::coordination::embedded::Embedded;
use skerry_vector_shard::coordination::{Fence, InSync, Lease, Registration, Views};
use skerry_vector_shard::memory::MemoryStores;
use skerry_vector_shard::store::Stores;
use skerry_vector_shard::wire::grpc::shards_client::ShardsClient;
use skerry_vector_shard::{
    Ask, Collections, Coordination, CoordinationError, Directory, Draft, Handle, NodeId, Options,
    Router, ShardId, ShardTable, wire::grpc as g,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub const DIM: usize = 4;
/// More than any test writes.
pub const ALL: usize = 10_000;
const WAIT: Duration = Duration::from_secs(30);

pub fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub fn spec() -> Spec {
    Spec {
        dim: DIM,
        metric: Metric::Dot,
        stored: Stored::F32,
        fields: Vec::new(),
    }
}

/// Coordination that can be cut off from those who use it.
pub struct Cut<C> {
    pub inner: C,
    cut: AtomicBool,
    /// Every in-sync set that was written, in order.
    pub sets: Mutex<Vec<(ShardId, Vec<NodeId>)>>,
}

impl<C> Cut<C> {
    pub fn new(inner: C) -> Self {
        Self {
            inner,
            cut: AtomicBool::new(false),
            sets: Mutex::default(),
        }
    }

    pub fn cut(&self, yes: bool) {
        self.cut.store(yes, Ordering::SeqCst);
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, CoordinationError>>;

macro_rules! unless_cut {
    ($self:ident, $call:expr) => {
        if $self.cut.load(Ordering::SeqCst) {
            Box::pin(async { Err(CoordinationError::Unavailable("cut".to_owned())) })
        } else {
            $call
        }
    };
}

impl<C: Coordination> Directory for Cut<C> {
    fn table(&self) -> Answer<'_, Arc<ShardTable>> {
        unless_cut!(self, self.inner.table())
    }
    fn watch(&self) -> Views {
        self.inner.watch()
    }
}

impl<C: Coordination> Coordination for Cut<C> {
    fn compare_and_swap(&self, draft: Draft, fences: Vec<Fence>) -> Answer<'_, Arc<ShardTable>> {
        unless_cut!(self, self.inner.compare_and_swap(draft, fences))
    }
    fn lead(&self, shard: ShardId, node: NodeId, ttl_ms: u64) -> Answer<'_, Lease> {
        unless_cut!(self, self.inner.lead(shard, node, ttl_ms))
    }
    fn in_sync(&self, shard: ShardId) -> Answer<'_, Option<InSync>> {
        unless_cut!(self, self.inner.in_sync(shard))
    }
    fn set_in_sync(&self, fence: Fence, members: Vec<NodeId>) -> Answer<'_, ()> {
        let kept = (fence.shard, members.clone());
        unless_cut!(
            self,
            Box::pin(async move {
                self.inner.set_in_sync(fence, members).await?;
                self.sets.lock().push(kept);
                Ok(())
            })
        )
    }
    fn register(&self, node: NodeId, addr: String, ttl_ms: u64) -> Answer<'_, Registration> {
        unless_cut!(self, self.inner.register(node, addr, ttl_ms))
    }
}

struct Running {
    runtime: Option<Runtime>,
    handle: Handle,
    stop: CancellationToken,
}

/// Clusters measure time: one at a time, so that none takes it from another.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub struct Cluster {
    _alone: tokio::sync::MutexGuard<'static, ()>,
    dir: TempDir,
    pub coordination: Arc<Cut<Embedded>>,
    stores: Mutex<BTreeMap<String, Arc<dyn Stores>>>,
    first: Vec<Vec<NodeId>>,
    log_max: Option<usize>,
    running: Mutex<BTreeMap<String, Running>>,
}

impl Cluster {
    /// Nodes with durable collections, and the replicas of each shard.
    pub async fn start(nodes: &[&str], shards: &[&[&str]]) -> Arc<Self> {
        Self::start_with(nodes, shards, None).await
    }

    /// The same, or with stores in memory whose logs keep so many records.
    pub async fn start_with(
        nodes: &[&str],
        shards: &[&[&str]],
        log_max: Option<usize>,
    ) -> Arc<Self> {
        let first = shards
            .iter()
            .map(|names| names.iter().map(|name| node(name)).collect());
        let cluster = Arc::new(Self {
            _alone: ALONE.lock().await,
            dir: tempfile::tempdir().unwrap(),
            coordination: Arc::new(Cut::new(Embedded::default())),
            stores: Mutex::default(),
            first: first.collect(),
            log_max,
            running: Mutex::default(),
        });
        for name in nodes {
            cluster.up(name).await;
        }
        cluster.settled().await;
        cluster
    }

    pub fn dir_of(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub async fn up(&self, name: &str) {
        let made = || -> Arc<dyn Stores> {
            match self.log_max {
                Some(log_max) => Arc::new(MemoryStores::new(spec(), log_max)),
                None => Arc::new(Collections {
                    spec: spec(),
                    options: Default::default(),
                }),
            }
        };
        let stores = Arc::clone(
            self.stores
                .lock()
                .entry(name.to_owned())
                .or_insert_with(made),
        );
        let coordination = Arc::clone(&self.coordination) as Arc<dyn Coordination>;
        let mut options = Options::new(node(name), self.dir_of(name), coordination, stores);
        options.first = Some(self.first.clone());
        options.lease_ms = 1_000;
        options.admin = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (ready, handle) = tokio::sync::oneshot::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        runtime.spawn(async move {
            let node = options.build().await.unwrap();
            ready.send(node.handle()).ok();
            node.run(stopped.cancelled_owned()).await.unwrap();
        });
        let running = Running {
            runtime: Some(runtime),
            handle: handle.await.unwrap(),
            stop,
        };
        self.running.lock().insert(name.to_owned(), running);
    }

    /// As `kill -9`: no task of the node runs on, its sockets close.
    pub fn kill(&self, name: &str) {
        let running = self.running.lock().remove(name).unwrap();
        drop(running);
    }

    pub async fn settled(&self) {
        until("every shard is led and followed", async || {
            let mut led = std::collections::BTreeSet::new();
            let mut wanted = std::collections::BTreeSet::new();
            for client in self.clients() {
                let Ok(stats) = client.clone().stats(g::StatsRequest {}).await else {
                    return false;
                };
                let stats = stats.into_inner();
                let view = skerry_vector_shard::View::decode(&stats.view).unwrap();
                wanted.extend(view.table.shards().iter().map(|shard| shard.id.0));
                for shard in stats.shards {
                    if shard.role == "starting" {
                        return false;
                    }
                    let all = view
                        .table
                        .shard(ShardId(shard.shard))
                        .map_or(0, |s| s.replicas.len());
                    let up = self.running.lock().len();
                    if shard.role == "leading" && shard.in_sync.len() >= all.min(up) {
                        led.insert(shard.shard);
                    }
                }
            }
            !wanted.is_empty() && led == wanted
        })
        .await;
    }

    pub fn clients(&self) -> Vec<ShardsClient<Channel>> {
        let running = self.running.lock();
        running
            .values()
            .map(|running| client(&running.handle))
            .collect()
    }

    pub fn client(&self, name: &str) -> ShardsClient<Channel> {
        client(&self.running.lock().get(name).unwrap().handle)
    }

    /// Where a node's health, readiness and metrics are.
    pub fn watched(&self, name: &str) -> SocketAddr {
        let running = self.running.lock();
        running.get(name).unwrap().handle.admin_addr().unwrap()
    }

    pub fn router(&self) -> Router {
        Router::new(
            Arc::clone(&self.coordination) as Arc<dyn Coordination>,
            None,
        )
    }

    pub fn leader(&self, shard: u32) -> Option<String> {
        let view = self.coordination.watch().borrow().clone()?;
        Some(view.leader(ShardId(shard))?.node.to_string())
    }

    pub fn token(&self, shard: u32) -> u64 {
        let view = self.coordination.watch().borrow().clone();
        view.unwrap().leader(ShardId(shard)).unwrap().token
    }

    pub async fn table(&self) -> Arc<ShardTable> {
        self.coordination.inner.table().await.unwrap()
    }

    pub async fn migrate(
        &self,
        verb: g::migrate_request::Verb,
    ) -> Result<g::MigrateReply, tonic::Status> {
        let request = g::MigrateRequest { verb: Some(verb) };
        let reply = self.clients()[0].clone().migrate(request).await?;
        Ok(reply.into_inner())
    }
}

fn client(handle: &Handle) -> ShardsClient<Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", handle.addr()));
    ShardsClient::new(endpoint.unwrap().connect_lazy())
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = &self.stop;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for a condition, a bounded time.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < WAIT, "not in {WAIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn record(id: &str, version: i64) -> Record {
    let seed = skerry_vector_shard::slot_of(id).0;
    let at = |lane: usize| (f32::from(seed) * 0.001 + lane as f32 + version as f32 * 0.1).sin();
    Record {
        id: id.into(),
        vector: (0..DIM).map(at).collect(),
        payload: Attributes::from([("v".into(), Value::Int(version))]),
    }
}

pub fn upsert(id: &str, version: i64) -> Write {
    Write::Upsert(record(id, version))
}

pub fn query(k: usize) -> Query {
    Query {
        vectors: vec![vec![0.5; DIM]],
        merge: Merge::Best,
        k,
        ef: None,
        filter: None,
    }
}

pub fn ask(budget_ms: u32) -> Ask<'static> {
    Ask {
        budget_ms,
        ..Ask::default()
    }
}
