//! The Rust engines as worker processes: ours, and plain `hnsw_rs`.
//!
//! Invariant: all work is done on the main thread, so that the process's CPU time is the engine's.

use crate::dataset::floats;
use crate::ours::Ours;
use crate::protocol::{Built, Loaded, Request, Searched, from_line, to_line};
use anndists::dist::distances::DistDot;
use anyhow::{bail, ensure};
use hnsw_rs::prelude::Hnsw;
use rustix::time::{ClockId, clock_gettime};
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

const LINKS: usize = 16;
const EF_BUILD: usize = 200;
const LAYERS: usize = 16;

pub trait Engine {
    fn build(&mut self, dim: usize, base: &[f32]) -> anyhow::Result<()>;

    /// Appends the `k` nearest rows, nearest first.
    fn search(
        &mut self,
        base: &[f32],
        query: &[f32],
        k: usize,
        ef: usize,
        rows: &mut Vec<u32>,
    ) -> anyhow::Result<()>;

    fn hot_bytes(&self) -> Option<usize>;
}

#[derive(Default)]
struct HnswRs(Option<Hnsw<'static, f32, DistDot>>);

impl Engine for HnswRs {
    fn build(&mut self, dim: usize, base: &[f32]) -> anyhow::Result<()> {
        let hnsw = Hnsw::new(LINKS, base.len() / dim, LAYERS, EF_BUILD, DistDot);
        for (at, row) in base.chunks_exact(dim).enumerate() {
            hnsw.insert_slice((row, at));
        }
        self.0 = Some(hnsw);
        Ok(())
    }

    fn search(
        &mut self,
        _base: &[f32],
        query: &[f32],
        k: usize,
        ef: usize,
        rows: &mut Vec<u32>,
    ) -> anyhow::Result<()> {
        let Some(hnsw) = &self.0 else {
            bail!("not built yet");
        };
        let found = hnsw.search(query, k, ef);
        rows.extend(found.iter().map(|near| near.d_id as u32));
        Ok(())
    }

    fn hot_bytes(&self) -> Option<usize> {
        None
    }
}

/// CPU seconds of this process.
pub fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Where the system says it (Linux).
fn resident_bytes() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kib: i64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Answers requests from stdin until it ends.
pub fn run(engine: &str) -> anyhow::Result<()> {
    let mut engine: Box<dyn Engine> = match engine {
        "ours" => Box::new(Ours::default()),
        "hnsw_rs" => Box::new(HnswRs::default()),
        other => bail!("no engine {other:?}"),
    };
    let (mut base, mut queries, mut width) = (Vec::new(), Vec::new(), 1);
    let mut stdout = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = match from_line(&line?)? {
            Request::Load {
                base: base_path,
                queries: queries_path,
                dim,
                mapped,
            } => {
                ensure!(dim > 0, "a dimension of 0");
                ensure!(!mapped, "this engine holds what it is built from");
                width = dim;
                base = whole(Path::new(&base_path))?;
                queries = whole(Path::new(&queries_path))?;
                to_line(&Loaded {
                    rows: base.len() / dim,
                    queries: queries.len() / dim,
                })?
            }
            Request::Build { threads, index } => {
                ensure!(threads == 1 && index.is_none(), "one thread, kept nowhere");
                let (before, started) = (resident_bytes(), cpu_s());
                engine.build(width, &base)?;
                let cpu_s = cpu_s() - started;
                to_line(&Built {
                    cpu_s,
                    resident_bytes: resident_bytes()
                        .zip(before)
                        .map(|(now, before)| now - before),
                    hot_bytes: engine.hot_bytes(),
                    wall_s: None,
                    file_bytes: None,
                })?
            }
            Request::Search {
                ef,
                k,
                queries: count,
                repeat,
                threads,
            } => {
                ensure!(threads == 1, "one thread");
                let asked = queries.chunks_exact(width).take(count);
                let mut rows = Vec::with_capacity(asked.len() * k);
                let (began, started) = (Instant::now(), cpu_s());
                for _ in 0..repeat {
                    rows.clear();
                    for query in asked.clone() {
                        let from = rows.len();
                        engine.search(&base, query, k, ef, &mut rows)?;
                        // A short answer must not shift those of the next queries.
                        rows.resize(from + k, u32::MAX);
                    }
                }
                to_line(&Searched {
                    cpu_s: (cpu_s() - started) / repeat.max(1) as f64,
                    wall_s: began.elapsed().as_secs_f64() / repeat.max(1) as f64,
                    rows,
                })?
            }
        };
        stdout.write_all(answer.as_bytes())?;
        stdout.flush()?;
    }
    Ok(())
}

fn whole(path: &Path) -> anyhow::Result<Vec<f32>> {
    let bytes = std::fs::metadata(path)?.len();
    floats(path, (bytes / 4) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIM: usize = 24;
    const ROWS: usize = 3_000;

    /// Vectors of length 1 around 300 centres, the same for one seed.
    fn vectors(count: usize, seed: u64) -> Vec<f32> {
        let noise = |at: u64| {
            let x = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((x ^ (x >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let mut all = Vec::with_capacity(count * DIM);
        for row in 0..count as u64 {
            let centre = row % 300 * 977;
            let vector: Vec<f32> = (0..DIM as u64)
                .map(|d| noise(centre + d * 31) + 0.5 * noise(seed << 40 | row << 8 | d))
                .collect();
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            all.extend(vector.iter().map(|x| x / length));
        }
        all
    }

    fn found(engine: &mut dyn Engine, base: &[f32], queries: &[f32], wanted: &[Vec<u32>]) -> usize {
        let mut hits = 0;
        for (query, wanted) in queries.chunks_exact(DIM).zip(wanted) {
            let mut rows = Vec::new();
            engine.search(base, query, 10, 40, &mut rows).unwrap();
            hits += rows.iter().filter(|row| wanted.contains(row)).count();
        }
        hits
    }

    #[test]
    fn ours_finds_as_much_as_hnsw_rs() {
        let (base, queries) = (vectors(ROWS, 1), vectors(100, 2));
        let nearest = |query: &[f32]| {
            let mut scored: Vec<(f32, u32)> = base
                .chunks_exact(DIM)
                .zip(0..)
                .map(|(vector, row)| (crate::cases::dot(query, vector), row))
                .collect();
            scored.sort_by(|a, b| b.0.total_cmp(&a.0));
            scored.iter().take(10).map(|(_, row)| *row).collect()
        };
        let wanted: Vec<Vec<u32>> = queries.chunks_exact(DIM).map(nearest).collect();
        let (mut ours, mut reference) = (Ours::default(), HnswRs::default());
        ours.build(DIM, &base).unwrap();
        reference.build(DIM, &base).unwrap();
        let ours = found(&mut ours, &base, &queries, &wanted);
        let reference = found(&mut reference, &base, &queries, &wanted);
        assert!(reference >= 900, "the reference finds {reference} of 1,000");
        assert!(ours + 10 >= reference, "of 1,000: {ours} and {reference}");
    }
}
