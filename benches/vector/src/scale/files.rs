//! The vectors in the cache folder, and the exact nearest of each query; both made once.
//!
//! Invariant: the description is written last: where it is, the files are whole.

use super::world::{Dimension, World};
use crate::cases::draw;
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use skerry_vector_index::Metric;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

pub const NEAREST: usize = 10;
/// What the files depend on beside their names; another number makes them anew.
const RECIPE: u32 = 2;
/// Rows that a thread makes, or looks through, at a time.
const ROWS_OF_PART: usize = 1_024;
/// One row of so many meets the condition.
const PASSES_ONE_OF: u64 = 10;

/// Whether a row meets the condition that one of ten meets.
pub fn passes(row: u32) -> bool {
    draw(u64::from(row)).is_multiple_of(PASSES_ONE_OF)
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    pub rows: usize,
    pub dim: usize,
    pub queries: usize,
}

#[derive(Serialize, Deserialize)]
struct About {
    recipe: u32,
    rows: usize,
    dim: usize,
    queries: usize,
    dimension_two_nn: f64,
    dimension_by_likelihood: f64,
    cosine_of_nearest: f64,
    cosine_of_tenth: f64,
}

pub struct Files {
    pub size: Size,
    pub base_path: PathBuf,
    pub queries_path: PathBuf,
    pub index_path: PathBuf,
    pub queries: Vec<f32>,
    /// Of each query the exact nearest rows, and the nearest of those that pass.
    pub truth: Vec<u32>,
    pub passing: Vec<u32>,
    pub dimension: Dimension,
    base: File,
}

impl Files {
    /// Makes what is not there yet, with so many threads.
    pub fn prepare(folder: &Path, size: Size, threads: usize) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let path = |end: &str| folder.join(format!("scale-{}x{}.{end}", size.rows, size.dim));
        let about_path = path("json");
        let whole = std::fs::read_to_string(&about_path)
            .ok()
            .and_then(|text| serde_json::from_str::<About>(&text).ok())
            .filter(|about| {
                let has = (about.rows, about.dim, about.queries);
                about.recipe == RECIPE && has == (size.rows, size.dim, size.queries)
            });
        let about = match whole {
            Some(about) => about,
            None => {
                // What was built of other vectors is no index of these.
                for end in ["json", "hnswlib", "hnswlib.json"] {
                    std::fs::remove_file(path(end)).ok();
                }
                let about = make(size, threads, &path)?;
                let part = path("json.part");
                std::fs::write(&part, serde_json::to_string_pretty(&about)? + "\n")?;
                std::fs::rename(&part, &about_path)?;
                about
            }
        };
        let queries = crate::dataset::floats(&path("queries.f32"), size.queries * size.dim)?;
        let read = |end: &str| -> anyhow::Result<Vec<u32>> {
            let bytes = std::fs::read(path(end))?;
            ensure!(
                bytes.len() == size.queries * NEAREST * 4,
                "{} is cut off: remove it and its .json, and run again",
                path(end).display()
            );
            let (fours, _) = bytes.as_chunks();
            Ok(fours.iter().map(|four| u32::from_le_bytes(*four)).collect())
        };
        let base = File::open(path("base.f32"))?;
        ensure!(
            base.metadata()?.len() == (size.rows * size.dim * 4) as u64,
            "{} is cut off: remove it and its .json, and run again",
            path("base.f32").display()
        );
        eprintln!(
            "   {} x {}: neighbours lie in {:.1} dimensions (two-NN), {:.1} (Levina-Bickel, {NEAREST} \
             neighbours); mean cosine of the nearest {:.3}, of the tenth {:.3}",
            size.rows,
            size.dim,
            about.dimension_two_nn,
            about.dimension_by_likelihood,
            about.cosine_of_nearest,
            about.cosine_of_tenth
        );
        Ok(Self {
            size,
            base_path: path("base.f32"),
            queries_path: path("queries.f32"),
            index_path: path("hnswlib"),
            queries,
            truth: read("truth.u32")?,
            passing: read("passing.u32")?,
            dimension: Dimension {
                two_nn: about.dimension_two_nn,
                by_likelihood: about.dimension_by_likelihood,
            },
            base,
        })
    }

    /// Rows of the base from `first` on, as many as `out` has room for.
    pub fn read(&self, first: usize, out: &mut [f32]) -> anyhow::Result<()> {
        read_rows(&self.base, first * self.size.dim, out)
    }

    pub fn query(&self, at: usize) -> &[f32] {
        &self.queries[at * self.size.dim..][..self.size.dim]
    }
}

fn read_rows(file: &File, from: usize, out: &mut [f32]) -> anyhow::Result<()> {
    let mut bytes = vec![0u8; out.len() * 4];
    file.read_exact_at(&mut bytes, from as u64 * 4)?;
    let (fours, _) = bytes.as_chunks();
    out.iter_mut()
        .zip(fours)
        .for_each(|(x, four)| *x = f32::from_le_bytes(*four));
    Ok(())
}

/// Runs `work` on all parts of `rows` rows, given by their first and number.
fn in_parts<T: Send>(
    rows: usize,
    threads: usize,
    what: &str,
    work: impl Fn(&mut T, usize, usize) -> anyhow::Result<()> + Sync,
    start: impl Fn() -> T + Sync,
) -> anyhow::Result<Vec<T>> {
    let parts = rows.div_ceil(ROWS_OF_PART);
    let next = AtomicUsize::new(0);
    let run = || -> anyhow::Result<T> {
        let mut state = start();
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return Ok(state);
            }
            if part > 0 && part * 10 / parts != (part - 1) * 10 / parts {
                eprintln!("      {what}: {} %", part * 100 / parts);
            }
            let first = part * ROWS_OF_PART;
            work(&mut state, first, ROWS_OF_PART.min(rows - first))?;
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(run)).collect();
        let ended = running.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ended.collect()
    })
}

fn make(size: Size, threads: usize, path: &dyn Fn(&str) -> PathBuf) -> anyhow::Result<About> {
    let Size { rows, dim, queries } = size;
    eprintln!("== make {rows} vectors of dimension {dim} (once)");
    let world = World::new(dim, rows);
    let base = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path("base.f32"))?;
    let write = |_: &mut (), first: usize, count: usize| -> anyhow::Result<()> {
        let mut vectors = vec![0.0f32; count * dim];
        for (at, vector) in vectors.chunks_exact_mut(dim).enumerate() {
            world.vector((first + at) as u64, vector);
        }
        base.write_all_at(&bytes(&vectors), (first * dim * 4) as u64)?;
        Ok(())
    };
    in_parts(rows, threads, "made", write, || ())?;
    let mut asked = vec![0.0f32; queries * dim];
    for (at, vector) in asked.chunks_exact_mut(dim).enumerate() {
        world.vector((rows + at) as u64, vector);
    }
    std::fs::write(path("queries.f32"), bytes(&asked))?;

    eprintln!("== the exact nearest of {queries} queries (once)");
    let look = |found: &mut Found, first: usize, count: usize| -> anyhow::Result<()> {
        let mut vectors = vec![0.0f32; count * dim];
        read_rows(&base, first * dim, &mut vectors)?;
        // So few rows at once that they stay near while all queries pass.
        for (vectors, first) in vectors.chunks(64 * dim).zip((first..).step_by(64)) {
            for (query, found) in asked.chunks_exact(dim).zip(found.iter_mut()) {
                for (vector, row) in vectors.chunks_exact(dim).zip(first as u32..) {
                    found.offer(Metric::Dot.score(query, vector), row);
                }
            }
        }
        Ok(())
    };
    let all = in_parts(rows, threads, "looked through", look, || {
        vec![Nearest::default(); queries]
    })?;
    let mut found = vec![Nearest::default(); queries];
    for part in all {
        for (found, part) in found.iter_mut().zip(part) {
            part.all
                .0
                .iter()
                .for_each(|(score, row)| found.all.offer(*score, *row));
            part.passing
                .0
                .iter()
                .for_each(|(score, row)| found.passing.offer(*score, *row));
        }
    }
    let words = |of: fn(&Nearest) -> &Best| -> Vec<u8> {
        let each = found.iter().flat_map(|found| {
            let rows = of(found).0.iter().map(|(_, row)| *row);
            rows.chain(std::iter::repeat(u32::MAX)).take(NEAREST)
        });
        each.flat_map(u32::to_le_bytes).collect()
    };
    std::fs::write(path("truth.u32"), words(|found| &found.all))?;
    std::fs::write(path("passing.u32"), words(|found| &found.passing))?;
    base.sync_all()?;
    let distances: Vec<Vec<f64>> = found
        .iter()
        .map(|found| {
            let scores = found.all.0.iter().map(|(score, _)| f64::from(*score));
            scores
                .map(|score| (2.0 - 2.0 * score).max(1e-12).sqrt())
                .collect()
        })
        .collect();
    let dimension = Dimension::of(&distances);
    let mean = |at: usize| {
        let scores = found.iter().filter_map(|found| found.all.0.get(at));
        let sum: f64 = scores.map(|(score, _)| f64::from(*score)).sum();
        sum / queries as f64
    };
    Ok(About {
        recipe: RECIPE,
        rows,
        dim,
        queries,
        dimension_two_nn: dimension.two_nn,
        dimension_by_likelihood: dimension.by_likelihood,
        cosine_of_nearest: mean(0),
        cosine_of_tenth: mean(NEAREST - 1),
    })
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// What each thread found of each query.
type Found = Vec<Nearest>;

#[derive(Clone, Default)]
struct Nearest {
    all: Best,
    passing: Best,
}

impl Nearest {
    fn offer(&mut self, score: f32, row: u32) {
        self.all.offer(score, row);
        if self.passing.wants(score) && passes(row) {
            self.passing.offer(score, row);
        }
    }
}

/// The best few, best first, of equal ones the first rows.
#[derive(Clone, Default)]
struct Best(Vec<(f32, u32)>);

impl Best {
    fn wants(&self, score: f32) -> bool {
        self.0.len() < NEAREST || self.0.last().is_some_and(|(worst, _)| score >= *worst)
    }

    fn offer(&mut self, score: f32, row: u32) {
        if !self.wants(score) {
            return;
        }
        let better = |(s, r): &(f32, u32)| s.total_cmp(&score).reverse().then(r.cmp(&row)).is_lt();
        let at = self.0.partition_point(better);
        self.0.insert(at, (score, row));
        self.0.truncate(NEAREST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_threads_makes_the_same_files_and_they_are_kept() {
        let size = Size {
            rows: 2_500,
            dim: 20,
            queries: 7,
        };
        let made = |threads: usize| {
            let folder = tempfile::tempdir().unwrap();
            let files = Files::prepare(folder.path(), size, threads).unwrap();
            let mut base = vec![0.0; 2_500 * 20];
            files.read(0, &mut base).unwrap();
            let time = |files: &Files| std::fs::metadata(&files.base_path).unwrap().modified();
            let first = time(&files).unwrap();
            let again = Files::prepare(folder.path(), size, threads).unwrap();
            assert_eq!(time(&again).unwrap(), first, "made once");
            (base, files.truth, files.passing)
        };
        let (base, truth, passing) = made(1);
        assert!((base.clone(), truth.clone(), passing.clone()) == made(3));
        let world = World::new(20, 2_500);
        let mut query = vec![0.0; 20];
        world.vector(2_503, &mut query);
        let mut wanted: Vec<(f32, u32)> = base
            .chunks_exact(20)
            .zip(0..)
            .map(|(vector, row)| (Metric::Dot.score(&query, vector), row))
            .collect();
        wanted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let rows = |wanted: &mut dyn Iterator<Item = &(f32, u32)>| -> Vec<u32> {
            wanted.take(NEAREST).map(|(_, row)| *row).collect()
        };
        assert_eq!(truth[3 * NEAREST..4 * NEAREST], rows(&mut wanted.iter()));
        let mut all = wanted.iter().filter(|(_, row)| passes(*row));
        assert_eq!(passing[3 * NEAREST..4 * NEAREST], rows(&mut all));
    }
}
