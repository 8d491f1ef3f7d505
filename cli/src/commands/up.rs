//! `skerry up`: an origin and its PoPs in one process, over real QUIC on loopback.
//!
//! Invariant: `ready URL` is the only line on stdout, and comes when every PoP holds a pool.

use super::{keys, pop};
use crate::client::call;
use crate::roles;
use crate::settings::Settings;
use anyhow::Context;
use serde_json::json;
use skerry_edge_pop::{Handle, Options as PopOptions, Pop};
use skerry_origin_gateway::{Options as OriginOptions, Origin, api_keys};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A PoP finds its way to its origin within this, in milliseconds; longer is not waited for.
const TOP_RUNG_MS_MAX: u64 = 2_000;
const TOP_RUNG_POLL_MS: u64 = 20;
/// Visitors who must be let in.
const VISITORS: u32 = 8;
/// PoPs in one process, at most.
const POPS_MAX: u16 = 16;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  skerry up
  skerry up --data ml-latest-small --port 9000
  curl 'http://127.0.0.1:8080/v1/recommend/1?n=10&fields=title&explain=true'")]
pub struct Args {
    /// Folder of items and events; without it a seeded catalogue of 2,000 items.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
    /// HTTP for users; further PoPs take the ports after it. 0 lets the system choose.
    #[arg(long)]
    port: Option<u16>,
    /// HTTP for operators; chosen by the system without it, STATE/endpoints.json says which.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    admin: u16,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=POPS_MAX as i64))]
    pops: u16,
    /// Set damaged state of the origin aside instead of refusing to start.
    #[arg(long)]
    repair: bool,
}

pub fn run(args: Args, settings: &Settings) -> anyhow::Result<()> {
    let state = PathBuf::from(settings.text("node.state", args.state.clone())?);
    std::fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
    let port = settings.parsed("pop.port", args.port)?;
    for number in 0..args.pops {
        pop::check_free(pop_address(port, number))?;
    }
    let keys_dir = state.join("keys");
    if !keys_dir.exists() {
        keys::create(&keys_dir, &keys::Names::default())?;
    }
    let origin = origin_options(&args, settings, &state, &keys_dir)?;
    roles::runtime()?.block_on(async {
        let stop = roles::stop_on_signal()?;
        let origin = origin.build().await?;
        let quic = origin.handle().quic_addr().to_string();
        let mut pops = Vec::new();
        for number in 0..args.pops {
            let mut options = PopOptions::new(
                state.join(format!("pop{}", number + 1)),
                pop_address(port, number),
            );
            options.name = format!("pop{}", number + 1);
            options.keys = Some(keys_dir.clone());
            options.origin = Some(quic.clone());
            options.cache_bytes = settings.parsed("limits.cache_bytes", None)?;
            options.worker = settings.maybe("pop.worker", None).map(PathBuf::from);
            options.metrics = Some(roles::metrics()?);
            pops.push(options.build().await?);
        }
        live(&state, origin, pops, &stop).await
    })
}

fn origin_options(
    args: &Args,
    settings: &Settings,
    state: &Path,
    keys: &Path,
) -> anyhow::Result<OriginOptions> {
    let seed = settings.parsed("origin.seed", None)?;
    let mut options = OriginOptions::new(state.join("origin"), keys);
    options.admin = SocketAddr::from((Ipv4Addr::LOCALHOST, args.admin));
    options.api_keys = api_keys(keys)?;
    options.region = Arc::from(settings.text("node.region", None)?);
    options.data = roles::data(
        state,
        settings.maybe("node.data", args.data.clone()),
        seed,
        true,
    )?;
    options.train.seed = seed;
    roles::tune(&mut options, settings)?;
    options.repair = args.repair;
    options.progress = roles::progress();
    Ok(options)
}

/// Asks until answers come from the origin, whoever asks: visitors are let in by a hash.
async fn top_rung(edge: &str) {
    for visitor in 0..VISITORS {
        let body = format!(r#"{{"n":1,"user":{{"session":"ready-{visitor}"}}}}"#).into_bytes();
        loop {
            let answer = call(
                "POST",
                &format!("{edge}/v1/recommend"),
                None,
                Some(body.clone()),
            )
            .await;
            let answer = answer.and_then(|reply| reply.json()).unwrap_or_default();
            if answer["served"]["rung"] == "full" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(TOP_RUNG_POLL_MS)).await;
        }
    }
}

fn pop_address(port: u16, number: u16) -> SocketAddr {
    let port = if port == 0 {
        0
    } else {
        port.saturating_add(number)
    };
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Runs everything until `stop` or until one part ends; PoPs drain before their origin, so that
/// what they have accepted still arrives.
async fn live(
    state: &Path,
    origin: Origin,
    pops: Vec<Pop>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let origin_handle = origin.handle();
    let handles: Vec<Handle> = pops.iter().map(Pop::handle).collect();
    let edges: Vec<String> = handles
        .iter()
        .map(|handle| format!("http://{}", handle.local_addr()))
        .collect();
    let admin = format!("http://{}", origin_handle.admin_addr());
    let quic = origin_handle.quic_addr().to_string();
    roles::write_endpoints(
        state,
        &json!({"edge": edges[0], "edges": edges, "admin": admin, "quic": quic}),
    )?;

    let origin_stop = CancellationToken::new();
    let mut origin = tokio::spawn(origin.run(origin_stop.clone().cancelled_owned()));
    let mut serving = JoinSet::new();
    for pop in pops {
        serving.spawn(pop.run(stop.clone().cancelled_owned()));
    }
    let ready = async {
        // Where the start fails, `run` ends and says why.
        if origin_handle.started().await.is_err() {
            std::future::pending::<()>().await;
        }
        for (handle, edge) in handles.iter().zip(&edges) {
            pop::ready(handle, stop).await;
            // A PoP with persisted state is ready alone; here its origin is part of the system.
            let limit = Duration::from_millis(TOP_RUNG_MS_MAX);
            if tokio::time::timeout(limit, top_rung(edge)).await.is_err() {
                tracing::warn!(edge, "ready, but not on the top rung yet");
            }
        }
    };
    let early = tokio::select! {
        ended = &mut origin => Some(ended?.map_err(anyhow::Error::from)),
        Some(ended) = serving.join_next() => Some(ended?.map_err(anyhow::Error::from)),
        () = ready => None,
        () = stop.cancelled() => None,
    };
    if early.is_none() && !stop.is_cancelled() {
        roles::say_ready(&edges[0])?;
        stop.cancelled().await;
    }
    stop.cancel();
    let mut result = early.unwrap_or(Ok(()));
    while let Some(ended) = serving.join_next().await {
        result = result.and(ended?.map_err(anyhow::Error::from));
    }
    origin_stop.cancel();
    if !origin.is_finished() {
        result = result.and(origin.await?.map_err(anyhow::Error::from));
    }
    result
}
