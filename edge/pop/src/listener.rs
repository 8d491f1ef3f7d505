//! HTTP: from a connection to the worker and back.
//!
//! Invariants: a connection stays on one thread, with that thread's instances and its line to the
//! origin, so that a request takes no lock and wakes no other thread; a body beyond the limit is never
//! read, let alone buffered; every wait on a peer has a bound; only the headers that the core reads
//! cross into the worker.

mod messages;

use crate::cache::Rendered;
use crate::clock::{Clock, Entropy};
use crate::native::{self, Native};
use crate::origin::Line;
use crate::shared::Shared;
use crate::worker::{INSTANCES_MAX, Instances, Worker, WorkerError};
use crate::world::skerry::edge::types::{
    Body as WitBody, Epochs, Note, Request, Response as WitResponse,
};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use messages::{header_name, headers, method, put_header, read_body};
use skerry_types::Uid;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A request's head must be there within this, in milliseconds; idle connections are closed after it.
const HEAD_MS_MAX: u64 = 30_000;
/// Concurrent streams of one HTTP/2 connection, at most.
const STREAMS_MAX: u32 = 64;
/// Connections on their way to a thread, at most.
const HANDOVER_MAX: usize = 1_024;
/// Revalidations of one thread at once, at most.
const REVALIDATIONS_MAX: usize = 32;
/// Renders `/metrics`.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// A thread that serves connections.
pub struct Thread {
    pub connections: mpsc::Sender<TcpStream>,
    /// How many it serves.
    pub load: Arc<AtomicUsize>,
    pub handle: std::thread::JoinHandle<()>,
}

/// What every thread needs.
#[derive(Clone)]
pub struct Setup {
    pub shared: Arc<Shared>,
    pub worker: Arc<Worker>,
    pub metrics: Option<MetricsText>,
    pub loopback: bool,
    pub threads: usize,
    pub drain: CancellationToken,
}

/// Starts one thread with a runtime of its own.
pub fn start(number: usize, setup: Setup) -> std::io::Result<Thread> {
    let (connections, mut queue) = mpsc::channel::<TcpStream>(HANDOVER_MAX);
    let load = Arc::new(AtomicUsize::new(0));
    let count = load.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = std::thread::Builder::new()
        .name(format!("skerry-http-{number}"))
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            let serving = async move {
                let drain = setup.drain.clone();
                let instances = INSTANCES_MAX.div_ceil(setup.threads.max(1));
                let (line, hang_up) = (Line::default(), CancellationToken::new());
                let origin = setup.shared.origin.clone();
                let keeping = line.clone().keep(origin, hang_up.clone());
                let keeping = tokio::task::spawn_local(keeping);
                let server = Rc::new(Server {
                    instances: Instances::new(setup.worker, setup.shared.clone(), line, instances),
                    shared: setup.shared,
                    metrics: setup.metrics,
                    loopback: setup.loopback,
                    entropy: RefCell::new(Entropy::new()),
                    revalidating: Cell::new(0),
                });
                let mut running = tokio::task::JoinSet::new();
                while let Some(stream) = queue.recv().await {
                    while running.try_join_next().is_some() {}
                    let (server, drain) = (server.clone(), drain.clone());
                    let served = Counted(count.clone());
                    running.spawn_local(async move {
                        connection(server, stream, drain).await;
                        drop(served);
                    });
                }
                while running.join_next().await.is_some() {}
                hang_up.cancel();
                let _ = keeping.await;
            };
            runtime.block_on(local.run_until(serving));
        })?;
    Ok(Thread {
        connections,
        load,
        handle,
    })
}

/// One connection less when it goes.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// HTTP/2 streams stay on the connection's thread.
#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future + 'static> Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move { drop(task.await) });
    }
}

async fn connection(server: Rc<Server>, stream: TcpStream, drain: CancellationToken) {
    let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
        return;
    };
    let mut builder = auto::Builder::new(OnThisThread);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEAD_MS_MAX))
        .pipeline_flush(true)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_millis(HEAD_MS_MAX)))
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(16 << 10);
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.respond(request).await) }
    });
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => ended,
        () = drain.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// One thread's share of the PoP.
struct Server {
    shared: Arc<Shared>,
    instances: Rc<Instances>,
    metrics: Option<MetricsText>,
    loopback: bool,
    entropy: RefCell<Entropy>,
    revalidating: Cell<usize>,
}

impl Server {
    async fn respond(self: &Rc<Self>, request: http::Request<Incoming>) -> Response<Full<Bytes>> {
        if let Some(response) = self.own_endpoint(&request) {
            return response;
        }
        let started = self.shared.clock.tick();
        let entropy = self.entropy.borrow_mut().draw();
        let now_ms = Clock::now_ms();
        let (head, body) = request.into_parts();
        let body = match read_body(body, &head.headers).await {
            Ok(body) => body,
            Err(problem) => {
                let id = Uid::v7(now_ms, u128::from(entropy.0) << 64 | u128::from(entropy.1));
                let mut response = plain(native::problem(&problem, id), &self.shared, started.0);
                // What may be left of the body is not read.
                response
                    .headers_mut()
                    .insert(http::header::CONNECTION, HeaderValue::from_static("close"));
                return response;
            }
        };
        let target = head
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str())
            .to_owned();
        let request = Request {
            method: method(&head.method),
            target,
            headers: headers(&head.headers),
            body,
            now_ms,
            tick_us: started.0,
            entropy,
            loopback: self.loopback,
            revalidate: false,
            epochs: self.epochs(now_ms),
        };
        match self.instances.call(&request).await {
            Ok((response, found)) => {
                if response.revalidate {
                    self.revalidate(request);
                }
                self.deliver(response, found, started.0)
            }
            Err(error) => {
                let (why, error) = match &error {
                    WorkerError::Exhausted => ("exhausted", String::new()),
                    WorkerError::Failed(error) => ("failed", format!("{error:#}")),
                };
                tracing::error!(why, error, "the worker failed, the host answers");
                self.shared.meter.worker_failed(why);
                plain(
                    native::answer(&self.shared, request).await,
                    &self.shared,
                    started.0,
                )
            }
        }
    }

    /// Handles a request again for the cache's sake alone, while its answer is on the way. Beyond
    /// the bound nothing is lost: the next such request does it, or a plain miss.
    fn revalidate(self: &Rc<Self>, request: Request) {
        if self.revalidating.get() >= REVALIDATIONS_MAX {
            return;
        }
        self.revalidating.set(self.revalidating.get() + 1);
        let server = self.clone();
        tokio::task::spawn_local(async move {
            let now_ms = Clock::now_ms();
            let request = Request {
                revalidate: true,
                now_ms,
                tick_us: server.shared.clock.tick().0,
                entropy: server.entropy.borrow_mut().draw(),
                epochs: server.epochs(now_ms),
                ..request
            };
            let called = server.instances.call(&request).await;
            server.shared.meter.revalidated(called.is_ok());
            server.revalidating.set(server.revalidating.get() - 1);
        });
    }

    fn epochs(&self, now: u64) -> Epochs {
        let held = self.shared.held.now();
        let pool = held.pool.as_ref();
        Epochs {
            config: held.config_epoch,
            pool: pool.map_or(0, |pool| pool.epoch),
            pool_as_of_ms: pool.map_or(0, |pool| pool.as_of),
            mask: held.mask_epoch,
            mask_until_ms: self.shared.held.mask_until(now),
            popular: held.popular.as_ref().map_or(0, |popular| popular.epoch),
            bandit: held.bandit_epoch,
        }
    }

    /// From the worker's response to bytes; bodies that it refers to or wants kept are the cache's.
    fn deliver(
        &self,
        response: WitResponse,
        found: Option<Rendered>,
        started_us: u64,
    ) -> Response<Full<Bytes>> {
        let body = match response.body {
            WitBody::Inline(bytes) => Bytes::from(bytes),
            WitBody::Keep(keep) => {
                let bytes = Bytes::from(keep.bytes);
                let rendered = Rendered {
                    render: keep.render,
                    context_version: keep.context_version,
                    until: keep.until_ms,
                    bytes: bytes.clone(),
                    slots: keep.slots.into(),
                    head: keep.head.into(),
                };
                self.shared.cache.keep(&keep.key, &rendered);
                bytes
            }
            WitBody::Stored(patches) => {
                found.map_or_else(Bytes::new, |found| patched(&found, &patches))
            }
        };
        self.shared.origin.expose(response.exposure);
        let mut out = Response::new(Full::new(body));
        out.headers_mut().reserve(response.headers.len() + 1);
        *out.status_mut() =
            StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in response.headers {
            put_header(out.headers_mut(), header_name(name), value);
        }
        self.count(&response.note, response.status, started_us);
        out
    }

    fn count(&self, note: &Note, status: u16, started_us: u64) {
        let took_us = self.shared.clock.tick().0.saturating_sub(started_us);
        self.shared.meter.answered(note, status, took_us);
    }

    /// Endpoints of the host itself; they never need a key.
    fn own_endpoint(&self, request: &http::Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        let path = request.uri().path();
        if path.starts_with("/v1/") {
            return None;
        }
        if !matches!(*request.method(), http::Method::GET | http::Method::HEAD) {
            return None;
        }
        let (status, kind, text) = match path {
            "/healthz" => (
                StatusCode::OK,
                "application/json",
                r#"{"status":"ok"}"#.to_owned(),
            ),
            "/readyz" => {
                let missing = self.shared.missing();
                let list = missing
                    .iter()
                    .map(|what| format!("\"{what}\""))
                    .collect::<Vec<_>>()
                    .join(",");
                let origin = if self.shared.origin.is_connected() {
                    "connected"
                } else {
                    "away"
                };
                let breaker = self.shared.origin.breaker();
                let ready = missing.is_empty();
                let status = if ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                let text = format!(
                    r#"{{"ready":{ready},"missing":[{list}],"origin":"{origin}","breaker":"{breaker}","spool_events":{}}}"#,
                    self.shared.spool.backlog()
                );
                (status, "application/json", text)
            }
            "/metrics" => {
                let size = self.shared.cache.size();
                self.shared
                    .meter
                    .held(self.shared.spool.backlog(), self.shared.kv.len(), size);
                let text = self
                    .metrics
                    .as_ref()
                    .map_or_else(String::new, |metrics| metrics());
                (StatusCode::OK, "text/plain; version=0.0.4", text)
            }
            _ => return None,
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(
            http::header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        );
        Some(response)
    }
}

fn plain(native: Native, shared: &Shared, started_us: u64) -> Response<Full<Bytes>> {
    shared.meter.answered(
        &native.note,
        native.status,
        shared.clock.tick().0.saturating_sub(started_us),
    );
    let mut out = Response::new(Full::new(native.body));
    *out.status_mut() =
        StatusCode::from_u16(native.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in native.headers {
        put_header(
            out.headers_mut(),
            HeaderName::from_static(name.as_str()),
            value,
        );
    }
    out
}

/// A kept body with its slots overwritten, one after another.
fn patched(kept: &Rendered, patches: &[u8]) -> Bytes {
    let (mut bytes, mut left) = (kept.bytes.to_vec(), patches);
    for (at, length) in kept.slots.iter() {
        let (at, length) = (*at as usize, *length as usize);
        let Some((patch, rest)) = left.split_at_checked(length) else {
            break;
        };
        if let Some(slot) = bytes.get_mut(at..at.saturating_add(length)) {
            slot.copy_from_slice(patch);
        }
        left = rest;
    }
    Bytes::from(bytes)
}
