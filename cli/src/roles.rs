//! What `up`, `origin` and `pop` share: signals, progress, `endpoints.json`, the `ready` line.

use crate::output;
use crate::settings::{Settings, usage};
use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::Value;
use skerry_edge_pop::MetricsText;
use skerry_origin_gateway::{Data, Options, Progress, Step, VectorsAt};
use skerry_testkit::{Size, world};
use skerry_vector_shard::Tls;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Says where the data of a state folder came from.
const DATA_FILE: &str = "DATA";
/// Buckets of histograms, in seconds: answers take microseconds to a second.
const SECONDS_BUCKETS: [f64; 12] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.15, 1.0,
];
/// Cores of a PoP for each thread that talks to the origin.
const POP_CORES_PER_WORKER: usize = 4;
/// Longest graceful end, in seconds.
const STOP_S_MAX: u64 = 30;
const SEEDED: &str = "seeded";

pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// A PoP answers on threads of its own; these talk to the origin. More of them than that takes would
/// only pass its one connection back and forth.
pub fn pop_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / POP_CORES_PER_WORKER).max(1))
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// Cancelled by Ctrl-C or SIGTERM. A second signal ends the process at once, and so does time.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        eprintln!("stopping (again to stop at once)");
        stopping.cancel();
        std::thread::spawn(end_late);
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        std::process::exit(1);
    });
    Ok(stop)
}

/// Ends the process where a graceful end takes too long, whatever its runtime waits for. What was
/// acknowledged is on the disk: a store that does not close costs nothing but this time.
fn end_late() {
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_secs(STOP_S_MAX));
    eprintln!("not stopped after {STOP_S_MAX} s: ending now; nothing acknowledged is lost");
    std::process::exit(1);
}

/// Settings of an origin that every command takes alike.
pub fn tune(options: &mut Options, settings: &Settings) -> anyhow::Result<()> {
    options.explore = settings.parsed("origin.explore", None)?;
    options.pool_items = settings.parsed("origin.pool_items", None)?;
    options.fresh_active_ms = settings.parsed("limits.fresh_active_ms", None)?;
    options.fresh_idle_ms = settings.parsed("limits.fresh_idle_ms", None)?;
    options.surfaces.clone_from(&settings.surfaces);
    options.events.clone_from(&settings.events);
    options.popular_ms = settings.parsed("origin.popular_ms", None)?;
    let limits = &mut options.limits;
    limits.asks_max = settings.parsed("limits.asks_max", None)?;
    limits.connections_max = settings.parsed("limits.connections_max", None)?;
    limits.admin_connections_max = settings.parsed("limits.admin_connections_max", None)?;
    limits.body_ms = settings.parsed("limits.body_ms", None)?;
    limits.push_ms = settings.parsed("limits.push_ms", None)?;
    limits.drain_ms = settings.parsed("limits.drain_ms", None)?;
    let vectors = settings.maybe("origin.vectors", None).unwrap_or_default();
    options.vectors = vectors_at(&vectors, &options.keys)?;
    Ok(())
}

/// Where users' vectors are: with no node named here, else there, over TLS beyond this machine and
/// wherever `https://` says so.
fn vectors_at(nodes: &str, keys: &Path) -> anyhow::Result<VectorsAt> {
    let named = nodes
        .split(',')
        .map(str::trim)
        .filter(|one| !one.is_empty());
    let (mut nodes, mut over_tls) = (Vec::new(), Vec::new());
    for one in named {
        let refuse = |why: &str| usage(format!("origin.vectors: {one:?} {why}"));
        let (scheme, addr) = one.split_once("://").unwrap_or(("", one));
        let port = addr.rsplit_once(':').and_then(|(host, port)| {
            let port: u16 = port.parse().ok()?;
            (!host.is_empty() && port > 0).then_some(host)
        });
        let host = port.ok_or_else(|| refuse("is not HOST:PORT"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        over_tls.push(match scheme {
            "https" => true,
            "" => !is_loopback,
            "http" if is_loopback => false,
            "http" => return Err(refuse("is beyond this machine, where nodes speak TLS")),
            _ => return Err(refuse("has a scheme other than http and https")),
        });
        nodes.push(addr.to_owned());
    }
    if nodes.is_empty() {
        return Ok(VectorsAt::Here);
    }
    if over_tls.contains(&true) && over_tls.contains(&false) {
        return Err(usage(
            "origin.vectors: some nodes speak TLS and some do not".to_owned(),
        ));
    }
    let tls = over_tls
        .contains(&true)
        .then(|| Tls::read(keys))
        .transpose()?;
    let tls = tls.map(|tls| tls.client);
    Ok(VectorsAt::Nodes { nodes, tls })
}

/// Shows import and training on a terminal; notes everywhere.
pub fn progress() -> Progress {
    let bar = output::progress(None, "starting");
    Arc::new(move |step| match step {
        Step::Import { rows } => bar.set_message(format!("importing, {rows} rows")),
        Step::Train { share, .. } if share >= 1.0 => bar.set_message(String::new()),
        Step::Train { stage, share } => {
            bar.set_message(format!("training, {stage} {:.0} %", share * 100.0))
        }
        Step::Note(text) => bar.suspend(|| eprintln!("{text}")),
    })
}

/// Text of `/metrics`: installs the process's recorder, once.
pub fn metrics() -> anyhow::Result<MetricsText> {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    if RECORDER.get().is_none() {
        let builder = PrometheusBuilder::new().set_buckets(&SECONDS_BUCKETS)?;
        let handle = builder
            .install_recorder()
            .context("cannot start the metrics")?;
        RECORDER.set(handle).ok();
    }
    let handle = RECORDER.get().context("cannot start the metrics")?.clone();
    Ok(Arc::new(move || handle.render()))
}

/// Replaces `STATE/endpoints.json`.
pub fn write_endpoints(state: &Path, endpoints: &Value) -> anyhow::Result<()> {
    let path = state.join("endpoints.json");
    let fresh = path.with_extension("new");
    let write = || {
        std::fs::write(&fresh, format!("{endpoints}\n"))
            .and_then(|()| std::fs::rename(&fresh, &path))
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The only line on stdout.
pub fn say_ready(url: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {url}")
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

/// What a new state begins with where no folder is given, or the folder that is given. The seeded
/// catalogue never joins a state that began with a folder.
pub fn data(
    state: &Path,
    folder: Option<String>,
    seed: u64,
    seeded_by_default: bool,
) -> anyhow::Result<Option<Data>> {
    let marker = state.join(DATA_FILE);
    let began_with = std::fs::read_to_string(&marker).ok();
    let write = |text: &str| {
        std::fs::write(&marker, format!("{text}\n")).with_context(|| marker.display().to_string())
    };
    if let Some(folder) = folder {
        let path = std::fs::canonicalize(&folder).with_context(|| format!("--data {folder}"))?;
        if began_with.is_none() {
            write(&path.to_string_lossy())?;
        }
        return Ok(Some(Data::Path(path)));
    }
    match began_with.as_deref().map(str::trim) {
        None if seeded_by_default => write(SEEDED)?,
        Some(SEEDED) => {}
        _ => return Ok(None),
    }
    let made = world(seed, Size::default());
    Ok(Some(Data::Made {
        digest: seeded_digest(seed),
        items: made.items,
        events: made.events,
    }))
}

/// Names the seeded catalogue's content: its generator's version and its seed.
fn seeded_digest(seed: u64) -> [u8; 32] {
    let mut digest = *b"skerry seeded catalogue 1-------";
    for (to, from) in digest[24..].iter_mut().zip(seed.to_le_bytes()) {
        *to = from;
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeded_catalogue_never_joins_a_state_that_began_with_a_folder() {
        let state = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap().keep();
        let given = Some(folder.to_string_lossy().into_owned());
        assert!(matches!(
            data(state.path(), given, 7, true),
            Ok(Some(Data::Path(_)))
        ));
        assert!(matches!(data(state.path(), None, 7, true), Ok(None)));

        let state = tempfile::tempdir().unwrap();
        assert!(matches!(data(state.path(), None, 7, false), Ok(None)));
        for _ in 0..2 {
            assert!(matches!(
                data(state.path(), None, 7, true),
                Ok(Some(Data::Made { .. }))
            ));
        }
    }
}
