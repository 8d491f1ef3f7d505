//! `skerry eval`: offline quality of the *serving* code, rung by rung.
//!
//! Every case is a request to `edge/core`, which asks the origin's pipeline (`full`), ranks by
//! itself (`edge`) or falls to the popular list: what is measured is what serves. Exploration is
//! off; rules, rights and diversity are on. Nothing touches the state of a running system.

mod host;
mod world;

use crate::data;
use crate::output;
use crate::settings::Settings;
use anyhow::ensure;
use host::{Capability, EvalHost};
use serde_json::{Value, json};
use skerry_origin_ranker::Model;
use skerry_origin_training::eval::{Case, Protocol, Report, Split, measure};
use skerry_origin_training::{Row, TrainOptions, train};
use skerry_types::{ItemId, RecentEvent, UserContext};
use std::path::PathBuf;
use world::EvalWorld;

/// Share of time that `temporal` holds out.
const TEMPORAL_SHARE: f64 = 0.1;
/// Events of a user that `edge` works from.
const EDGE_EVENTS: usize = skerry_decide::score::EDGE_HISTORY_MAX;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  skerry eval --data ml-latest-small --protocol loo
  skerry eval --data ml-latest-small --protocol temporal --json")]
pub struct Args {
    /// Folder of items and events; a seeded catalogue without it.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    #[arg(long, value_enum, default_value_t = ProtocolName::Loo)]
    protocol: ProtocolName,
    /// Items in the pool that the `edge` rung ranks; given several times, each is measured.
    #[arg(long, value_name = "ITEMS", default_values_t = [10_000, 1_000])]
    pool: Vec<usize>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ProtocolName {
    /// Each user's last positive is held out; a profile is what came before it.
    Loo,
    /// The last tenth of time is held out.
    Temporal,
}

impl ProtocolName {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Loo => "loo",
            Self::Temporal => "temporal",
        }
    }
}

struct Measured {
    rung: &'static str,
    /// Items in the pool, for `edge`.
    pool: Option<usize>,
    report: Report,
}

pub fn run(args: &Args, settings: &Settings) -> anyhow::Result<()> {
    let seed: u64 = settings.parsed("origin.seed", None)?;
    let data = data::load(
        settings
            .maybe("node.data", args.data.clone())
            .map(PathBuf::from),
        seed,
    )?;
    let protocol = match args.protocol {
        ProtocolName::Loo => Protocol::Loo { back: 0 },
        ProtocolName::Temporal => Protocol::Temporal {
            share: TEMPORAL_SHARE,
        },
    };
    let split = protocol.split(&data.interactions);
    ensure!(!split.cases.is_empty(), "nobody has an event to hold out");
    let bar = output::progress(Some(100), "training");
    let options = TrainOptions {
        seed,
        ..TrainOptions::default()
    };
    let model = train(&split.train, &options, &|stage, share| {
        bar.set_message(stage.as_str());
        bar.set_position((share * 100.0) as u64);
    })?;
    bar.finish_and_clear();
    let mut rows = measured(&split, model, &data.items, &args.pool, seed)?;
    rows.sort_by(|a, b| b.report.ndcg_at_10.total_cmp(&a.report.ndcg_at_10));
    print(args, &split, &data, &rows);
    Ok(())
}

fn measured(
    split: &Split,
    model: Model,
    items: &[skerry_types::Item],
    pools: &[usize],
    seed: u64,
) -> anyhow::Result<Vec<Measured>> {
    let ids: Vec<ItemId> = split
        .train
        .items()
        .iter()
        .map(|(id, _)| id.clone())
        .collect();
    let rows = split.train.rows();
    let users = split.train.histories().into_iter().map(|history| {
        let rows: Vec<Row> = history.iter().map(|at| rows[*at as usize]).collect();
        known(&rows, &[], &ids, skerry_types::context::RECENT_MAX)
    });
    let world = EvalWorld::new(model, items, users.collect());
    let mut rungs = vec![("full", None, Capability::Origin)];
    rungs.extend(
        pools
            .iter()
            .map(|pool| ("edge", Some(*pool), Capability::Pool(*pool))),
    );
    rungs.push(("popular", None, Capability::Popular));
    let mut measured = Vec::new();
    for (rung, pool, capability) in rungs {
        let bar = output::progress(Some(split.cases.len() as u64), rung);
        let mut host = EvalHost::new(&world, capability)?;
        let mut lists = Vec::with_capacity(split.cases.len());
        for case in &split.cases {
            let context = context(case, &ids, capability);
            let list = host.recommend(case.user, context, rung)?;
            lists.push(list.iter().filter_map(|id| world.row(id)).collect());
            bar.inc(1);
        }
        bar.finish_and_clear();
        measured.push(Measured {
            rung,
            pool,
            report: measure(&split.cases, &lists, ids.len(), seed),
        });
    }
    Ok(measured)
}

/// What is known of a case's user where the answer is made.
fn context(case: &Case, ids: &[ItemId], capability: Capability) -> UserContext {
    let last = match capability {
        Capability::Pool(_) => EDGE_EVENTS,
        Capability::Origin | Capability::Popular => skerry_types::context::RECENT_MAX,
    };
    known(&case.history, &case.excluded, ids, last)
}

/// A context of the `last` of these rows, oldest first, that leaves out the items of `seen`.
fn known(rows: &[Row], seen: &[u32], ids: &[ItemId], last: usize) -> UserContext {
    let from = rows.len().saturating_sub(last);
    let recent = rows[from..]
        .iter()
        .enumerate()
        .map(|(at, row)| RecentEvent {
            id: data::event_id(at),
            item: ids[row.item as usize].clone(),
            kind: data::kind(row),
            value: row.value,
            at_ms: row.at_ms,
            accepted_ms: row.at_ms,
        });
    let mut seen: Vec<_> = seen.iter().map(|item| ids[*item as usize].hash()).collect();
    seen.sort_unstable();
    UserContext {
        recent: recent.collect(),
        seen,
        vector: Vec::new(),
        as_of_ms: host::NOW,
    }
}

fn print(args: &Args, split: &Split, data: &data::Data, rows: &[Measured]) {
    let users = split.cases.len();
    let items = data.interactions.items().len();
    if args.json {
        let results: Vec<Value> = rows.iter().map(to_json).collect();
        println!(
            "{}",
            json!({"protocol": args.protocol.as_str(), "users": users, "items": items, "results": results})
        );
        return;
    }
    let table = rows.iter().map(|row| {
        let Report {
            ndcg_at_10,
            hr_at_10,
            coverage,
            interval,
            ..
        } = row.report;
        vec![
            row.rung.to_owned(),
            row.pool.map(|pool| pool.to_string()).unwrap_or_default(),
            format!("{ndcg_at_10:.4}"),
            format!("{:.4} to {:.4}", interval.0, interval.1),
            format!("{hr_at_10:.3}"),
            format!("{coverage:.3}"),
        ]
    });
    output::table(
        &[
            "rung",
            "pool",
            "NDCG@10",
            "95 % of resamples",
            "HR@10",
            "coverage",
        ],
        table,
    );
    println!(
        "protocol {}, {users} users, {items} items",
        args.protocol.as_str()
    );
}

fn to_json(row: &Measured) -> Value {
    let Report {
        ndcg_at_10,
        hr_at_10,
        coverage,
        interval,
        ..
    } = row.report;
    let mut result = json!({"rung": row.rung, "ndcg_at_10": ndcg_at_10, "hr_at_10": hr_at_10, "coverage": coverage,
        "interval": [interval.0, interval.1]});
    if let Some(pool) = row.pool {
        result["pool"] = json!(pool);
    }
    result
}
