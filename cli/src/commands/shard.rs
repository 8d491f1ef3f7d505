//! `skerry shard`: look at shards, split one, move slots between two, put replicas on other nodes.

use crate::client::block_on;
use crate::output;
use crate::settings::{Settings, usage};
use anyhow::bail;
use clap::Subcommand;
use serde_json::json;
use skerry_vector_shard::admin::{Admin, Overview, ShardState};
use skerry_vector_shard::{NodeId, ShardId, SlotSet, Tls};
use std::path::Path;
use std::time::Duration;

/// How often progress is looked at, in milliseconds.
const POLL_MS: u64 = 200;
/// Looks in a row that may fail while a migration goes on.
const LOST_MAX: u32 = 50;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  skerry shard list --node 127.0.0.1:7700
  skerry shard split 0                                     half of its slots, to a new shard beside it
  skerry shard split 0 --to n4,n5,n6                       to a new shard on other nodes
  skerry shard move 0 1 --slots 0-1023,2048
  skerry shard abort 17                                    give a migration up
  skerry shard replicas 0 --to n1,n2,n4                    n4 in the place of another, while all serve
  skerry shard replicas 0 --abort                          back to the nodes of before")]
pub struct Args {
    #[command(subcommand)]
    command: ShardCommand,
    /// Any node of the cluster.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    node: Option<String>,
    /// Folder made by `skerry keys new`, where nodes speak TLS.
    #[arg(long, global = true, value_name = "DIR")]
    keys: Option<String>,
    /// What is told, as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ShardCommand {
    /// Shards, their slots, replicas and leaders, and the migration under way.
    List,
    /// Move the upper half of a shard's slots to a new shard, while both serve.
    #[command(after_help = "Examples:
  skerry shard split 0
  skerry shard split 0 --to n4,n5,n6")]
    Split {
        /// Number of the shard, as `skerry shard list` shows it.
        shard: u32,
        /// Nodes of the new shard, with commas between; those of the old one where none is named.
        #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
        to: Vec<NodeId>,
        /// Return when it has begun.
        #[arg(long)]
        no_wait: bool,
    },
    /// Move slots from one shard to another, while both serve.
    #[command(after_help = "Examples:
  skerry shard move 0 1 --slots 0-1023,2048")]
    Move {
        /// Number of the shard that has them.
        from: u32,
        /// Number of the shard that gets them.
        to: u32,
        /// Such as 0-1023,2048.
        #[arg(long, value_name = "SLOTS")]
        slots: SlotSet,
        /// Return when it has begun.
        #[arg(long)]
        no_wait: bool,
    },
    /// Give a migration up: its slots stay where they are.
    Abort {
        /// Its number, as `skerry shard list` shows it.
        migration: u64,
    },
    /// Put the replicas of a shard on other nodes, while all serve.
    #[command(after_help = "Examples:
  skerry shard replicas 0 --to n1,n2,n4
  skerry shard replicas 0 --abort")]
    Replicas {
        /// Number of the shard, as `skerry shard list` shows it.
        shard: u32,
        /// All nodes that it shall have, with commas between.
        #[arg(
            long,
            value_name = "NAME,...",
            value_delimiter = ',',
            required_unless_present = "abort"
        )]
        to: Vec<NodeId>,
        /// Give a change up that is under way: back to the nodes of before.
        #[arg(long, conflicts_with = "to")]
        abort: bool,
        /// Return when it has begun.
        #[arg(long)]
        no_wait: bool,
    },
}

pub fn run(args: &Args, settings: &Settings) -> anyhow::Result<()> {
    let node = settings.text("client.vector", args.node.clone())?;
    let node = node.strip_prefix("http://").unwrap_or(&node);
    if !node.contains(':') {
        return Err(usage(format!("{node:?} is no HOST:PORT of a node")));
    }
    let keys = settings.maybe("node.keys", args.keys.clone());
    let tls = keys.map(|dir| Tls::read(Path::new(&dir))).transpose()?;
    let admin = Admin::new(node, tls.map(|tls| tls.client));
    block_on(async {
        let (begun, no_wait) = match &args.command {
            ShardCommand::List => return list(&admin.overview().await?, args.json),
            ShardCommand::Abort { migration } => {
                let done = admin.abort(*migration).await?;
                return say(
                    args.json,
                    json!({"migration": migration, "epoch": done.epoch}),
                    || format!("migration {migration} is given up, epoch {}", done.epoch),
                );
            }
            ShardCommand::Replicas {
                shard,
                to,
                abort,
                no_wait,
            } => {
                let shard = ShardId(*shard);
                let begun = if *abort {
                    admin.put_back(shard).await?
                } else {
                    admin.replace(shard, to).await?
                };
                return replicas(&admin, shard, begun.migration, *no_wait, args.json).await;
            }
            ShardCommand::Split { shard, to, no_wait } => {
                (admin.split(ShardId(*shard), to).await?, *no_wait)
            }
            ShardCommand::Move {
                from,
                to,
                slots,
                no_wait,
            } => (
                admin
                    .move_slots(ShardId(*from), ShardId(*to), slots)
                    .await?,
                *no_wait,
            ),
        };
        let told = |epoch: u64, done: bool| {
            json!({"migration": begun.migration, "from": begun.from, "to": begun.to,
                "slots": begun.slots, "epoch": epoch, "done": done})
        };
        if no_wait {
            return say(args.json, told(begun.epoch, false), || {
                format!(
                    "migration {} has begun: {} slots from shard {} to shard {}",
                    begun.migration, begun.slots, begun.from, begun.to
                )
            });
        }
        let epoch = wait(&admin, begun.migration, ShardId(begun.to)).await?;
        say(args.json, told(epoch, true), || {
            format!(
                "{} slots are shard {}'s now, epoch {epoch}",
                begun.slots, begun.to
            )
        })
    })
}

fn say(
    as_json: bool,
    value: serde_json::Value,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    if as_json {
        println!("{value}");
    } else {
        println!("{}", text());
    }
    Ok(())
}

/// What a cluster says, with patience: the node that is asked may be the one that is restarted.
struct Watch<'a> {
    admin: &'a Admin,
    bar: indicatif::ProgressBar,
    lost: u32,
}

impl<'a> Watch<'a> {
    fn new(admin: &'a Admin) -> Self {
        Self {
            admin,
            bar: output::progress(Some(1), "starting"),
            lost: 0,
        }
    }

    async fn next(&mut self) -> anyhow::Result<Overview> {
        loop {
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
            match self.admin.overview().await {
                Ok(now) => {
                    self.lost = 0;
                    return Ok(now);
                }
                Err(error) if self.lost < LOST_MAX => {
                    self.lost += 1;
                    self.bar.set_message(format!("waiting ({})", error.code()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Shows how far a migration is, until it is over. The epoch then.
async fn wait(admin: &Admin, migration: u64, to: ShardId) -> anyhow::Result<u64> {
    let mut watch = Watch::new(admin);
    loop {
        let now = watch.next().await?;
        if now.migration.as_ref().is_none_or(|one| one.id != migration) {
            watch.bar.finish_and_clear();
            let owns = now.shards.iter().find(|shard| shard.shard == to);
            if owns.is_none_or(|shard| shard.slots.is_empty()) {
                bail!("migration {migration} was given up: the log of the nodes says why");
            }
            return Ok(now.epoch);
        }
        if let Some(moved) = now.moved {
            watch.bar.set_length(moved.copy_total.max(1));
            watch.bar.set_position(moved.copied);
            let message = format!("{}, attempt {}", moved.step, moved.attempts);
            watch.bar.set_message(message);
        }
    }
}

/// Shows how far a change of replicas is, until it is over.
async fn replicas(
    admin: &Admin,
    shard: ShardId,
    change: u64,
    no_wait: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut watch = Watch::new(admin);
    let mut wanted: Option<Vec<NodeId>> = None;
    loop {
        let now = watch.next().await?;
        let found = now.shards.iter().find(|state| state.shard == shard);
        let Some(state) = found else {
            bail!("shard {shard} is gone");
        };
        let nodes = |nodes: &[NodeId]| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>();
        match &state.placing {
            Some(placing) if placing.id == change => {
                watch.bar.set_length(placing.to.len() as u64);
                watch.bar.set_position(state.arrived() as u64);
                watch.bar.set_message(progress_of(state));
                wanted = Some(placing.to.clone());
                if no_wait {
                    let to = nodes(&placing.to);
                    let value = json!({"shard": shard.0, "change": change, "to": to, "epoch": now.epoch, "done": false});
                    return say(as_json, value, || {
                        format!("the replicas of shard {shard} go to {}", to.join(", "))
                    });
                }
            }
            Some(_) => bail!("the replicas of shard {shard} got another list meanwhile"),
            // A node that was asked may not have seen it begin.
            None if wanted.is_none() && now.epoch < change => {}
            None => {
                watch.bar.finish_and_clear();
                let has: Vec<NodeId> = state.replicas.iter().map(|one| one.node.clone()).collect();
                if wanted.is_some_and(|wanted| wanted != has) {
                    bail!(
                        "the change of shard {shard} was given up: the log of the nodes says why"
                    );
                }
                let to = nodes(&has);
                let value = json!({"shard": shard.0, "change": change, "to": to, "epoch": now.epoch, "done": true});
                return say(as_json, value, || {
                    format!(
                        "shard {shard} is on {} now, epoch {}",
                        to.join(", "),
                        now.epoch
                    )
                });
            }
        }
    }
}

/// Of a shard whose replicas change: who is in sync, and how far the others are.
fn progress_of(state: &ShardState) -> String {
    let Some(placing) = &state.placing else {
        return String::new();
    };
    let leading = state.leading();
    let head = leading.map_or(0, |stats| stats.seq);
    let one = |node: &NodeId| {
        let stats = state.replicas.iter().find(|one| one.node == *node);
        let stats = stats.and_then(|one| one.stats.as_ref());
        let in_sync =
            leading.is_some_and(|stats| stats.in_sync.iter().any(|one| one == node.as_str()));
        match stats {
            _ if in_sync => format!("{node} in sync"),
            Some(stats) => format!("{node} at {} of {head}", stats.seq),
            None => format!("{node} silent"),
        }
    };
    placing.to.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn list(overview: &Overview, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", overview.to_json());
        return Ok(());
    }
    let rows = overview.shards.iter().map(|shard| {
        let replicas = shard.replicas.iter().map(|one| match &one.stats {
            Some(stats) => format!("{} ({} at {})", one.node, stats.role, stats.seq),
            None => format!("{} (silent)", one.node),
        });
        let leading = shard.leading();
        vec![
            shard.shard.to_string(),
            format!("{} ({})", shard.slots.len(), shard.slots),
            shard
                .leader
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            leading.map_or_else(|| "-".to_owned(), |stats| stats.records.to_string()),
            leading.map_or_else(|| "-".to_owned(), |stats| stats.in_sync.join(" ")),
            replicas.collect::<Vec<_>>().join(", "),
        ]
    });
    let header = ["shard", "slots", "leader", "records", "in sync", "replicas"];
    output::table(&header, rows);
    for shard in overview.shards.iter().filter(|one| one.placing.is_some()) {
        println!(
            "the replicas of shard {} change: {}",
            shard.shard,
            progress_of(shard)
        );
    }
    if let Some(one) = &overview.migration {
        let step = overview.moved.as_ref().map_or_else(
            || "waiting for its leader".to_owned(),
            |moved| {
                format!(
                    "{}, {} of about {} records",
                    moved.step, moved.copied, moved.copy_total
                )
            },
        );
        println!(
            "migration {}: {} slots from shard {} to shard {}: {step}",
            one.id,
            one.slots.len(),
            one.from,
            one.to
        );
    }
    Ok(())
}
