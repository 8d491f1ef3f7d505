//! `skerry vector`: a node that holds shards of the vector index, a check of its files, and snapshots.

mod backup;

use crate::etcd::{self, Etcd};
use crate::output;
use crate::roles;
use crate::settings::{Settings, usage};
use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::json;
use skerry_vector_index::{CodeKind, DIM_MAX, Metric, Spec, Stored, store};
use skerry_vector_shard::table::SHARDS_MAX;
use skerry_vector_shard::{Collections, Draft, NodeId, Options, Tls};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  skerry vector --dir vectors/ --dim 64                    one node, one shard
  skerry vector --dir n1/ --node-id n1 --listen 127.0.0.1:7701 --etcd 127.0.0.1:2379 \\
      --shards 4 --nodes n1,n2,n3 --dim 64                 one of three nodes, with 4 replicas each
  skerry vector verify n1/                                 check every file of a node that is down
  skerry vector snapshot --node 127.0.0.1:7700 /mnt/backups/items --keep 7
  skerry vector restore /mnt/backups/items vectors/"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<VectorCommand>,
    /// Folder that everything durable lies in.
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
    /// gRPC for routers and other nodes.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Folder made by `skerry keys new`: nodes then speak TLS, which they must beyond one machine.
    #[arg(long, value_name = "DIR")]
    keys: Option<String>,
    /// Where others reach this node; without it the address that it listens on.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Name of this node, as tables have it.
    #[arg(long, value_name = "NAME")]
    node_id: Option<String>,
    /// HTTP for machines that watch this node (`/healthz`, `/readyz`, `/metrics`); `endpoints.json` says
    /// where it is. Read-only and without a key: beyond this machine only where you say so.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    #[command(flatten)]
    etcd: etcd::Args,
    /// Name of the collection; nodes of one collection belong together.
    #[arg(long)]
    collection: Option<String>,
    /// Components of each vector.
    #[arg(long)]
    dim: Option<usize>,
    /// cosine, dot or l2.
    #[arg(long)]
    metric: Option<String>,
    /// How vectors lie on disk: f32 or f16.
    #[arg(long)]
    stored: Option<String>,
    /// How vectors are coded in memory: bytes, or bits, which take a fraction of the memory and read more
    /// from disk. Segments that are there keep theirs until they are merged.
    #[arg(long)]
    codes: Option<String>,
    /// Threads of a seal or a compaction.
    #[arg(long, value_name = "N")]
    build_threads: Option<usize>,
    /// Share of their time that the threads of compaction may take, in percent.
    #[arg(long, value_name = "PERCENT")]
    cpu_percent: Option<u32>,
    /// Fields that filters may name, with commas between.
    #[arg(long, value_name = "FIELD,...")]
    fields: Option<String>,
    /// Shards of the first table, where there is none yet.
    #[arg(long)]
    shards: Option<usize>,
    /// Nodes of the first table, with commas between: each shard has a replica on every one.
    #[arg(long, value_name = "NAME,...")]
    nodes: Option<String>,
}

#[derive(Debug, Subcommand)]
enum VectorCommand {
    /// Check every file of a node, a collection or a snapshot. Changes nothing.
    Verify {
        dir: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Copy a node to a folder or an object store.
    Snapshot(backup::Snapshot),
    /// What snapshots there are.
    Snapshots(backup::List),
    /// Remove old snapshots, and what no other needs.
    Prune(backup::Prune),
    /// Make a node's folder of a snapshot.
    Restore(backup::Restore),
}

pub fn run(args: Args, settings: &Settings) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(VectorCommand::Verify { dir, json }) => return verify(dir, *json),
        Some(VectorCommand::Snapshot(args)) => return backup::snapshot(args, settings),
        Some(VectorCommand::Snapshots(args)) => return backup::list(args),
        Some(VectorCommand::Prune(args)) => return backup::prune(args),
        Some(VectorCommand::Restore(args)) => return backup::restore(args),
        None => {}
    }
    let dir = PathBuf::from(settings.text("vector.dir", args.dir.clone())?);
    let listen = settings.parsed("vector.listen", args.listen)?;
    let spec = spec(&args, settings)?;
    let kept = kept(&args, settings)?;
    let id = settings.text("vector.node", args.node_id)?;
    let id: NodeId = id.parse().map_err(|error| usage(format!("{error}")))?;
    let admin = settings.parsed("vector.admin", args.admin)?;
    let etcd = Etcd::resolve(args.etcd, settings)?;
    let collection = settings.text("vector.collection", args.collection)?;
    let region = settings.text("node.region", None)?;
    let shards: usize = settings.parsed("vector.shards", args.shards)?;
    if !(1..=SHARDS_MAX).contains(&shards) {
        return Err(usage(format!(
            "vector.shards = {shards}: 1 to {SHARDS_MAX}"
        )));
    }
    let keys = settings.maybe("node.keys", args.keys);
    let tls = keys.map(|dir| Tls::read(Path::new(&dir))).transpose()?;
    let nodes = list(settings.maybe("vector.nodes", args.nodes));
    let nodes: Result<Vec<NodeId>, _> = nodes.iter().map(|name| name.parse()).collect();
    let mut nodes = nodes.map_err(|error| usage(format!("{error}")))?;
    if nodes.is_empty() {
        nodes.push(id.clone());
    }
    let first = vec![nodes; shards];
    if let Err(error) = Draft::first(&first) {
        return Err(usage(format!("vector.nodes: {error}")));
    }
    std::fs::create_dir_all(&dir)?;
    roles::runtime()?.block_on(async {
        let stop = roles::stop_on_signal()?;
        let prefix = format!("/skerry/{region}/{collection}");
        let coordination = etcd.coordination(&dir, &prefix).await?;
        let stores = Arc::new(Collections {
            spec,
            options: kept,
        });
        let mut options = Options::new(id, dir.clone(), coordination, stores);
        options.listen = listen;
        options.admin = Some(admin);
        options.tls = tls;
        options.advertise = settings.maybe("vector.advertise", args.advertise);
        options.first = Some(first);
        options.lease_ms = settings.parsed("vector.lease_ms", None)?;
        let node = options.build().await?;
        let handle = node.handle();
        let addr = handle.addr().to_string();
        let admin = handle.admin_addr().map(|addr| format!("http://{addr}"));
        roles::write_endpoints(&dir, &json!({"vector": addr, "admin": admin}))?;
        let mut running = tokio::spawn(node.run(stop.clone().cancelled_owned()));
        tokio::select! {
            ended = &mut running => return Ok(ended??),
            () = handle.ready() => roles::say_ready(&format!("http://{addr}"))?,
            () = stop.cancelled() => {}
        }
        running.await??;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The parts of a text between commas.
pub fn list(text: Option<String>) -> Vec<String> {
    let text = text.unwrap_or_default();
    let parts = text.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

fn spec(args: &Args, settings: &Settings) -> anyhow::Result<Spec> {
    let metric = settings.text("vector.metric", args.metric.clone())?;
    let stored = settings.text("vector.stored", args.stored.clone())?;
    let fields = list(settings.maybe("vector.fields", args.fields.clone()));
    let mut fields: Vec<Box<str>> = fields.into_iter().map(Into::into).collect();
    fields.sort();
    fields.dedup();
    let dim = settings.parsed("vector.dim", args.dim)?;
    if !(1..=DIM_MAX).contains(&dim) {
        return Err(usage(format!("vector.dim = {dim}: 1 to {DIM_MAX}")));
    }
    Ok(Spec {
        dim,
        metric: match metric.as_str() {
            "cosine" => Metric::Cosine,
            "dot" => Metric::Dot,
            "l2" => Metric::L2,
            other => {
                return Err(usage(format!(
                    "the metric {other:?} is none of cosine, dot, l2"
                )));
            }
        },
        stored: match stored.as_str() {
            "f32" => Stored::F32,
            "f16" => Stored::F16,
            other => return Err(usage(format!("stored {other:?} is none of f32, f16"))),
        },
        fields,
    })
}

/// How a node uses memory and processor.
fn kept(args: &Args, settings: &Settings) -> anyhow::Result<store::Options> {
    let codes = match settings.text("vector.codes", args.codes.clone())?.as_str() {
        "bytes" => CodeKind::Bytes,
        "bits" => CodeKind::Bits,
        other => return Err(usage(format!("codes {other:?} are none of bytes, bits"))),
    };
    let build_threads = settings.parsed("vector.build_threads", args.build_threads)?;
    if !(1..=64).contains(&build_threads) {
        return Err(usage(format!(
            "vector.build_threads = {build_threads}: 1 to 64"
        )));
    }
    let cpu_percent = settings.parsed("vector.cpu_percent", args.cpu_percent)?;
    if !(1..=100).contains(&cpu_percent) {
        return Err(usage(format!(
            "vector.cpu_percent = {cpu_percent}: 1 to 100"
        )));
    }
    Ok(store::Options {
        codes,
        build_threads,
        cpu_percent,
        ..store::Options::default()
    })
}

/// The collections below a folder: itself, or those of a node's shards.
fn collections(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if dir.join("MANIFEST").exists() || dir.join("FORMAT").exists() {
        found.push(dir.to_path_buf());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    let entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collections(&path, depth - 1, found)?;
        }
    }
    found.sort();
    Ok(())
}

fn verify(dir: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    // NODE/shard-0000/g-000001/data
    const DEPTH_MAX: usize = 3;
    let mut found = Vec::new();
    collections(dir, DEPTH_MAX, &mut found)?;
    if found.is_empty() {
        bail!("there is no collection in {}", dir.display());
    }
    let mut sound = true;
    let mut reports = Vec::new();
    for path in found {
        let bar = output::progress(Some(1), "checking");
        let report = store::verify(&path, &mut |progress| {
            bar.set_length(progress.bytes_total);
            bar.set_position(progress.bytes_done);
        });
        bar.finish_and_clear();
        let report = match report {
            Ok(report) => report,
            Err(error) => store::VerifyReport {
                damage: vec![error],
                ..Default::default()
            },
        };
        sound &= report.is_sound();
        reports.push((path, report));
    }
    if as_json {
        let all: Vec<_> = reports
            .iter()
            .map(|(path, report)| {
                let damage = report.damage.iter();
                let damage = damage.map(|error| json!({"code": error.code(), "detail": error.to_string()}));
                json!({
                    "dir": path, "ok": report.is_sound(), "segments": report.segments, "rows": report.rows,
                    "dead": report.dead, "logs": report.logs, "log_records": report.log_records,
                    "last_seq": report.last_seq, "bytes": report.bytes, "torn_bytes": report.torn_bytes,
                    "strays": report.strays, "damage": damage.collect::<Vec<_>>(),
                })
            })
            .collect();
        println!("{}", serde_json::to_string(&all)?);
    } else {
        let rows = reports.iter().map(|(path, report)| {
            let damage = report.damage.iter().map(ToString::to_string);
            let damage: Vec<String> = damage.collect();
            let verdict = if damage.is_empty() {
                "ok".to_owned()
            } else {
                damage.join("; ")
            };
            vec![
                path.display().to_string(),
                report.rows.to_string(),
                report.log_records.to_string(),
                report.last_seq.to_string(),
                report.bytes.to_string(),
                verdict,
            ]
        });
        let header = [
            "collection",
            "rows",
            "log records",
            "last",
            "bytes",
            "verdict",
        ];
        output::table(&header, rows);
    }
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
