//! Ours and its peers on one data set: built one after another, then asked in alternating rounds.

use crate::dataset::DataSet;
use crate::engine::Worker;
use crate::ours;
use crate::prepare::Prepared;
use crate::protocol::Built;
use crate::sweep::{self, Around, Point};
use skerry_bench_report::{Row, median};
use std::process::Command;

/// Recalls at which speed is compared.
pub const RECALLS: [f64; 2] = [0.95, 0.99];
/// The hot bytes a vector of 384 dimensions may take.
const HOT_BYTES_MAX: f64 = 560.0;
const HOT_BYTES_DIM: usize = 384;

const OURS: &str = "ours";

#[derive(Clone, Copy)]
pub struct Plan {
    pub sets: &'static [&'static str],
    pub peers: &'static [&'static str],
    pub queries: usize,
    pub rounds: usize,
}

pub const FULL: Plan = Plan {
    sets: &["ml", "s1"],
    peers: &["hnswlib", "faiss", "usearch", "hnsw_rs"],
    queries: 1_000,
    rounds: 5,
};

pub const QUICK: Plan = Plan {
    sets: &["ml"],
    peers: &["hnswlib"],
    queries: 300,
    rounds: 3,
};

/// What the ratio to a peer should be, where a target is set.
fn target(what: &str, set: &DataSet, peer: &str) -> Option<f64> {
    match (what, peer) {
        ("qps@0.95", "hnswlib") if set.name == "ml" => Some(3.0),
        ("qps@0.99", "hnswlib") if set.name == "ml" => Some(3.5),
        ("qps@0.99", "faiss") => Some(3.0),
        ("qps@0.99", "usearch") => Some(4.0),
        ("qps@0.99", "hnsw_rs") => Some(10.0),
        ("build", "hnswlib") => Some(if set.dim <= 128 { 2.0 } else { 3.0 }),
        ("build", "hnsw_rs") => Some(10.0),
        _ => None,
    }
}

/// One engine, built, and what was measured of it.
struct Run {
    worker: Worker,
    built: Built,
    sweep: Vec<Point>,
    /// For each round, the points around the wanted recalls.
    rounds: Vec<Vec<Point>>,
}

impl Run {
    fn name(&self) -> &'static str {
        self.worker.name
    }

    /// Queries a second at a recall, of each round; empty where the recall is not reached.
    fn speeds(&self, recall: f64) -> Vec<f64> {
        self.rounds
            .iter()
            .filter_map(|points| sweep::at_recall(points, recall))
            .collect()
    }
}

pub fn start(engine: &'static str, prepared: &Prepared) -> anyhow::Result<Worker> {
    let mut command = if matches!(engine, OURS | "hnsw_rs") {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker");
        command
    } else {
        let mut command = Command::new(&prepared.python);
        command.arg(&prepared.worker);
        command
    };
    Worker::start(engine, command.arg(engine))
}

/// Rows of one data set.
pub fn run(
    set: &DataSet,
    prepared: &Prepared,
    plan: Plan,
    peers: &[&'static str],
) -> anyhow::Result<Vec<Row>> {
    let highest = RECALLS.iter().copied().fold(0.0, f64::max);
    let mut runs = Vec::new();
    for engine in std::iter::once(&OURS).chain(peers) {
        let mut worker = start(engine, prepared)?;
        worker.load(set)?;
        eprintln!("   {}: {engine} builds ...", set.name);
        let built = worker.build()?;
        let sweep = worker.sweep(set, plan.queries, highest)?;
        let run = Run {
            worker,
            built,
            sweep,
            rounds: Vec::new(),
        };
        tell(set, &run);
        runs.push(run);
    }
    for round in 0..plan.rounds {
        eprintln!("   {}: round {} of {}", set.name, round + 1, plan.rounds);
        for run in &mut runs {
            let places = sweep::to_measure(&run.sweep, &RECALLS);
            let points: anyhow::Result<Vec<Point>> = places
                .iter()
                .map(|place| {
                    let seen = run.sweep[*place];
                    run.worker
                        .measure(set, seen.ef, plan.queries, Some(seen.per_second))
                })
                .collect();
            run.rounds.push(points?);
        }
    }
    for run in &runs {
        let speed = |recall| match run.speeds(recall) {
            none if none.is_empty() => format!("never at recall {recall}"),
            speeds => format!("{:.0}/s at recall {recall}", median(&speeds)),
        };
        let speeds: Vec<String> = RECALLS.into_iter().map(speed).collect();
        eprintln!("   {}: {} {}", set.name, run.name(), speeds.join(", "));
    }
    Ok(rows(set, &runs))
}

fn tell(set: &DataSet, run: &Run) {
    let per_vector = |bytes: f64| bytes / set.rows() as f64;
    let resident = run.built.resident_bytes.map_or_else(
        || "unknown".to_owned(),
        |bytes| format!("{:.0}", per_vector(bytes as f64)),
    );
    let hot = run.built.hot_bytes.map_or_else(String::new, |bytes| {
        format!(", {:.0} of them hot", per_vector(bytes as f64))
    });
    eprintln!(
        "   {}: {} built in {:.1} s, {resident} bytes a vector resident{hot}",
        set.name,
        run.name(),
        run.built.cpu_s
    );
    for point in &run.sweep {
        eprintln!(
            "      ef {:4}  recall {:.4}  {:.0}/s",
            point.ef, point.recall, point.per_second
        );
    }
    for recall in RECALLS {
        match sweep::around(&run.sweep, recall) {
            Around::Above(at) => eprintln!(
                "      its lowest recall, {:.4}, is above {recall}: its fastest point counts there",
                run.sweep[at].recall
            ),
            Around::Unreached => eprintln!("      recall {recall} is not reached"),
            Around::Between(..) => {}
        }
    }
}

fn rows(set: &DataSet, runs: &[Run]) -> Vec<Row> {
    let Some((ours, peers)) = runs.split_first() else {
        return Vec::new();
    };
    let name = |what: &str| format!("vector.{}.{what}", set.name);
    let mut rows = Vec::new();
    let mut compared = |what: &str, value: f64, unit, peer: &Run, ratios: &[f64]| {
        let row = Row::new(name(what), value, unit);
        let ratio = median(ratios);
        let row = match target(what, set, peer.name()) {
            Some(target) => row.against(peer.name(), ratio, target),
            None => row.beside(peer.name(), ratio),
        };
        rows.push(if ratios.len() > 1 {
            row.spread(ratios)
        } else {
            row
        });
    };
    for recall in RECALLS {
        let mine = ours.speeds(recall);
        for peer in peers {
            let theirs = peer.speeds(recall);
            if theirs.is_empty() {
                eprintln!("   no row: {} never reaches recall {recall}", peer.name());
                continue;
            }
            // Not reached by ours is a ratio of 0, not a row that is not there.
            let ratios: Vec<f64> = mine.iter().zip(&theirs).map(|(a, b)| a / b).collect();
            let what = format!("qps@{recall}");
            compared(&what, median(&mine), "queries/s", peer, &ratios);
        }
    }
    for peer in peers {
        let ratio = peer.built.cpu_s / ours.built.cpu_s;
        compared("build", ours.built.cpu_s, "s", peer, &[ratio]);
    }
    let each = |bytes: f64| bytes / set.rows() as f64;
    if let Some(hot) = ours.built.hot_bytes.map(|hot| each(hot as f64)) {
        let row = Row::new(name("bytes"), hot, "bytes/vector");
        rows.push(match set.dim {
            HOT_BYTES_DIM => row.within(HOT_BYTES_MAX),
            _ => row,
        });
        for peer in peers {
            if let Some(theirs) = peer.built.resident_bytes {
                let row = Row::new(name("bytes"), hot, "bytes/vector");
                rows.push(row.beside(peer.name(), each(theirs as f64) / hot));
            }
        }
    }
    if let Some(resident) = ours.built.resident_bytes {
        rows.push(Row::new(
            name("resident"),
            each(resident as f64),
            "bytes/vector",
        ));
    }
    rows
}

/// Which instructions the kernels used: the figures of one machine are not those of another.
pub fn kernel() -> Row {
    eprintln!("   kernels: {}", ours::kernel_name());
    Row::new("vector.kernel", 1.0, ours::kernel_name())
}
