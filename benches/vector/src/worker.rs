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
            } => {
                ensure!(dim > 0, "a dimension of 0");
                width = dim;
                base = whole(Path::new(&base_path))?;
                queries = whole(Path::new(&queries_path))?;
                to_line(&Loaded {
                    rows: base.len() / dim,
                    queries: queries.len() / dim,
                })?
            }
            Request::Build => {
                let (before, started) = (resident_bytes(), cpu_s());
                engine.build(width, &base)?;
                let cpu_s = cpu_s() - started;
                to_line(&Built {
                    cpu_s,
                    resident_bytes: resident_bytes()
                        .zip(before)
                        .map(|(now, before)| now - before),
                    hot_bytes: engine.hot_bytes(),
                })?
            }
            Request::Search {
                ef,
                k,
                queries: count,
                repeat,
            } => {
                let asked = queries.chunks_exact(width).take(count);
                let mut rows = Vec::with_capacity(asked.len() * k);
                let started = cpu_s();
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
