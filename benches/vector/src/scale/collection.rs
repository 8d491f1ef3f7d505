//! Our side at scale: loaded, built, asked, restarted, asked beside upserts, closed.

use super::files::{Files, NEAREST, passes};
use super::{Pass, Side, named};
use crate::ours::{CodeKind, Kept, Making, Upkeep};
use crate::sweep;
use crate::worker::cpu_s;
use anyhow::ensure;
use skerry_bench_report::{Row, median, percentile};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Rows of a batch while loading, and of one beside searches.
const LOADED: usize = 2_000;
const UPSERTED: usize = 10;
/// How often memory is looked at while building, in milliseconds.
const LOOK_MS: u64 = 50;
/// The condition that one row of ten meets.
const TENTH: &str = "tenth";
const RESTARTS: usize = 3;
/// Upserts go through the rows in steps of a prime: none comes twice in a batch.
const STEPS: [usize; 2] = [7_919, 7_927];

pub struct Ours {
    kept: Kept,
    codes: CodeKind,
}

pub struct Built {
    pub cpu_s: f64,
    pub wall_s: f64,
    pub hot_bytes: f64,
    pub disk_bytes: f64,
    /// Memory of its own that the process had at most, less what it had before: where the system
    /// says it (Linux).
    pub memory_bytes: Option<f64>,
}

fn meets(row: u32) -> Vec<&'static str> {
    if passes(row) { vec![TENTH] } else { Vec::new() }
}

impl Ours {
    /// Writes all rows through the log; how many were acknowledged a second.
    pub fn load(
        place: &Path,
        files: &Files,
        threads: usize,
        codes: CodeKind,
    ) -> anyhow::Result<(Self, f64)> {
        if place.exists() {
            std::fs::remove_dir_all(place)?;
        }
        eprintln!("== ours, {codes:?}: load");
        let making = Making {
            build_threads: threads,
            codes,
            ..Making::default()
        };
        let kept = Kept::create(place, files.size.dim, making)?;
        let (rows, dim) = (files.size.rows, files.size.dim);
        let began = Instant::now();
        for first in (0..rows).step_by(LOADED) {
            let count = LOADED.min(rows - first);
            let mut vectors = vec![0.0; count * dim];
            files.read(first, &mut vectors)?;
            let each = (first as u32..).zip(vectors.chunks_exact(dim));
            kept.upsert(each.map(|(row, vector)| (row, vector, meets(row))))?;
        }
        let per_second = rows as f64 / began.elapsed().as_secs_f64();
        Ok((Self { kept, codes }, per_second))
    }

    /// One segment of all rows, opened again.
    pub fn build(self, place: &Path) -> anyhow::Result<(Self, Built)> {
        eprintln!("== ours: build");
        let before = memory_bytes();
        let most = AtomicU64::new(0);
        let (done, is_done) = channel::<()>();
        let (cpu_before, began) = (cpu_s(), Instant::now());
        std::thread::scope(|scope| {
            let most = &most;
            scope.spawn(move || {
                while is_done.recv_timeout(Duration::from_millis(LOOK_MS))
                    == Err(RecvTimeoutError::Timeout)
                {
                    most.fetch_max(memory_bytes().unwrap_or(0), Ordering::Relaxed);
                }
            });
            let built = self.kept.compact();
            drop(done);
            built
        })?;
        let (cpu_s, wall_s) = (cpu_s() - cpu_before, began.elapsed().as_secs_f64());
        eprintln!("   built in {wall_s:.1} s, {cpu_s:.1} s of CPU time");
        self.kept.close();
        let mut disk_bytes = 0;
        for entry in std::fs::read_dir(place)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("segment-") {
                disk_bytes += entry.metadata()?.len();
            }
        }
        let kept = Kept::open(place, &Upkeep::Off)?;
        ensure!(kept.segments() == 1, "{} segments", kept.segments());
        let built = Built {
            cpu_s,
            wall_s,
            hot_bytes: kept.hot_bytes() as f64,
            disk_bytes: disk_bytes as f64,
            memory_bytes: before
                .map(|before| most.load(Ordering::Relaxed).saturating_sub(before) as f64),
        };
        let codes = self.codes;
        Ok((Self { kept, codes }, built))
    }

    /// Speeds and recall among the rows that meet the condition.
    pub fn filtered(
        &self,
        files: &Files,
        ef: usize,
        rounds: usize,
    ) -> anyhow::Result<(Vec<f64>, f64)> {
        let mut speeds = Vec::new();
        let mut recall = 0.0;
        for _ in 0..rounds {
            let mut found = Vec::new();
            let started = cpu_s();
            for at in 0..files.size.queries {
                search(&self.kept, files, at, ef, Some(TENTH), &mut found)?;
            }
            speeds.push(files.size.queries as f64 / (cpu_s() - started).max(1e-9));
            recall = sweep::recall(&found, &files.passing, NEAREST);
        }
        Ok((speeds, recall))
    }

    pub fn close(self) {
        self.kept.close();
    }
}

/// Appends what is found for a query, always [`NEAREST`] rows.
fn search(
    kept: &Kept,
    files: &Files,
    at: usize,
    ef: usize,
    meets: Option<&str>,
    found: &mut Vec<u32>,
) -> anyhow::Result<()> {
    let from = found.len();
    found.extend(kept.search(files.query(at), NEAREST, ef, meets)?);
    found.resize(from + NEAREST, u32::MAX);
    Ok(())
}

impl Side for Ours {
    fn name(&self) -> &'static str {
        match self.codes {
            CodeKind::Bytes => "ours",
            CodeKind::Bits => "ours, bits",
        }
    }

    fn pass(
        &mut self,
        files: &Files,
        ef: usize,
        threads: usize,
        repeat: usize,
    ) -> anyhow::Result<Pass> {
        let kept = &self.kept;
        let queries = files.size.queries;
        let part = queries.div_ceil(threads);
        let ask = |first: usize| -> anyhow::Result<Vec<u32>> {
            let mut found = Vec::new();
            for _ in 0..repeat {
                found.clear();
                for at in first..(first + part).min(queries) {
                    search(kept, files, at, ef, None, &mut found)?;
                }
            }
            Ok(found)
        };
        let (cpu_before, began) = (cpu_s(), Instant::now());
        let rows: anyhow::Result<Vec<Vec<u32>>> = if threads == 1 {
            ask(0).map(|found| vec![found])
        } else {
            std::thread::scope(|scope| {
                let firsts = (0..queries).step_by(part);
                let running: Vec<_> = firsts
                    .map(|first| scope.spawn(move || ask(first)))
                    .collect();
                let ended = running.into_iter().map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                });
                ended.collect()
            })
        };
        Ok(Pass {
            cpu_s: (cpu_s() - cpu_before) / repeat as f64,
            wall_s: began.elapsed().as_secs_f64() / repeat as f64,
            rows: rows?.concat(),
        })
    }
}

/// Memory of this process that is no file's.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// From nothing to the first answer, with the files in the page cache and without.
pub fn restarts(place: &Path, files: &Files, ef: usize) -> anyhow::Result<Vec<Row>> {
    eprintln!("== ours: restarts");
    let first_answer = || -> anyhow::Result<f64> {
        let began = Instant::now();
        let kept = Kept::open(place, &Upkeep::Off)?;
        search(&kept, files, 0, ef, None, &mut Vec::new())?;
        let took_ms = began.elapsed().as_secs_f64() * 1e3;
        kept.close();
        Ok(took_ms)
    };
    let mut rows = Vec::new();
    for cold in [false, true] {
        let mut all = Vec::new();
        for _ in 0..RESTARTS {
            if cold {
                forget(place)?;
            }
            all.push(first_answer()?);
        }
        let name = if cold { "restart.cold" } else { "restart.warm" };
        rows.push(Row::new(named(name), median(&all), "ms").spread(&all));
    }
    Ok(rows)
}

/// Takes the files of a folder out of the page cache.
fn forget(place: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(place)? {
        let file = File::open(entry?.path())?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

pub struct Beside {
    pub rows: Vec<Row>,
    pub close_ms: f64,
}

/// Searches while rows are written again, as they were: what is nearest stays the same.
pub fn beside_upserts(
    place: &Path,
    files: &Files,
    ef: usize,
    seconds: f64,
    per_second: f64,
) -> anyhow::Result<Beside> {
    eprintln!("== ours: searches beside {per_second} upserts a second, for {seconds} s");
    let kept = Kept::open(place, &Upkeep::Usual)?;
    let (quiet_us, _) = search_for(&kept, files, ef, seconds / 4.0)?;
    let (stop, stopped) = channel::<()>();
    let (written, searched) = std::thread::scope(|scope| {
        let kept = &kept;
        let writer = scope.spawn(move || {
            let began = Instant::now();
            let mut count = 0;
            loop {
                let due = Duration::from_secs_f64(count as f64 / per_second);
                let wait = due.saturating_sub(began.elapsed());
                if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return Ok(count as f64 / began.elapsed().as_secs_f64());
                }
                upsert(kept, files, count)?;
                count += UPSERTED;
            }
        });
        let searched = search_for(kept, files, ef, seconds);
        drop(stop);
        let written: anyhow::Result<f64> = writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (written, searched)
    });
    let (acknowledged, (us, recall)) = (written?, searched?);
    eprintln!("   {} segments at the end", kept.segments());
    let began = Instant::now();
    kept.close();
    let close_ms = began.elapsed().as_secs_f64() * 1e3;
    let latency = |name: &str, percent: f64| {
        let (beside, quiet) = (percentile(&us, percent), percentile(&quiet_us, percent));
        Row::new(named(name), beside, "us").beside("quiet", quiet / beside)
    };
    Ok(Beside {
        rows: vec![
            latency("upserts.p50", 50.0),
            latency("upserts.p99", 99.0),
            Row::new(named("upserts.recall"), recall, ""),
            Row {
                ratio: Some(acknowledged / per_second),
                target: Some(per_second),
                ..Row::new(named("upserts.acknowledged"), acknowledged, "upserts/s")
            },
        ],
        close_ms,
    })
}

fn upsert(kept: &Kept, files: &Files, from: usize) -> anyhow::Result<()> {
    let (rows, dim) = (files.size.rows, files.size.dim);
    let step = STEPS[usize::from(rows.is_multiple_of(STEPS[0]))];
    let mut vector = vec![0.0; dim];
    let mut batch: Vec<(u32, Vec<f32>)> = Vec::with_capacity(UPSERTED);
    for at in from..from + UPSERTED {
        let row = at * step % rows;
        files.read(row, &mut vector)?;
        batch.push((row as u32, vector.clone()));
    }
    let each = batch.iter();
    kept.upsert(each.map(|(row, vector)| (*row, vector.as_slice(), meets(*row))))
}

/// What each search took, in microseconds by the clock, and the recall of all.
fn search_for(
    kept: &Kept,
    files: &Files,
    ef: usize,
    seconds: f64,
) -> anyhow::Result<(Vec<f64>, f64)> {
    let began = Instant::now();
    let mut times_us = Vec::new();
    let mut recalls = Vec::new();
    let mut found = Vec::new();
    while began.elapsed().as_secs_f64() < seconds {
        let at = times_us.len() % files.size.queries;
        found.clear();
        let asked = Instant::now();
        search(kept, files, at, ef, None, &mut found)?;
        times_us.push(asked.elapsed().as_secs_f64() * 1e6);
        let truth = &files.truth[at * NEAREST..][..NEAREST];
        recalls.push(sweep::recall(&found, truth, NEAREST));
    }
    let recall = recalls.iter().sum::<f64>() / recalls.len().max(1) as f64;
    Ok((times_us, recall))
}

/// How long closing takes while all segments are made one, some time after that began.
pub fn close_while_compacting(place: &Path, after_s: f64, threads: usize) -> anyhow::Result<f64> {
    eprintln!("== ours: closed {after_s} s into a compaction");
    let kept = Kept::open(place, &Upkeep::Busy(threads))?;
    let before = cpu_s();
    // Nobody sends anything: a wait.
    let (_sender, never) = channel::<()>();
    let _ = never.recv_timeout(Duration::from_secs_f64(after_s));
    if cpu_s() - before < after_s / 2.0 {
        eprintln!("   it was done already, or had nothing to do");
    }
    let began = Instant::now();
    kept.close();
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
