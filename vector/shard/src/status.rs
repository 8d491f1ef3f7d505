//! HTTP for machines that watch a node: `/healthz`, `/readyz` with what is missing, `/metrics`.
//!
//! Invariants: nothing is changed here and no key is needed; a full house waits in the listener's own,
//! bounded queue; labels are enums and the shards that this node holds.

use crate::clock;
use crate::node::{Shared, wanted};
use crate::replica::{Replica, blocking};
use crate::store::Figures;
use crate::table::ShardId;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use skerry_telemetry::exposition::{Kind, Label, Text};
use skerry_telemetry::{ReplicaRole, UpkeepTask};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;
/// A request's head must be there within this, in milliseconds.
const HEAD_MS_MAX: u64 = 5_000;
/// After a failed accept (out of file descriptors, say), in milliseconds.
const RETRY_MS: u64 = 50;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// Answers until the node has ended.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, ended: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = async {
        loop {
            let permit = Arc::clone(&slots).acquire_owned().await;
            let Ok((stream, _)) = listener.accept().await else {
                clock::sleep_ms(RETRY_MS).await;
                continue;
            };
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let _permit = permit;
                let answer = |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, std::convert::Infallible>(respond(&shared, &request).await) }
                };
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_millis(HEAD_MS_MAX))
                    .max_buf_size(HEAD_BYTES_MAX);
                // A broken connection is the client's affair.
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    };
    tokio::select! {
        () = ended => {}
        () = accept => {}
    }
}

async fn respond(shared: &Arc<Shared>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let known = ["/healthz", "/readyz", "/metrics"];
    let path = request.uri().path();
    if !known.contains(&path) {
        return reply(
            StatusCode::NOT_FOUND,
            "text/plain",
            "there is no such route\n",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "this is read only\n";
        let mut refused = reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", text);
        let allow = HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(header::ALLOW, allow);
        return refused;
    }
    match path {
        "/healthz" => reply(StatusCode::OK, JSON, r#"{"status":"ok"}"#),
        "/readyz" => {
            let missing = missing(shared);
            let (ready, status) = match missing.is_empty() {
                true => (true, StatusCode::OK),
                false => (false, StatusCode::SERVICE_UNAVAILABLE),
            };
            // Words of ours and numbers: nothing to escape.
            let list: Vec<String> = missing.iter().map(|what| format!("{what:?}")).collect();
            let body = format!(r#"{{"ready":{ready},"missing":[{}]}}"#, list.join(","));
            reply(status, JSON, body)
        }
        _ => {
            // Figures of a store may wait for its locks.
            let read = Arc::clone(shared);
            match blocking(move || Ok(metrics(&read))).await {
                Ok(text) => reply(StatusCode::OK, TEXT, text),
                Err(error) => reply(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "text/plain",
                    error.to_string(),
                ),
            }
        }
    }
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let no_store = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
    response
}

/// What keeps a node from answering all that it should: `table`, or `shard N` for each replica that
/// is not open or has not caught up.
pub fn missing(shared: &Shared) -> Vec<String> {
    let Some(view) = shared.view() else {
        return vec!["table".to_owned()];
    };
    let replicas = shared.replicas.read();
    let answers = |shard: &ShardId| {
        replicas
            .get(shard)
            .is_some_and(|r| r.is_caught_up() && !r.is_broken())
    };
    let wanted = wanted(&view, &shared.options.id);
    let lacking = wanted.iter().filter(|shard| !answers(shard));
    lacking.map(|shard| format!("shard {shard}")).collect()
}

/// What is known of one replica, read at one time.
struct Reading {
    shard: ShardId,
    role: ReplicaRole,
    token: u64,
    seq: u64,
    lag: u64,
    records: u64,
    /// At a leader alone.
    in_sync: Option<usize>,
    lease_held: Option<bool>,
    moved: Option<(u64, u64, u32)>,
    figures: Figures,
}

pub fn role(replica: &Replica) -> ReplicaRole {
    if replica.leading().is_some() {
        ReplicaRole::Leading
    } else if replica.is_caught_up() {
        ReplicaRole::Following
    } else {
        ReplicaRole::Starting
    }
}

fn read(replica: &Replica) -> Reading {
    let leading = replica.leading();
    let store = replica.store();
    let moved = leading.as_ref().map(|leading| *leading.moved.lock());
    let moved = moved.filter(|stats| stats.migration > 0);
    let role = role(replica);
    Reading {
        shard: replica.shard,
        role,
        token: replica.token(),
        seq: store.seq(),
        lag: if role == ReplicaRole::Leading {
            0
        } else {
            replica.lag()
        },
        records: store.len(),
        in_sync: leading
            .as_ref()
            .map(|leading| leading.tracker.lock().members().len()),
        lease_held: leading
            .as_ref()
            .map(|leading| leading.lease.holds(clock::now())),
        moved: moved.map(|stats| (stats.copied, stats.copy_total, stats.attempts)),
        figures: store.figures(),
    }
}

type Value = fn(&Reading) -> Option<u64>;

/// One sample for each replica that has the figure.
const GAUGES: [(&str, &str, Value); 17] = [
    (
        "skerry_vector_replica_token",
        "The greatest fencing token that was heard of.",
        |one| Some(one.token),
    ),
    (
        "skerry_vector_replica_seq",
        "The number of the last write that is here.",
        |one| Some(one.seq),
    ),
    (
        "skerry_vector_replica_lag_records",
        "Writes of the leader, as it was last heard of, that are not here.",
        |one| Some(one.lag),
    ),
    (
        "skerry_vector_in_sync_replicas",
        "Members of the in-sync set, as the leader has it.",
        |one| one.in_sync.map(|count| count as u64),
    ),
    (
        "skerry_vector_lease_held",
        "Whether the leader's lease is held: without it nothing is written.",
        |one| one.lease_held.map(u64::from),
    ),
    ("skerry_vector_records", "Records that are alive.", |one| {
        Some(one.records)
    }),
    ("skerry_vector_segments", "Sealed segments.", |one| {
        Some(one.figures.segments)
    }),
    (
        "skerry_vector_frozen_segments",
        "Segments that wait to be sealed.",
        |one| Some(one.figures.frozen),
    ),
    (
        "skerry_vector_rows",
        "Rows of all segments, dead ones too.",
        |one| Some(one.figures.rows),
    ),
    (
        "skerry_vector_dead_rows",
        "Rows that were deleted or replaced.",
        |one| Some(one.figures.dead),
    ),
    ("skerry_vector_log_bytes", "Log on disk.", |one| {
        Some(one.figures.log_bytes)
    }),
    (
        "skerry_vector_hot_bytes",
        "Memory that searches need.",
        |one| Some(one.figures.hot_bytes),
    ),
    (
        "skerry_vector_disk_bytes",
        "Segments and log on disk.",
        |one| Some(one.figures.disk_bytes),
    ),
    (
        "skerry_vector_checkpoint_seq",
        "Up to here segments have the log.",
        |one| Some(one.figures.checkpoint),
    ),
    (
        "skerry_vector_migration_copied_records",
        "Records that the shard which slots move to has copied.",
        |one| one.moved.map(|(copied, ..)| copied),
    ),
    (
        "skerry_vector_migration_copy_records",
        "Records that it has to copy, about.",
        |one| one.moved.map(|(_, total, _)| total),
    ),
    (
        "skerry_vector_migration_attempts",
        "Attempts of the migration under way.",
        |one| one.moved.map(|(.., attempts)| u64::from(attempts)),
    ),
];

/// The whole exposition text.
pub fn metrics(shared: &Shared) -> String {
    let mut text = Text::default();
    shared.meter.write_to(&mut text);
    let replicas: Vec<Arc<Replica>> = shared.replicas.read().values().cloned().collect();
    let readings: Vec<Reading> = replicas.iter().map(|replica| read(replica)).collect();
    let view = shared.view();
    let known = |count: Option<u64>| count.unwrap_or(0);
    let table = view.as_ref().map(|view| &view.table);
    let mut gauge = |name, help, value: u64| text.single(name, Kind::Gauge, help, value);
    gauge(
        "skerry_vector_epoch",
        "Epoch of the table that is known here; 0 without one.",
        known(table.map(|table| table.epoch())),
    );
    gauge(
        "skerry_vector_ready",
        "Whether all replicas that belong here answer.",
        u64::from(missing(shared).is_empty()),
    );
    gauge(
        "skerry_vector_migration",
        "The migration under way in the cluster; 0 without one.",
        known(table.and_then(|table| Some(table.migration()?.id))),
    );
    let name = "skerry_vector_replica_role";
    text.family(name, Kind::Gauge, "1 for what a replica is to its shard.");
    for one in &readings {
        for role in ReplicaRole::ALL {
            let labels: [Label<'_>; 2] = [("shard", &one.shard), ("role", &role.as_str())];
            text.sample(name, &labels, u8::from(*role == one.role));
        }
    }
    for (name, help, value) in GAUGES {
        text.family(name, Kind::Gauge, help);
        for one in &readings {
            if let Some(value) = value(one) {
                text.sample(name, &[("shard", &one.shard)], value);
            }
        }
    }
    let name = "skerry_vector_upkeep_fails";
    let help = "1 while sealing or compaction fails; it is tried again.";
    text.family(name, Kind::Gauge, help);
    for one in &readings {
        let figures = &one.figures;
        let fails = [figures.sealing_fails, figures.compaction_fails];
        for (task, fails) in UpkeepTask::ALL.iter().zip(fails) {
            let labels: [Label<'_>; 2] = [("shard", &one.shard), ("task", &task.as_str())];
            text.sample(name, &labels, u8::from(fails));
        }
    }
    text.finish()
}
