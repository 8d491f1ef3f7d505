//! A shard node: opens what it holds, follows coordination, serves until it is drained.
//!
//! Invariants: the table that is known here never goes back; a replica is open only where the table
//! lists this node; the last view is on disk, so that searches go on after a restart without
//! coordination.

use crate::backup;
use crate::clock;
use crate::coordination::{CALL_MS_MAX, Coordination, CoordinationError, View};
use crate::error::Error;
use crate::files;
use crate::meter::Meter;
use crate::peers::Peers;
use crate::replica::{Replica, blocking};
use crate::service;
use crate::status;
use crate::store::Stores;
use crate::table::{Draft, NodeId, ShardId, ShardTable};
use crate::tls::Tls;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

mod replicas;

/// The last view, as a node keeps it.
pub const VIEW: &str = "VIEW";
/// How long after a failure it is tried again, in milliseconds.
const RETRY_MS: u64 = 300;

/// How much a node takes on at once.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Searches that run, and that wait for their turn.
    pub searches_running_max: usize,
    pub searches_waiting_max: usize,
    /// Writes between their arrival and their acknowledgement.
    pub writes_max: usize,
    /// Followers, snapshots and scans that are being served.
    pub streams_max: usize,
    /// Longest graceful end, in milliseconds.
    pub drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            searches_running_max: cores,
            searches_waiting_max: 256,
            writes_max: 256,
            streams_max: 64,
            drain_ms: 5_000,
        }
    }
}

/// A node before it runs.
pub struct Options {
    pub id: NodeId,
    pub dir: PathBuf,
    pub listen: SocketAddr,
    /// HTTP for machines that watch it: health, readiness, metrics. Nothing where there is none.
    pub admin: Option<SocketAddr>,
    /// Where others reach it, `host:port`; the bound address where there is none.
    pub advertise: Option<String>,
    pub coordination: Arc<dyn Coordination>,
    pub stores: Arc<dyn Stores>,
    /// The replicas of each shard of the first table, made where there is no table yet.
    pub first: Option<Vec<Vec<NodeId>>>,
    pub lease_ms: u64,
    pub limits: Limits,
    pub tls: Option<Tls>,
}

impl Options {
    #[must_use]
    pub fn new(
        id: NodeId,
        dir: PathBuf,
        coordination: Arc<dyn Coordination>,
        stores: Arc<dyn Stores>,
    ) -> Self {
        Self {
            first: Some(vec![vec![id.clone()]]),
            id,
            dir,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: None,
            advertise: None,
            coordination,
            stores,
            lease_ms: 3_000,
            limits: Limits::default(),
            tls: None,
        }
    }

    /// Makes the folder and binds. Nothing is served before [`Node::run`].
    pub async fn build(self) -> Result<Node, Error> {
        let refuse = |reason: String| Error::Listen {
            addr: self.listen.to_string(),
            reason,
        };
        if !self.listen.ip().is_loopback() && self.tls.is_none() {
            return Err(refuse(
                "beyond this machine nodes speak TLS: give the folder of keys".to_owned(),
            ));
        }
        backup::refuse_half_restored(&self.dir)?;
        std::fs::create_dir_all(&self.dir).map_err(Error::io(&self.dir))?;
        let (listener, addr) = listen(self.listen).await?;
        let admin = match self.admin {
            Some(wanted) => Some(listen(wanted).await?),
            None => None,
        };
        let path = self.dir.join(VIEW);
        let view = match files::read_whole(&path).map_err(Error::io(&path))? {
            Some(bytes) => match View::decode(&bytes) {
                // Leaders of the past lead nothing.
                Ok(view) => Some(Arc::new(View {
                    leaders: BTreeMap::new(),
                    ..view
                })),
                Err(reason) => return Err(Error::Corrupt { path, reason }),
            },
            None => None,
        };
        let shared = Arc::new(Shared {
            peers: Peers::new(self.tls.as_ref().map(|tls| tls.client.clone())),
            views: watch::Sender::new(view),
            replicas: RwLock::default(),
            searches: Arc::new(Semaphore::new(self.limits.searches_running_max)),
            search_places: Semaphore::new(
                self.limits.searches_running_max + self.limits.searches_waiting_max,
            ),
            writes: Semaphore::new(self.limits.writes_max),
            streams: Arc::new(Semaphore::new(self.limits.streams_max)),
            backups: Arc::new(Semaphore::new(1)),
            stop: CancellationToken::new(),
            meter: Meter::default(),
            options: self,
        });
        Ok(Node {
            shared,
            listener,
            addr,
            admin,
        })
    }
}

async fn listen(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let refuse = |error: std::io::Error| Error::Listen {
        addr: wanted.to_string(),
        reason: error.to_string(),
    };
    let listener = TcpListener::bind(wanted).await.map_err(refuse)?;
    let addr = listener.local_addr().map_err(refuse)?;
    Ok((listener, addr))
}

/// What all parts of a node share.
pub struct Shared {
    pub options: Options,
    pub peers: Peers,
    pub views: watch::Sender<Option<Arc<View>>>,
    pub replicas: RwLock<BTreeMap<ShardId, Arc<Replica>>>,
    pub searches: Arc<Semaphore>,
    pub search_places: Semaphore,
    pub writes: Semaphore,
    pub streams: Arc<Semaphore>,
    /// One snapshot is taken at a time.
    pub backups: Arc<Semaphore>,
    pub stop: CancellationToken,
    pub meter: Meter,
}

impl Shared {
    #[must_use]
    pub fn coordination(&self) -> &dyn Coordination {
        self.options.coordination.as_ref()
    }

    #[must_use]
    pub fn view(&self) -> Option<Arc<View>> {
        self.views.borrow().clone()
    }

    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.views
            .borrow()
            .as_ref()
            .map_or(0, |view| view.table.epoch())
    }

    pub fn replica(&self, shard: ShardId) -> Result<Arc<Replica>, Error> {
        if let Some(replica) = self.replicas.read().get(&shard) {
            return Ok(Arc::clone(replica));
        }
        let view = self.view();
        let here = view.and_then(|view| {
            let shard = view.table.shard(shard)?;
            Some(shard.replicas.contains(&self.options.id))
        });
        Err(if here == Some(true) {
            Error::Starting(shard)
        } else {
            Error::NotHere(shard)
        })
    }

    /// Takes over what coordination shows; a table that is older than the known one is left.
    fn merge(&self, seen: &Arc<View>) {
        self.views.send_if_modified(|known| {
            let next = match known {
                Some(known) if known.table.epoch() > seen.table.epoch() => Arc::new(View {
                    table: Arc::clone(&known.table),
                    ..seen.as_ref().clone()
                }),
                _ => Arc::clone(seen),
            };
            let changed = known.as_ref() != Some(&next);
            *known = Some(next);
            changed
        });
    }

    /// Takes over a table that coordination gave directly.
    pub fn adopt(&self, table: &Arc<ShardTable>) {
        self.views.send_if_modified(|known| {
            let (leaders, nodes) = match known {
                Some(known) if known.table.epoch() >= table.epoch() => return false,
                Some(known) => (known.leaders.clone(), known.nodes.clone()),
                None => Default::default(),
            };
            *known = Some(Arc::new(View {
                table: Arc::clone(table),
                leaders,
                nodes,
            }));
            true
        });
    }

    /// The table of coordination, now.
    pub async fn refresh(&self) -> Result<Arc<ShardTable>, Error> {
        let table = clock::within(CALL_MS_MAX, self.coordination().table()).await;
        let late = || CoordinationError::Unavailable("it is late".to_owned());
        let table = table.ok_or_else(late)??;
        self.adopt(&table);
        Ok(table)
    }

    /// The known table, if need be asked for, so that it is not older than a peer's.
    pub async fn table_since(&self, epoch: u64) -> Result<Arc<ShardTable>, Error> {
        if let Some(view) = self.view()
            && view.table.epoch() >= epoch
        {
            return Ok(Arc::clone(&view.table));
        }
        let table = self.refresh().await?;
        if table.epoch() < epoch {
            return Err(Error::Request(format!(
                "epoch {epoch} is not there yet, {} is",
                table.epoch()
            )));
        }
        Ok(table)
    }
}

/// A bound node, not yet running.
pub struct Node {
    shared: Arc<Shared>,
    listener: TcpListener,
    addr: SocketAddr,
    admin: Option<(TcpListener, SocketAddr)>,
}

/// What others may know of a node.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    addr: SocketAddr,
    admin: Option<SocketAddr>,
}

impl Handle {
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where health, readiness and metrics are.
    #[must_use]
    pub const fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.shared.options.id
    }

    /// Waits until every replica that belongs here is open and has caught up once.
    pub async fn ready(&self) {
        let mut views = self.shared.views.subscribe();
        loop {
            if status::missing(&self.shared).is_empty() {
                return;
            }
            tokio::select! {
                _ = views.changed() => {}
                () = clock::sleep_ms(20) => {}
            }
        }
    }

    #[must_use]
    pub fn view(&self) -> Option<Arc<View>> {
        self.shared.view()
    }
}

/// The folder of a replica, by its shard.
pub fn shard_dir(dir: &std::path::Path, shard: ShardId) -> PathBuf {
    dir.join(format!("shard-{:04}", shard.0))
}

/// The shards that a table lists at a node.
pub fn wanted(view: &View, node: &NodeId) -> Vec<ShardId> {
    let mine = view.table.shards().iter();
    let mine = mine.filter(|shard| shard.replicas.contains(node));
    mine.map(|shard| shard.id).collect()
}

impl Node {
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
            addr: self.addr,
            admin: self.admin.as_ref().map(|(_, addr)| *addr),
        }
    }

    /// Serves until `drain`, then gives its leads back and finishes what is in flight.
    pub async fn run(self, drain: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Self {
            shared,
            listener,
            addr,
            admin,
        } = self;
        let serving = CancellationToken::new();
        if let Some((listener, _)) = admin {
            let ended = serving.clone().cancelled_owned();
            tokio::spawn(status::serve(Arc::clone(&shared), listener, ended));
        }
        let server = tokio::spawn(service::serve(
            Arc::clone(&shared),
            listener,
            serving.clone().cancelled_owned(),
        ));
        let seen = tokio::spawn(follow_views(Arc::clone(&shared)));
        let known = tokio::spawn(register(Arc::clone(&shared), addr));
        let tended = tokio::spawn(replicas::keep_replicas(Arc::clone(&shared)));
        drain.await;
        // Leads first: others can take them while this node still answers searches.
        shared.stop.cancel();
        let ended = clock::within(shared.options.limits.drain_ms, async {
            for task in [tended, known, seen] {
                let _ = task.await;
            }
        });
        if ended.await.is_none() {
            tracing::warn!("a shard was not given back in time");
        }
        serving.cancel();
        let served = clock::within(shared.options.limits.drain_ms, server).await;
        // The last hold on each store: its end waits for what it has begun.
        let replicas = std::mem::take(&mut *shared.replicas.write());
        blocking(move || {
            drop(replicas);
            Ok(())
        })
        .await?;
        match served {
            Some(Ok(result)) => result,
            Some(Err(error)) => Err(Error::Worker(error.to_string())),
            None => Ok(()),
        }
    }
}

/// Makes the first table where there is none, then follows coordination, and keeps the last view.
async fn follow_views(shared: Arc<Shared>) {
    let mut views = shared.coordination().watch();
    let mut written = None;
    loop {
        let seen = views.borrow_and_update().clone();
        match seen {
            Some(view) => {
                shared.merge(&view);
                let view = shared.view();
                let key = view
                    .as_ref()
                    .map(|view| (view.table.epoch(), view.nodes.clone()));
                if key != written {
                    match keep_view(&shared, view).await {
                        Ok(()) => written = key,
                        Err(error) => tracing::warn!(%error, "the view was not written"),
                    }
                }
            }
            None => {
                if let Err(error) = first_table(&shared).await {
                    tracing::warn!(%error, "there is no table yet");
                }
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = clock::sleep_ms(RETRY_MS) => {}
            changed = views.changed() => if changed.is_err() { return },
        }
    }
}

async fn keep_view(shared: &Arc<Shared>, view: Option<Arc<View>>) -> Result<(), Error> {
    let path = shared.options.dir.join(VIEW);
    let Some(view) = view else {
        return Ok(());
    };
    blocking(move || {
        let corrupt = |error: skerry_wire::CodecError| Error::Corrupt {
            path: path.clone(),
            reason: error.to_string(),
        };
        let bytes = view.encode().map_err(corrupt)?;
        files::write_whole(&path, &bytes).map_err(Error::io(&path))
    })
    .await
}

async fn first_table(shared: &Arc<Shared>) -> Result<(), Error> {
    let coordination = shared.coordination();
    match coordination.table().await {
        Err(CoordinationError::NoTable) => {}
        other => return other.map(|_| ()).map_err(Error::from),
    }
    let Some(first) = &shared.options.first else {
        return Ok(());
    };
    match coordination
        .compare_and_swap(Draft::first(first)?, Vec::new())
        .await
    {
        // Another node was quicker.
        Ok(_) | Err(CoordinationError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Keeps this node's address known.
async fn register(shared: Arc<Shared>, addr: SocketAddr) {
    let options = &shared.options;
    let addr = options
        .advertise
        .clone()
        .unwrap_or_else(|| addr.to_string());
    while !shared.stop.is_cancelled() {
        let registered = options
            .coordination
            .register(options.id.clone(), addr.clone(), options.lease_ms)
            .await;
        match registered {
            Ok(registration) => {
                tokio::select! {
                    () = registration.lost() => {}
                    () = shared.stop.cancelled() => return,
                }
            }
            Err(error) => tracing::warn!(%error, "this node could not be registered"),
        }
        clock::sleep_ms(RETRY_MS).await;
    }
}
