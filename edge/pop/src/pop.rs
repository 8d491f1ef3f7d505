//! A PoP put together: options, what it builds, and its life from start to drain.

use crate::cache::ResponseCache;
use crate::clock::{Clock, fill_random};
use crate::error::Error;
use crate::files;
use crate::held::{Held, LocalKeys, read_api_keys};
use crate::kv::{FLUSH_MS, Kv};
use crate::listener::{self, MetricsText, Setup, Thread};
use crate::meter::Meter;
use crate::origin::push::CONTEXT_FRESH_MS;
use crate::origin::{self, Origin, Peer};
use crate::shared::Shared;
use crate::spool::{Limits, Spool};
use crate::worker::{MEMORY_BYTES_MAX, Worker};
use skerry_types::{Millis, UserContext};
use skerry_wire::value::StoredContext;
use skerry_wire::{decode, encode};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The component that was built into this program, where it was.
const EMBEDDED: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/worker.rs"));
/// Connections get this long to end after the drain begins, in milliseconds.
const DRAIN_MS_MAX: u64 = 10_000;

/// Whether a worker was built into this program.
#[must_use]
pub const fn has_worker() -> bool {
    EMBEDDED.is_some()
}

/// Settings of a PoP.
#[derive(Clone)]
pub struct Options {
    pub name: String,
    pub region: String,
    pub listen: SocketAddr,
    /// Folder for everything that outlives the process.
    pub state: PathBuf,
    /// Folder made by `skerry keys new`: certificates for the origin, API keys for callers.
    pub keys: Option<PathBuf>,
    /// `HOST:PORT` of the origin's QUIC listener; without one the PoP serves from what it holds.
    pub origin: Option<String>,
    /// A component instead of the embedded one.
    pub worker: Option<PathBuf>,
    /// Memory of one worker instance, at most, in bytes.
    pub worker_bytes: usize,
    /// Serving threads; 0 for one a core.
    pub threads: usize,
    /// Bound of the response cache, in bytes.
    pub cache_bytes: u64,
    /// Bound of the contexts in memory, in bytes.
    pub contexts_bytes: u64,
    /// Open connections, at most; more wait in the system's queue.
    pub connections_max: usize,
    pub spool: Limits,
    /// Text of `/metrics`, from whoever installed the recorder.
    pub metrics: Option<MetricsText>,
}

impl Options {
    /// Defaults, for the state folder and address given.
    #[must_use]
    pub fn new(state: PathBuf, listen: SocketAddr) -> Self {
        Self {
            name: "pop".to_owned(),
            region: "local".to_owned(),
            listen,
            state,
            keys: None,
            origin: None,
            worker: None,
            worker_bytes: MEMORY_BYTES_MAX,
            threads: 0,
            cache_bytes: 64 << 20,
            contexts_bytes: 64 << 20,
            connections_max: 16_384,
            spool: Limits::default(),
            metrics: None,
        }
    }

    /// Opens the state, compiles or loads the worker, and binds the listener. Call it inside the
    /// runtime that shall carry the connection to the origin.
    pub async fn build(self) -> Result<Pop, Error> {
        let api_keys = self
            .keys
            .as_deref()
            .map_or_else(|| Ok(Vec::new()), read_api_keys)?;
        if !self.listen.ip().is_loopback() && api_keys.is_empty() {
            return Err(Error::Unprotected { addr: self.listen });
        }
        let peer = match (&self.origin, &self.keys) {
            (None, _) => None,
            (Some(_), None) => return Err(Error::NoKeys),
            (Some(origin), Some(keys)) => Some(Peer {
                origin: origin.clone(),
                tls: origin::client_config(keys)?,
                pop: self.name.as_str().into(),
                region: self.region.as_str().into(),
            }),
        };
        files::open_state(&self.state)?;
        let worker = Arc::new(self.load_worker()?);
        let listen_error = |source| Error::Listen {
            addr: self.listen,
            source,
        };
        let tcp = TcpListener::bind(self.listen).await.map_err(listen_error)?;
        let addr = tcp.local_addr().map_err(listen_error)?;
        let shared = self.open_shared(api_keys)?;
        Ok(Pop {
            options: self,
            tcp,
            worker,
            peer,
            handle: Handle { shared, addr },
        })
    }

    fn load_worker(&self) -> Result<Worker, Error> {
        let cache = self.state.join("worker");
        match (&self.worker, EMBEDDED) {
            (Some(path), _) => {
                let read = std::fs::read(path);
                let bytes = read.map_err(|source| Error::WorkerFile {
                    path: path.clone(),
                    source,
                })?;
                Worker::new(&bytes, &cache, self.worker_bytes)
            }
            (None, Some(bytes)) => Worker::new(bytes, &cache, self.worker_bytes),
            (None, None) => Err(Error::NoWorker),
        }
    }

    fn open_shared(&self, keys: Vec<skerry_wire::value::ApiKey>) -> Result<Arc<Shared>, Error> {
        let state = |source| Error::State {
            path: self.state.clone(),
            source,
        };
        let clock = Clock::start();
        let meter = Meter::new(&self.region);
        let (mut sealing_key, mut seed) = ([0; 32], [0; 8]);
        fill_random(&mut sealing_key);
        fill_random(&mut seed);
        let local = LocalKeys {
            pop: self.name.as_str().into(),
            region: self.region.as_str().into(),
            keys,
            sealing_key,
        };
        let held = Held::open(&self.state.join("held"), local, Clock::now_ms()).map_err(state)?;
        let (kv, kv_corrupt) = Kv::open(&self.state.join("contexts"), self.contexts_bytes)?;
        let (spool, recovered) =
            Spool::open(&self.state.join("spool"), self.spool).map_err(state)?;
        if kv_corrupt {
            tracing::error!("the context store was corrupt and is set aside");
        }
        if recovered.events > 0 || recovered.torn_bytes > 0 || recovered.corrupt_files > 0 {
            tracing::info!(?recovered, "events from before wait for the origin");
        }
        restore(&kv, &spool, Clock::now_ms());
        let corrupt = held.corrupt_files() + u64::from(kv_corrupt) + recovered.corrupt_files as u64;
        meter.corrupt_files(corrupt);
        let origin = Origin::new(clock, meter.clone(), u64::from_le_bytes(seed));
        let cache = ResponseCache::new(self.cache_bytes);
        Ok(Arc::new(Shared {
            clock,
            cache,
            kv,
            held,
            spool,
            origin,
            meter,
        }))
    }
}

/// Contexts are written down up to [`FLUSH_MS`] late; what users did in that time is in the spool.
fn restore(kv: &Kv, spool: &Spool, now: Millis) {
    for subject in spool.subjects() {
        let pending = spool.pending(&subject);
        kv.update(&subject, |held| {
            let held = held.and_then(|held| decode::<StoredContext>(&held.bytes).ok());
            let mut stored = held.unwrap_or_else(|| StoredContext {
                written_ms: now,
                expires_ms: now + CONTEXT_FRESH_MS,
                mark: 0,
                context: UserContext::default(),
            });
            let mut changed = false;
            for event in &pending {
                changed |= stored.context.apply(event);
            }
            if changed {
                stored.mark = 0;
                encode(&stored).ok().map(Into::into)
            } else {
                None
            }
        });
    }
}

/// A PoP that is bound and ready to run.
pub struct Pop {
    options: Options,
    tcp: TcpListener,
    worker: Arc<Worker>,
    peer: Option<Peer>,
    handle: Handle,
}

/// What others may know of a running PoP.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    addr: SocketAddr,
}

impl Handle {
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// What `/readyz` misses; empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.shared.missing()
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.origin.is_connected()
    }

    /// Events that wait for the origin.
    #[must_use]
    pub fn spool_backlog(&self) -> usize {
        self.shared.spool.backlog()
    }
}

impl Pop {
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.handle.addr
    }

    /// Serves until `drain` ends, then lets what is in flight finish and brings the state to disk.
    pub async fn run(self, drain: impl Future<Output = ()>) -> Result<(), Error> {
        let shared = self.handle.shared.clone();
        let cancel = CancellationToken::new();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if self.options.threads == 0 {
            cores
        } else {
            self.options.threads
        };
        let setup = Setup {
            shared: shared.clone(),
            worker: self.worker,
            metrics: self.options.metrics.clone(),
            loopback: self.handle.addr.ip().is_loopback(),
            threads,
            drain: cancel.clone(),
        };
        let pool: Result<Vec<Thread>, _> = (0..threads)
            .map(|n| listener::start(n, setup.clone()))
            .collect();
        let pool = pool.map_err(Error::Thread)?;
        drop(setup);
        let link = async {
            match self.peer {
                Some(peer) => origin::run(shared.clone(), peer).await,
                None => std::future::pending().await,
            }
        };
        // The connection to the origin goes on while requests in flight end.
        tokio::pin!(link, drain);
        let housekeeping = housekeep(&shared);
        tokio::pin!(housekeeping);
        tokio::select! {
            () = accept(&self.tcp, &pool, self.options.connections_max, &shared.meter) => {}
            () = &mut link => {}
            () = &mut housekeeping => {}
            () = &mut drain => {}
        }
        cancel.cancel();
        drop(self.tcp);
        let ending = async {
            let every = Duration::from_millis(20);
            while pool
                .iter()
                .any(|thread| thread.load.load(Ordering::Relaxed) > 0)
            {
                tokio::time::sleep(every).await;
            }
        };
        let limit = tokio::time::timeout(Duration::from_millis(DRAIN_MS_MAX), ending);
        let ended = tokio::select! {
            ended = limit => ended.is_ok(),
            () = &mut link => false,
        };
        let handles: Vec<_> = pool.into_iter().map(|thread| thread.handle).collect();
        if ended {
            handles.into_iter().for_each(|handle| drop(handle.join()));
        } else {
            tracing::warn!("connections were still open at the end of the drain");
        }
        let closing = shared.clone();
        let closed = tokio::task::spawn_blocking(move || {
            closing.spool.close();
            closing.kv.flush()
        });
        if let Ok(Err(error)) = closed.await {
            tracing::error!(error, "contexts are not written down");
        }
        Ok(())
    }
}

/// Accepts and hands each connection to the thread with the fewest.
async fn accept(tcp: &TcpListener, pool: &[Thread], connections_max: usize, meter: &Meter) {
    loop {
        let open: usize = pool
            .iter()
            .map(|thread| thread.load.load(Ordering::Relaxed))
            .sum();
        meter.connections(open);
        if open >= connections_max {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let stream = match tcp.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, say: those who wait in the queue are served when some are free.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let Ok(stream) = stream.into_std() else {
            continue;
        };
        if let Some(thread) = pool
            .iter()
            .min_by_key(|thread| thread.load.load(Ordering::Relaxed))
        {
            thread.load.fetch_add(1, Ordering::Relaxed);
            if thread.connections.try_send(stream).is_err() {
                thread.load.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Brings contexts to disk and removes what the origin has acknowledged.
async fn housekeep(shared: &Arc<Shared>) {
    let mut every = tokio::time::interval(Duration::from_millis(FLUSH_MS));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let shared = shared.clone();
        let done =
            tokio::task::spawn_blocking(move || (shared.kv.flush(), shared.spool.tidy())).await;
        match done {
            Ok((Err(error), _)) => tracing::error!(error, "contexts are not written down"),
            Ok((_, Err(error))) => tracing::error!(%error, "the spool cannot be tidied"),
            _ => {}
        }
    }
}
