//! `--scale`: one large durable collection, and hnswlib on the same vectors.
//!
//! Both are built with the same number of threads. What is made once (vectors, exact neighbours,
//! hnswlib's index with what its build took) is kept in the cache folder, and an interrupted run goes
//! on from there; our collection is built anew every time.
//!
//! Speeds on one thread are by CPU time, those on several by the clock, as the median of alternating
//! rounds.

mod collection;
mod files;
mod world;

use crate::compare::{RECALLS, start};
use crate::engine::Worker;
use crate::ours::CodeKind;
use crate::prepare::Prepared;
use crate::protocol::{Built, Loaded, Request, Searched};
use crate::sweep::{self, Point};
use anyhow::ensure;
use collection::Ours;
use files::{Files, NEAREST, Size};
use skerry_bench_report::{Row, median};
use std::path::Path;

/// What a measurement of speed should take at least, in seconds, and repeat at most.
const MEASURE_S: f64 = 0.25;
const REPEAT_MAX: usize = 50;
/// What ratios to hnswlib should be, as on the smaller sets.
const BUILD_TARGET: f64 = 3.0;
const QPS_TARGETS: [f64; 2] = [3.0, 3.5];
/// Closing takes no longer, whatever is at work, in milliseconds.
const CLOSE_MS_MAX: f64 = 1_000.0;
/// Upserts a second that searches must live with.
const UPSERTS_PER_S: f64 = 1_000.0;

pub struct Plan {
    size: Size,
    threads: usize,
    rounds: usize,
    /// How long searches are measured beside upserts: at a million rows long enough for seals and a
    /// compaction.
    upserts_s: f64,
    /// How long a compaction has been at work when the collection is closed.
    close_after_s: &'static [f64],
    /// Build a second collection, with a bit a component, and compare it with the first.
    bits: bool,
}

impl Plan {
    pub fn new(rows: usize, dim: usize, threads: usize, bits: bool) -> anyhow::Result<Self> {
        ensure!(
            (1_000..=1 << 20).contains(&rows) && (8..=4_096).contains(&dim) && threads > 0,
            "at least 1,000 and at most 1,048,576 rows of 8 to 4,096 dimensions, and a thread"
        );
        let is_large = rows >= 200_000;
        Ok(Self {
            size: Size {
                rows,
                dim,
                queries: if is_large { 400 } else { 500 },
            },
            threads,
            rounds: 5,
            bits,
            upserts_s: if is_large { 90.0 } else { 20.0 },
            close_after_s: if is_large { &[5.0, 60.0] } else { &[0.5, 2.0] },
        })
    }
}

/// What one pass over the queries took and found.
struct Pass {
    cpu_s: f64,
    wall_s: f64,
    rows: Vec<u32>,
}

/// Who is asked.
trait Side {
    fn name(&self) -> &'static str;

    /// All queries `repeat` times, spread over the threads.
    fn pass(
        &mut self,
        files: &Files,
        ef: usize,
        threads: usize,
        repeat: usize,
    ) -> anyhow::Result<Pass>;

    fn measure(
        &mut self,
        files: &Files,
        ef: usize,
        threads: usize,
        guess: Option<f64>,
    ) -> anyhow::Result<Point> {
        let queries = files.size.queries;
        let repeat = guess.map_or(1, |per_second| {
            (MEASURE_S * per_second / queries as f64).ceil().max(1.0) as usize
        });
        let pass = self.pass(files, ef, threads, repeat.min(REPEAT_MAX))?;
        ensure!(
            pass.rows.len() == queries * NEAREST,
            "{}: {} rows for {queries} queries",
            self.name(),
            pass.rows.len()
        );
        let took_s = if threads == 1 {
            pass.cpu_s
        } else {
            pass.wall_s
        };
        Ok(Point {
            ef,
            recall: sweep::recall(&pass.rows, &files.truth, NEAREST),
            per_second: queries as f64 / took_s.max(1e-9),
        })
    }
}

struct Peer {
    worker: Worker,
    built: Built,
}

impl Peer {
    fn build(files: &Files, prepared: &Prepared, threads: usize) -> anyhow::Result<Self> {
        let mut worker = start("hnswlib", prepared)?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let loaded: Loaded = worker.ask(&Request::Load {
            base: text(&files.base_path),
            queries: text(&files.queries_path),
            dim: files.size.dim,
            mapped: true,
        })?;
        ensure!(loaded.rows == files.size.rows, "{} rows", loaded.rows);
        eprintln!("== hnswlib builds, or is read where it was built before");
        let built: Built = worker.ask(&Request::Build {
            threads,
            index: Some(text(&files.index_path)),
        })?;
        Ok(Self { worker, built })
    }
}

impl Side for Peer {
    fn name(&self) -> &'static str {
        "hnswlib"
    }

    fn pass(
        &mut self,
        files: &Files,
        ef: usize,
        threads: usize,
        repeat: usize,
    ) -> anyhow::Result<Pass> {
        let found: Searched = self.worker.ask(&Request::Search {
            ef,
            k: NEAREST,
            queries: files.size.queries,
            repeat,
            threads,
        })?;
        Ok(Pass {
            cpu_s: found.cpu_s,
            wall_s: found.wall_s,
            rows: found.rows,
        })
    }
}

/// What was measured of one side.
struct Speeds {
    sweep: Vec<Point>,
    /// For one thread and for several, for each round, the points around the wanted recalls.
    rounds: [Vec<Vec<Point>>; 2],
}

impl Speeds {
    fn sweep(side: &mut dyn Side, files: &Files) -> anyhow::Result<Self> {
        let mut points = Vec::new();
        for ef in sweep::EFS {
            let point = side.measure(files, *ef, 1, None)?;
            eprintln!(
                "      {}: ef {ef:4}  recall {:.4}  {:.0}/s",
                side.name(),
                point.recall,
                point.per_second
            );
            points.push(point);
            if RECALLS.iter().all(|wanted| point.recall >= *wanted) {
                break;
            }
        }
        Ok(Self {
            sweep: points,
            rounds: [Vec::new(), Vec::new()],
        })
    }

    fn round(&mut self, side: &mut dyn Side, files: &Files, threads: usize) -> anyhow::Result<()> {
        for (of, threads) in self.rounds.iter_mut().zip([1, threads]) {
            let places = sweep::to_measure(&self.sweep, &RECALLS);
            let points = places.iter().map(|place| {
                let seen = self.sweep[*place];
                side.measure(files, seen.ef, threads, Some(seen.per_second))
            });
            of.push(points.collect::<anyhow::Result<_>>()?);
        }
        Ok(())
    }

    fn at(&self, several: bool, recall: f64) -> Vec<f64> {
        let rounds = self.rounds[usize::from(several)].iter();
        rounds
            .filter_map(|points| sweep::at_recall(points, recall))
            .collect()
    }

    /// The fewest candidates with which a recall is reached; else the most that were tried.
    fn ef(&self, recall: f64) -> usize {
        let reached = self.sweep.iter().find(|point| point.recall >= recall);
        reached.or(self.sweep.last()).map_or(64, |point| point.ef)
    }
}

fn named(what: &str) -> String {
    format!("vector.scale.{what}")
}

pub fn run(folder: &Path, plan: &Plan, peer: Option<&Prepared>) -> anyhow::Result<Vec<Row>> {
    let (size, threads) = (plan.size, plan.threads);
    let files = Files::prepare(folder, size, threads)?;
    let mut rows = vec![
        Row::new(named("rows"), size.rows as f64, "vectors"),
        Row::new(named("dim"), size.dim as f64, ""),
        Row::new(named("dimension.two-nn"), files.dimension.two_nn, ""),
        Row::new(
            named("dimension.levina-bickel"),
            files.dimension.by_likelihood,
            "",
        ),
    ];
    let mut peer = match peer {
        Some(prepared) => Some(Peer::build(&files, prepared, threads)?),
        None => None,
    };
    let place = folder.join("scale-collection");
    let (ours, load) = Ours::load(&place, &files, threads, CodeKind::Bytes)?;
    let (mut ours, built) = ours.build(&place)?;
    let place_of_bits = folder.join("scale-collection-bits");
    let mut bits = match plan.bits {
        true => {
            let (bits, _) = Ours::load(&place_of_bits, &files, threads, CodeKind::Bits)?;
            Some(bits.build(&place_of_bits)?)
        }
        false => None,
    };
    let compared = |what: &str, value: f64, unit, theirs: Option<f64>, target: Option<f64>| {
        let row = Row::new(named(what), value, unit);
        match (theirs, target) {
            (Some(theirs), Some(target)) => row.against("hnswlib", theirs / value, target),
            (Some(theirs), None) => row.beside("hnswlib", theirs / value),
            _ => row,
        }
    };
    let of_peer = peer.as_ref().map(|peer| &peer.built);
    let each = |bytes: f64| bytes / size.rows as f64;
    let wall_s = of_peer.and_then(|built| built.wall_s);
    let file = of_peer.and_then(|built| built.file_bytes);
    let resident = of_peer.and_then(|built| built.resident_bytes);
    let resident = resident.map(|bytes| each(bytes as f64));
    rows.extend([
        Row::new(named("load"), load, "upserts/s"),
        compared("build", built.wall_s, "s", wall_s, Some(BUILD_TARGET)),
        compared(
            "build.cpu",
            built.cpu_s,
            "s",
            of_peer.map(|built| built.cpu_s),
            None,
        ),
        compared(
            "bytes.hot",
            each(built.hot_bytes),
            "bytes/vector",
            resident,
            None,
        ),
        compared(
            "bytes.disk",
            each(built.disk_bytes),
            "bytes/vector",
            file.map(|bytes| each(bytes as f64)),
            None,
        ),
    ]);
    rows.extend(
        built
            .memory_bytes
            .map(|bytes| Row::new(named("build.memory"), each(bytes), "bytes/vector")),
    );

    eprintln!("== searches, alternating");
    let mut mine = Speeds::sweep(&mut ours, &files)?;
    let mut theirs = match &mut peer {
        Some(peer) => Some(Speeds::sweep(peer, &files)?),
        None => None,
    };
    let mut of_bits = match &mut bits {
        Some((bits, _)) => Some(Speeds::sweep(bits, &files)?),
        None => None,
    };
    for round in 0..plan.rounds {
        eprintln!("   round {} of {}", round + 1, plan.rounds);
        mine.round(&mut ours, &files, threads)?;
        if let (Some(theirs), Some(peer)) = (&mut theirs, &mut peer) {
            theirs.round(peer, &files, threads)?;
        }
        if let (Some(of_bits), Some((bits, _))) = (&mut of_bits, &mut bits) {
            of_bits.round(bits, &files, threads)?;
        }
    }
    drop(peer);
    for several in [false, true] {
        for (recall, target) in RECALLS.into_iter().zip(QPS_TARGETS) {
            let speeds = mine.at(several, recall);
            let name = if several {
                named(&format!("{threads}threads.qps@{recall}"))
            } else {
                named(&format!("qps@{recall}"))
            };
            let row = Row::new(name, median(&speeds), "queries/s");
            let peers = theirs.as_ref().map(|theirs| theirs.at(several, recall));
            rows.push(match peers.filter(|peers| !peers.is_empty()) {
                Some(peers) => {
                    // Not reached by ours is a ratio of 0.
                    let ratios = speeds.iter().zip(&peers).map(|(a, b)| a / b);
                    let ratios: Vec<f64> = ratios.collect();
                    let ratio = median(&ratios);
                    row.against("hnswlib", ratio, target).spread(&ratios)
                }
                None => row.spread(&speeds),
            });
        }
    }

    let ef = mine.ef(RECALLS[0]);
    rows.push(Row::new(named("ef"), ef as f64, "candidates"));
    let (speeds, recall) = ours.filtered(&files, ef, plan.rounds)?;
    let unfiltered = median(&mine.at(false, RECALLS[0]));
    rows.extend([
        Row::new(named("filter.10.qps"), median(&speeds), "queries/s")
            .beside("unfiltered", median(&speeds) / unfiltered)
            .spread(&speeds),
        Row::new(named("filter.10.recall"), recall, ""),
    ]);
    if let (Some(of_bits), Some((bits, built_of_bits))) = (of_bits, bits) {
        let bytes = (&mine, &built, speeds.as_slice());
        rows.extend(against_bytes(
            &files,
            plan,
            bits,
            (&of_bits, &built_of_bits),
            bytes,
        )?);
        std::fs::remove_dir_all(&place_of_bits)?;
    }
    ours.close();
    rows.extend(collection::restarts(&place, &files, ef)?);
    let beside = collection::beside_upserts(&place, &files, ef, plan.upserts_s, UPSERTS_PER_S)?;
    rows.extend(beside.rows);
    let mut close_ms = vec![beside.close_ms];
    for after_s in plan.close_after_s {
        close_ms.push(collection::close_while_compacting(
            &place, *after_s, threads,
        )?);
    }
    let slowest = close_ms.iter().copied().fold(0.0, f64::max);
    rows.push(Row::new(named("close"), slowest, "ms").within(CLOSE_MS_MAX));
    std::fs::remove_dir_all(&place)?;
    Ok(rows)
}

/// What a collection of bits takes and does, against one of bytes.
fn against_bytes(
    files: &Files,
    plan: &Plan,
    bits: Ours,
    (of_bits, built): (&Speeds, &collection::Built),
    (of_bytes, built_of_bytes, filtered_of_bytes): (&Speeds, &collection::Built, &[f64]),
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut compared = |what: &str, unit, speeds: &[f64], of_bytes: &[f64]| {
        let ratios: Vec<f64> = speeds.iter().zip(of_bytes).map(|(a, b)| a / b).collect();
        let row = Row::new(named(&format!("bits.{what}")), median(speeds), unit);
        rows.push(row.beside("bytes", median(&ratios)).spread(&ratios));
    };
    for recall in RECALLS {
        let what = format!("qps@{recall}");
        let (speeds, of_bytes) = (of_bits.at(false, recall), of_bytes.at(false, recall));
        compared(&what, "queries/s", &speeds, &of_bytes);
    }
    let (speeds, recall) = bits.filtered(files, of_bits.ef(RECALLS[0]), plan.rounds)?;
    compared("filter.10.qps", "queries/s", &speeds, filtered_of_bytes);
    rows.push(Row::new(named("bits.filter.10.recall"), recall, ""));
    let each = |bytes: f64| bytes / files.size.rows as f64;
    rows.push(
        Row::new(
            named("bits.bytes.hot"),
            each(built.hot_bytes),
            "bytes/vector",
        )
        .beside("bytes", built_of_bytes.hot_bytes / built.hot_bytes),
    );
    rows.push(
        Row::new(named("bits.build.cpu"), built.cpu_s, "s")
            .beside("bytes", built_of_bytes.cpu_s / built.cpu_s),
    );
    bits.close();
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of it, small and without a peer: every figure is there, and can be.
    #[test]
    fn a_few_thousand_rows() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan {
            size: Size {
                rows: 3_000,
                dim: 64,
                queries: 40,
            },
            threads: 2,
            rounds: 2,
            upserts_s: 1.0,
            close_after_s: &[0.2],
            bits: true,
        };
        let rows = run(folder.path(), &plan, None).unwrap();
        let value = |name: &str| {
            let row = rows.iter().find(|row| row.name == named(name));
            row.unwrap_or_else(|| panic!("no {name}")).value
        };
        for name in [
            "build",
            "build.cpu",
            "load",
            "restart.warm",
            "restart.cold",
            "ef",
        ] {
            assert!(value(name) > 0.0, "{name}");
        }
        for name in [
            "qps@0.95",
            "qps@0.99",
            "2threads.qps@0.95",
            "filter.10.qps",
            "bits.qps@0.95",
        ] {
            assert!(value(name) > 100.0, "{name}: {}", value(name));
        }
        for name in [
            "filter.10.recall",
            "bits.filter.10.recall",
            "upserts.recall",
        ] {
            assert!(value(name) > 0.9, "{name}: {}", value(name));
        }
        assert!((5.0..60.0).contains(&value("dimension.two-nn")));
        let hot = value("bytes.hot");
        assert!((180.0..300.0).contains(&hot), "{hot} bytes");
        assert!(value("upserts.acknowledged") > 100.0);
        assert!(value("upserts.p99") >= value("upserts.p50"));
        assert!(value("bits.bytes.hot") < hot - 30.0);
        for place in ["scale-collection", "scale-collection-bits"] {
            assert!(!folder.path().join(place).exists());
        }
    }
}
