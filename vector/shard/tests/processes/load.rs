//! Searches and writes while something happens, and what they saw.

use crate::world::{K, QUERIES, World, query, record};
use skerry_vector_index::Write;
use skerry_vector_shard::{Ask, Router};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PHASE: Duration = Duration::from_secs(4);
const BUDGET_MS: u32 = 1_000;

/// What was seen in a phase.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    pub recall: f64,
    pub p99: Duration,
}

#[derive(Default)]
struct Seen {
    took: Vec<Duration>,
    hits: usize,
    failed: Vec<String>,
}

/// Searches and writes for as long as `work` takes, and at least [`PHASE`].
pub async fn phase(
    name: &str,
    world: &Arc<World>,
    router: &Router,
    work: impl Future<Output = ()>,
) -> Phase {
    let stop = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicUsize::new(0));
    let searcher = |first: usize| {
        let (world, router, stop) = (Arc::clone(world), router.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut seen = Seen::default();
            let mut at = first;
            while !stop.load(Ordering::SeqCst) {
                at = (at + 1) % QUERIES;
                let began = Instant::now();
                let ask = Ask {
                    budget_ms: BUDGET_MS,
                    ..Ask::default()
                };
                let found = router.search(&[query(&world.queries[at], K)], ask).await;
                seen.took.push(began.elapsed());
                match found {
                    Ok(found) if !found.is_partial() => {
                        let ids: BTreeSet<&str> = found.lists[0].iter().map(|f| &*f.id).collect();
                        assert_eq!(ids.len(), found.lists[0].len(), "an id twice");
                        seen.hits += ids
                            .iter()
                            .filter(|id| world.truth[at].contains(**id))
                            .count();
                    }
                    Ok(found) => seen.failed.push(format!("missing {:?}", found.missing)),
                    Err(error) => seen.failed.push(format!("{}: {error}", error.code())),
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            seen
        })
    };
    let searchers: Vec<_> = (0..2).map(|at| searcher(at * QUERIES / 2)).collect();
    let writer = {
        let (world, router, stop) = (Arc::clone(world), router.clone(), Arc::clone(&stop));
        let refused = Arc::clone(&refused);
        tokio::spawn(async move {
            let (mut at, mut done, mut slowest) = (0, 0usize, Duration::ZERO);
            while !stop.load(Ordering::SeqCst) {
                // The same vectors again: what is near stays the same.
                let writes = (0..20).map(|step| (at + step * 37) % world.vectors.len());
                let writes: BTreeSet<usize> = writes.collect();
                let writes: Vec<Write> = writes
                    .iter()
                    .map(|at| record(*at, &world.vectors[*at]))
                    .collect();
                let (count, began) = (writes.len(), Instant::now());
                match router.write(writes, 2_000).await {
                    Ok(written) if written.failed.is_empty() => {
                        done += count;
                        slowest = slowest.max(began.elapsed());
                    }
                    _ => _ = refused.fetch_add(1, Ordering::SeqCst),
                }
                at += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (done, slowest)
        })
    };
    let began = Instant::now();
    work.await;
    let took = began.elapsed();
    tokio::time::sleep(PHASE.saturating_sub(took)).await;
    stop.store(true, Ordering::SeqCst);
    let mut all = Seen::default();
    for searcher in searchers {
        let seen = searcher.await.unwrap();
        all.took.extend(seen.took);
        all.hits += seen.hits;
        all.failed.extend(seen.failed);
    }
    let (written, slowest) = writer.await.unwrap();
    all.took.sort_unstable();
    let searches = all.took.len();
    let at = |share: f64| all.took[((searches - 1) as f64 * share) as usize];
    let recall = all.hits as f64 / ((searches - all.failed.len()) * K) as f64;
    println!(
        "{name:<22} {searches:>6} searches {:>3} failed  recall {recall:.4}  p50 {:>5.2} ms  p99 {:>6.2} ms  {written:>6} written, slowest {:>6.1} ms, {:>3} batches refused  {:>5.1} s",
        all.failed.len(),
        at(0.5).as_secs_f64() * 1e3,
        at(0.99).as_secs_f64() * 1e3,
        slowest.as_secs_f64() * 1e3,
        refused.load(Ordering::SeqCst),
        took.as_secs_f64(),
    );
    assert!(all.failed.is_empty(), "{name}: {:?}", all.failed.first());
    Phase {
        recall,
        p99: at(0.99),
    }
}
