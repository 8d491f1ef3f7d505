//! `skerry vector snapshot`, `snapshots`, `prune`, `restore`: copies of a node in a folder or an
//! object store, and the way back.

use crate::output;
use crate::roles;
use crate::settings::{Settings, usage};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use skerry_vector_backup::{Manifest, Progress, SnapshotId, Snapshots, Stamp};
use skerry_vector_shard::admin::Admin;
use skerry_vector_shard::wire::grpc::BackupDone;
use skerry_vector_shard::{Error, NodeId, Tls, backup};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(
    override_usage = "skerry vector snapshot (--node HOST:PORT | DIR) URL [OPTIONS]",
    after_help = "Examples:
  skerry vector snapshot --node 127.0.0.1:7700 s3://backups/items --keep 7
  skerry vector snapshot --node 127.0.0.1:7700 /mnt/backups/items
  skerry vector snapshot vectors/ file:///mnt/backups/items    of a node that is down

A running node sends by itself: what a URL means, and the credentials (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL ...), are the node's. Segments that an earlier
snapshot there has are not sent again. S3 needs a binary of `cargo xtask build --features s3`."
)]
pub struct Snapshot {
    /// Folder of a node that is down, unless --node is given; and where to: a folder, file:///folder
    /// or s3://bucket/prefix.
    #[arg(value_names = ["DIR", "URL"], num_args = 1..=2, required = true)]
    what: Vec<String>,
    /// A running node, which takes the snapshot itself.
    #[arg(long, value_name = "HOST:PORT")]
    node: Option<String>,
    /// Folder made by `skerry keys new`, where nodes speak TLS.
    #[arg(long, value_name = "DIR")]
    keys: Option<String>,
    /// Name of the node that is down, as tables have it.
    #[arg(long, value_name = "NAME", conflicts_with = "node")]
    node_id: Option<String>,
    /// Keep the last N snapshots of this node then; older ones go.
    #[arg(long, value_name = "N")]
    keep: Option<NonZeroU32>,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  skerry vector snapshots s3://backups/items")]
pub struct List {
    /// A folder, file:///folder or s3://bucket/prefix.
    url: String,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  skerry vector prune s3://backups/items --keep 7")]
pub struct Prune {
    /// A folder, file:///folder or s3://bucket/prefix.
    url: String,
    /// Keep the last N snapshots of each node, and what they need.
    #[arg(long, value_name = "N")]
    keep: NonZeroU32,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  skerry vector restore s3://backups/items vectors/
  skerry vector restore /mnt/backups/items vectors/ --snapshot 20261129T153630Z-1a2b3c4d

Then `skerry vector --dir vectors/`, with the flags that this command prints.")]
pub struct Restore {
    /// A folder, file:///folder or s3://bucket/prefix.
    url: String,
    /// Where to; missing or empty.
    dir: PathBuf,
    /// Which one; the last without it.
    #[arg(long, value_name = "ID")]
    snapshot: Option<SnapshotId>,
    /// Name of the node that the folder is for; that of the snapshot without it.
    #[arg(long, value_name = "NAME")]
    node_id: Option<NodeId>,
    #[arg(long)]
    json: bool,
}

/// What a snapshot is, for people and for machines.
struct Taken {
    id: String,
    node: String,
    bytes: u64,
    sent: u64,
    records: u64,
    shards: Vec<Value>,
    pruned: Vec<String>,
}

pub fn snapshot(args: &Snapshot, settings: &Settings) -> anyhow::Result<ExitCode> {
    let taken = match (args.node.as_deref(), args.what.as_slice()) {
        (Some(node), [url]) => ask(args, node, url, settings)?,
        (None, [dir, url]) => by_folder(args, Path::new(dir), url, settings)?,
        (Some(_), _) => return Err(usage("with --node there is one URL, and no folder")),
        (None, _) => return Err(usage("give the folder of a node that is down, or --node")),
    };
    if args.json {
        println!(
            "{}",
            json!({"snapshot": taken.id, "node": taken.node, "bytes": taken.bytes, "bytes_sent": taken.sent,
                "records": taken.records, "shards": taken.shards, "pruned": taken.pruned})
        );
    } else {
        println!(
            "{}: {} records of {} in {}, {} of them sent{}",
            taken.id,
            taken.records,
            taken.node,
            size(taken.bytes),
            size(taken.sent),
            match taken.pruned.len() {
                0 => String::new(),
                count => format!("; {count} older ones are gone"),
            }
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(args: &Snapshot, node: &str, url: &str, settings: &Settings) -> anyhow::Result<Taken> {
    let node = node.strip_prefix("http://").unwrap_or(node);
    if !node.contains(':') {
        return Err(usage(format!("{node:?} is no HOST:PORT of a node")));
    }
    let keys = settings.maybe("node.keys", args.keys.clone());
    let tls = keys.map(|dir| Tls::read(Path::new(&dir))).transpose()?;
    let admin = Admin::new(node, tls.map(|tls| tls.client));
    // The node's working folder is another one.
    let url = match url.contains("://") {
        true => url.to_owned(),
        false => std::path::absolute(url)?.display().to_string(),
    };
    let keep = args.keep.map_or(0, NonZeroU32::get);
    let bar = output::progress(Some(1), "keeping");
    let mut sent = 0;
    let done = roles::runtime()?.block_on(admin.backup(&url, keep, &mut |reply| {
        sent = reply.bytes_moved;
        show(&bar, reply.bytes_done, reply.bytes_total, sent);
    }));
    bar.finish_and_clear();
    let BackupDone {
        snapshot,
        node,
        shards,
        pruned,
    } = done.map_err(told)?;
    let each = shards.iter().map(|one| {
        json!({"shard": one.shard, "seq": one.seq, "records": one.records, "bytes": one.bytes})
    });
    Ok(Taken {
        id: snapshot,
        node,
        bytes: shards.iter().map(|one| one.bytes).sum(),
        sent,
        records: shards.iter().map(|one| one.records).sum(),
        shards: each.collect(),
        pruned,
    })
}

fn by_folder(args: &Snapshot, dir: &Path, url: &str, settings: &Settings) -> anyhow::Result<Taken> {
    let node = settings.text("vector.node", args.node_id.clone())?;
    let node: NodeId = node.parse().map_err(|error| usage(format!("{error}")))?;
    let snapshots = Snapshots::open_or_make(url).map_err(told)?;
    let keep = args.keep.and_then(|keep| usize::try_from(keep.get()).ok());
    let keep = keep.and_then(std::num::NonZeroUsize::new);
    let bar = output::progress(Some(1), "keeping");
    let last = std::sync::Mutex::new(0);
    let progress = |now: &Progress| {
        if let Ok(mut last) = last.lock() {
            *last = now.bytes_moved;
        }
        show(&bar, now.bytes_done, now.bytes_total, now.bytes_moved);
    };
    let taken = roles::runtime()?.block_on(async {
        let stop = roles::stop_on_signal()?;
        let taken = backup::take_stopped(dir, &node, &snapshots, keep, &stop, &progress).await;
        taken.map_err(told)
    });
    bar.finish_and_clear();
    let taken = taken?;
    Ok(Taken {
        id: taken.id.to_string(),
        node: taken.manifest.node.to_string(),
        bytes: taken.manifest.bytes(),
        sent: last.into_inner().unwrap_or_default(),
        records: taken.manifest.rows(),
        shards: parts(&taken.manifest),
        pruned: taken
            .pruned
            .snapshots
            .iter()
            .map(ToString::to_string)
            .collect(),
    })
}

fn parts(manifest: &Manifest) -> Vec<Value> {
    let parts = manifest.parts.iter().map(|part| {
        let shard = part
            .name
            .rsplit('-')
            .next()
            .and_then(|number| number.parse::<u32>().ok());
        json!({"shard": shard, "seq": part.seq, "records": part.rows, "bytes": part.bytes()})
    });
    parts.collect()
}

pub fn list(args: &List) -> anyhow::Result<ExitCode> {
    let snapshots = Snapshots::open(&args.url).map_err(told)?;
    let all = roles::runtime()?.block_on(snapshots.list()).map_err(told)?;
    let sound = all.iter().all(|one| one.manifest.is_ok());
    if args.json {
        let all = all.iter().map(|one| match &one.manifest {
            Ok(it) => json!({"snapshot": one.id.as_str(), "ok": true, "node": it.node, "made_ms": it.made_ms,
                "bytes": it.bytes(), "records": it.rows(), "flags": it.kind.to_string(), "shards": parts(it)}),
            Err(error) => json!({"snapshot": one.id.as_str(), "ok": false,
                "code": error.code(), "detail": error.to_string()}),
        });
        println!("{}", Value::from_iter(all));
    } else {
        let rows = all.iter().map(|one| match &one.manifest {
            Ok(it) => vec![
                one.id.to_string(),
                it.node.to_string(),
                it.parts.len().to_string(),
                it.rows().to_string(),
                size(it.bytes()),
                "ok".to_owned(),
            ],
            Err(error) => {
                let empty = ["-", "-", "-", "-"].map(str::to_owned);
                let text = format!("{error} [{}]", error.code());
                std::iter::once(one.id.to_string())
                    .chain(empty)
                    .chain([text])
                    .collect()
            }
        });
        let header = ["snapshot", "node", "shards", "records", "size", "verdict"];
        output::table(&header, rows);
    }
    Ok(ExitCode::from(u8::from(!sound)))
}

pub fn prune(args: &Prune) -> anyhow::Result<ExitCode> {
    let snapshots = Snapshots::open(&args.url).map_err(told)?;
    let keep = usize::try_from(args.keep.get()).map_or(std::num::NonZeroUsize::MAX, |keep| {
        std::num::NonZeroUsize::new(keep).unwrap_or(std::num::NonZeroUsize::MIN)
    });
    let pruned = roles::runtime()?.block_on(snapshots.prune(keep, Stamp::now()));
    let pruned = pruned.map_err(told)?;
    if args.json {
        let gone: Vec<&str> = pruned.snapshots.iter().map(SnapshotId::as_str).collect();
        println!(
            "{}",
            json!({"pruned": gone, "objects": pruned.objects, "bytes": pruned.bytes})
        );
    } else {
        println!(
            "{} snapshots are gone, and {} that nothing needs any more",
            pruned.snapshots.len(),
            size(pruned.bytes)
        );
    }
    Ok(ExitCode::SUCCESS)
}

pub fn restore(args: &Restore) -> anyhow::Result<ExitCode> {
    let snapshots = Snapshots::open(&args.url).map_err(told)?;
    let bar = output::progress(Some(1), "restoring");
    let progress = |now: &Progress| show(&bar, now.bytes_done, now.bytes_total, now.bytes_moved);
    let done = roles::runtime()?.block_on(async {
        let stop = roles::stop_on_signal()?;
        let (id, node) = (args.snapshot.as_ref(), args.node_id.clone());
        let done = backup::restore(&snapshots, id, &args.dir, node, &stop, &progress).await;
        done.map_err(told)
    });
    bar.finish_and_clear();
    let done = done?;
    let missing: Vec<u32> = done.missing.iter().map(|shard| shard.0).collect();
    if args.json {
        let shards = done.shards.iter().map(|(shard, part)| {
            json!({"shard": shard.0, "seq": part.seq, "records": part.rows, "bytes": part.bytes()})
        });
        println!(
            "{}",
            json!({"snapshot": done.id.as_str(), "node": done.node.as_str(), "dir": args.dir,
                "flags": done.kind.to_string(), "shards": shards.collect::<Vec<_>>(), "missing": missing})
        );
        return Ok(ExitCode::SUCCESS);
    }
    let records: u64 = done.shards.iter().map(|(_, part)| part.rows).sum();
    println!(
        "{}: {records} records of {} shards",
        done.id,
        done.shards.len()
    );
    if missing.is_empty() {
        println!(
            "skerry vector --dir {} --node-id {} {}",
            args.dir.display(),
            done.node,
            done.kind
        );
    } else {
        println!(
            "shards {missing:?} are not in it: the folder serves as node {} of a cluster, not alone",
            done.node
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn show(bar: &ProgressBar, done: u64, total: u64, moved: u64) {
    bar.set_length(total.max(1));
    bar.set_position(done);
    bar.set_message(size(moved));
}

fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// With its code; as a mistake of the user's where it is one.
fn told(error: impl Into<Error>) -> anyhow::Error {
    let error = error.into();
    let text = format!("{error} [{}]", error.code());
    match error.is_callers() {
        true => usage(text),
        false => anyhow::Error::msg(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Snapshot,
    }

    fn code_of(words: &[&str]) -> Option<&'static str> {
        let line = Line::try_parse_from([&["x"], words].concat()).ok()?;
        let settings = Settings::load(None, std::iter::empty()).unwrap();
        let error = snapshot(&line.args, &settings).unwrap_err();
        let usage = error.is::<crate::settings::UsageError>();
        Some(if usage { "usage" } else { "failed" })
    }

    #[test]
    fn a_snapshot_is_of_a_node_or_of_a_folder() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().display().to_string();
        for (words, want) in [
            (&[] as &[&str], None),
            (&["--node", "127.0.0.1:1"], None),
            (&["a", "b", "c"], None),
            (&["a", "b", "--keep", "0"], None),
            (&["a", "b", "--node", "127.0.0.1:1"], Some("usage")),
            (&["a"], Some("usage")),
            (&["--node", "here", "b"], Some("usage")),
            (&["a", "ftp://b"], Some("usage")),
            (&[&at, "s3://bucket/x", "--node-id", "A B"], Some("usage")),
            (&["--node", "127.0.0.1:1", "b"], Some("failed")),
        ] {
            assert_eq!(code_of(words), want, "{words:?}");
        }
    }
}
