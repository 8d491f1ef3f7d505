//! Three shard processes and a real etcd under load: a split, a leader killed, a replica killed, etcd
//! killed and started again. Prints what searches saw; fails where one failed, where a record is lost
//! or twice, or where recall drops by more than a point.
//!
//! The nodes are this very program with other arguments. `SKERRY_SHARD_VECTORS` says how many vectors.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use skerry_vector_index::{Merge, Metric, Query, Record, Spec, Stored, Write};
use skerry_vector_shard::coordination::etcd::Etcd;
use skerry_vector_shard::{
    Admin, Ask, Collections, Coordination, NodeId, Options, Router, ShardId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[path = "support/etcd.rs"]
mod support;

const DIM: usize = 64;
const K: usize = 10;
const QUERIES: usize = 200;
const CLUSTERS: usize = 100;
const SEED: u64 = 7;
const PREFIX: &str = "/skerry/test";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const WAIT: Duration = Duration::from_secs(60);
const PHASE: Duration = Duration::from_secs(4);
const BUDGET_MS: u32 = 1_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["node", name, dir, listen, etcd] => {
            runtime.block_on(node(name, Path::new(dir), listen, etcd));
        }
        _ if Command::new("etcd").arg("--version").output().is_err() => {
            println!("skipped: etcd is not installed (apt-get install etcd-server)");
            return ExitCode::from(u8::from(std::env::var("CI").is_ok()));
        }
        _ => runtime.block_on(scenario()),
    }
    ExitCode::SUCCESS
}

async fn node(name: &str, dir: &Path, listen: &str, etcd: &str) {
    let coordination = Etcd::connect(&[etcd.to_owned()], PREFIX).await.unwrap();
    let stores = Collections {
        spec: Spec {
            dim: DIM,
            metric: Metric::Cosine,
            stored: Stored::F32,
            fields: Vec::new(),
        },
        options: Default::default(),
    };
    let all: Vec<NodeId> = NODES.iter().map(|name| name.parse().unwrap()).collect();
    let mut options = Options::new(
        name.parse().unwrap(),
        dir.to_path_buf(),
        Arc::new(coordination),
        Arc::new(stores),
    );
    options.first = Some(vec![all.clone(), all]);
    options.listen = listen.parse().unwrap();
    options.lease_ms = 2_000;
    let node = options.build().await.unwrap();
    let handle = node.handle();
    tokio::spawn(async move {
        handle.ready().await;
        println!("ready");
    });
    node.run(std::future::pending()).await.unwrap();
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Cluster {
    dir: PathBuf,
    etcd_port: u16,
    etcd_peer: u16,
    etcd: Option<Process>,
    ports: BTreeMap<&'static str, u16>,
    nodes: BTreeMap<&'static str, Process>,
}

impl Cluster {
    fn new(dir: &Path) -> Self {
        let ports = NODES
            .iter()
            .map(|name| (*name, support::free_port()))
            .collect();
        Self {
            dir: dir.to_path_buf(),
            etcd_port: support::free_port(),
            etcd_peer: support::free_port(),
            etcd: None,
            ports,
            nodes: BTreeMap::new(),
        }
    }

    fn start_etcd(&mut self) {
        let child = support::spawn(&self.dir.join("etcd"), self.etcd_port, self.etcd_peer);
        self.etcd = Some(Process(child));
    }

    /// Starts a node, and hands back what waits until it is ready.
    fn start(&mut self, name: &'static str) -> std::thread::JoinHandle<()> {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("node")
            .arg(name)
            .arg(self.dir.join(name))
            .arg(format!("127.0.0.1:{}", self.ports[name]))
            .arg(format!("127.0.0.1:{}", self.etcd_port))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.nodes.insert(name, Process(child));
        std::thread::spawn(move || {
            let first = lines.next();
            assert_eq!(first.unwrap().unwrap(), "ready");
        })
    }

    fn kill(&mut self, name: &str) {
        self.nodes.remove(name).unwrap();
    }

    fn admin(&self) -> Admin {
        let name = self.nodes.keys().next().unwrap();
        Admin::new(&format!("127.0.0.1:{}", self.ports[name]), None)
    }

    async fn leader(&self, shard: u32) -> Option<&'static str> {
        let seen = self.admin().overview().await.ok()?;
        let state = seen
            .shards
            .iter()
            .find(|state| state.shard == ShardId(shard))?;
        let leader = state.leader.as_ref()?;
        state.leading()?;
        NODES.into_iter().find(|name| *name == leader.as_str())
    }

    /// Every shard has a leader, and all three replicas are in sync.
    async fn settled(&self) {
        until("all are in sync", async || {
            let seen = self.admin().overview().await;
            seen.is_ok_and(|seen| {
                let whole = |state: &skerry_vector_shard::admin::ShardState| {
                    state
                        .leading()
                        .is_some_and(|stats| stats.in_sync.len() == NODES.len())
                };
                seen.shards.iter().all(whole)
            })
        })
        .await;
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < WAIT, "not in {WAIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Clustered vectors, in the order of their numbers.
fn vectors(count: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f32>> {
    let mut random = |spread: f32| -> Vec<f32> {
        let lanes = 0..DIM;
        lanes
            .map(|_| (rng.random::<f32>() - 0.5) * spread)
            .collect()
    };
    let centres: Vec<Vec<f32>> = (0..CLUSTERS).map(|_| random(2.0)).collect();
    let near = (0..count).map(|at| {
        let noise = random(0.8);
        let centre = &centres[at % CLUSTERS];
        centre.iter().zip(noise).map(|(a, b)| a + b).collect()
    });
    near.collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn record(at: usize, vector: &[f32]) -> Write {
    Write::Upsert(Record {
        id: format!("i{at}").into(),
        vector: vector.to_vec(),
        payload: Default::default(),
    })
}

fn query(vector: &[f32], k: usize) -> Query {
    Query {
        vectors: vec![vector.to_vec()],
        merge: Merge::Best,
        k,
        ef: Some(128),
        filter: None,
    }
}

struct World {
    vectors: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
    truth: Vec<BTreeSet<String>>,
}

impl World {
    fn new(count: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut vectors = vectors(count + QUERIES, &mut rng);
        let queries = vectors.split_off(count);
        let nearest = |query: &Vec<f32>| {
            let scores = vectors
                .iter()
                .enumerate()
                .map(|(at, v)| (cosine(query, v), at));
            let mut scores: Vec<(f32, usize)> = scores.collect();
            scores.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            scores
                .iter()
                .take(K)
                .map(|(_, at)| format!("i{at}"))
                .collect()
        };
        let truth = queries.iter().map(nearest).collect();
        Self {
            vectors,
            queries,
            truth,
        }
    }
}

#[derive(Default)]
struct Seen {
    took: Vec<Duration>,
    hits: usize,
    failed: Vec<String>,
}

/// Searches and writes for as long as `work` takes, and at least [`PHASE`].
async fn phase<T>(
    name: &str,
    world: &Arc<World>,
    router: &Router,
    work: impl Future<Output = T>,
) -> (T, f64, Duration) {
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
            let (mut at, mut done) = (0, 0usize);
            while !stop.load(Ordering::SeqCst) {
                // The same vectors again: what is near stays the same.
                let writes = (0..20).map(|step| (at + step * 37) % world.vectors.len());
                let writes: BTreeSet<usize> = writes.collect();
                let writes: Vec<Write> = writes
                    .iter()
                    .map(|at| record(*at, &world.vectors[*at]))
                    .collect();
                let count = writes.len();
                match router.write(writes, 2_000).await {
                    Ok(written) if written.failed.is_empty() => done += count,
                    _ => _ = refused.fetch_add(1, Ordering::SeqCst),
                }
                at += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            done
        })
    };
    let began = Instant::now();
    let made = work.await;
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
    let written = writer.await.unwrap();
    all.took.sort_unstable();
    let searches = all.took.len();
    let at = |share: f64| all.took[((searches - 1) as f64 * share) as usize];
    let recall = all.hits as f64 / ((searches - all.failed.len()) * K) as f64;
    println!(
        "{name:<22} {searches:>6} searches {:>3} failed  recall {recall:.4}  p50 {:>5.2} ms  p99 {:>6.2} ms  {written:>6} written {:>3} batches refused  {:>5.1} s",
        all.failed.len(),
        at(0.5).as_secs_f64() * 1e3,
        at(0.99).as_secs_f64() * 1e3,
        refused.load(Ordering::SeqCst),
        took.as_secs_f64(),
    );
    assert!(all.failed.is_empty(), "{name}: {:?}", all.failed.first());
    (made, recall, at(0.99))
}

async fn scenario() {
    let count = std::env::var("SKERRY_SHARD_VECTORS").ok();
    let count = count.and_then(|text| text.parse().ok()).unwrap_or(4_000);
    let world = Arc::new(World::new(count));
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path());
    cluster.start_etcd();
    for name in NODES {
        drop(cluster.start(name));
    }
    let etcd = Etcd::connect(&[format!("127.0.0.1:{}", cluster.etcd_port)], PREFIX)
        .await
        .unwrap();
    let etcd: Arc<dyn Coordination> = Arc::new(etcd);
    cluster.settled().await;
    let router = Router::new(Arc::clone(&etcd), None);
    for (at, chunk) in world.vectors.chunks(1_000).enumerate() {
        let writes = chunk
            .iter()
            .zip(at * 1_000..)
            .map(|(vector, at)| record(at, vector));
        router
            .write(writes.collect(), 30_000)
            .await
            .unwrap()
            .all()
            .unwrap();
    }
    println!("{count} x {DIM} vectors, 2 shards, 3 processes, etcd");

    let (_, base, p99) = phase("quiet", &world, &router, async {}).await;
    let mut worst = base;
    let mut slowest = Duration::ZERO;
    let mut note = |recall: f64, took: Duration| {
        worst = worst.min(recall);
        slowest = slowest.max(took);
    };

    let admin = cluster.admin();
    let split = async {
        admin.split(ShardId(0), &[]).await.unwrap();
        until("the split is over", async || {
            admin
                .overview()
                .await
                .is_ok_and(|seen| seen.migration.is_none())
        })
        .await;
    };
    let ((), recall, took) = phase("split", &world, &router, split).await;
    note(recall, took);
    cluster.settled().await;

    let leader = cluster.leader(0).await.unwrap();
    cluster.kill(leader);
    let takeover = async {
        until("another leads", async || {
            cluster.leader(0).await.is_some_and(|now| now != leader)
        })
        .await;
    };
    let ((), recall, took) = phase("leader killed", &world, &router, takeover).await;
    note(recall, took);
    let ready = cluster.start(leader);
    let ((), recall, took) = phase("leader comes back", &world, &router, cluster.settled()).await;
    ready.join().unwrap();
    note(recall, took);

    let leader = cluster.leader(0).await.unwrap();
    let replica = NODES.into_iter().find(|name| *name != leader).unwrap();
    cluster.kill(replica);
    let ((), recall, took) = phase("replica killed", &world, &router, async {}).await;
    note(recall, took);
    let ready = cluster.start(replica);
    let ((), recall, took) = phase("replica comes back", &world, &router, cluster.settled()).await;
    ready.join().unwrap();
    note(recall, took);

    cluster.etcd = None;
    let ((), recall, took) = phase("etcd killed", &world, &router, async {}).await;
    note(recall, took);
    let write = vec![record(0, &world.vectors[0])];
    let written = router.write(write, 2_000).await.unwrap();
    let code = written
        .failed
        .first()
        .map(|failure| failure.error.code().to_owned());
    assert_eq!(
        code.as_deref(),
        Some("shard_lease_lost"),
        "writes stop with a typed error"
    );
    cluster.kill(replica);
    let ready = cluster.start(replica);
    let back = async {
        tokio::task::spawn_blocking(|| ready.join().unwrap())
            .await
            .unwrap();
    };
    let ((), recall, took) = phase("replica without etcd", &world, &router, back).await;
    note(recall, took);
    cluster.start_etcd();
    let writes_again = async {
        until("writes go on", async || {
            let write = vec![record(0, &world.vectors[0])];
            router
                .write(write, 1_000)
                .await
                .is_ok_and(|written| written.failed.is_empty())
        })
        .await;
    };
    let ((), recall, took) = phase("etcd comes back", &world, &router, writes_again).await;
    note(recall, took);
    cluster.settled().await;

    // Every record once, from its own shard.
    let mut found = BTreeSet::new();
    for shard in etcd.table().await.unwrap().shards() {
        let ask = Ask {
            budget_ms: 20_000,
            slots: Some(&shard.slots),
            ..Ask::default()
        };
        let whole = router
            .search(&[query(&world.queries[0], 10_000)], ask)
            .await
            .unwrap();
        assert!(!whole.is_partial());
        for one in &whole.lists[0] {
            assert!(found.insert(one.id.clone()), "{} twice", one.id);
        }
    }
    let ids: Vec<String> = (0..count).map(|at| format!("i{at}")).collect();
    let mut there = 0;
    for chunk in ids.chunks(500) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        let ask = Ask {
            budget_ms: 20_000,
            ..Ask::default()
        };
        there += router.get(&chunk, ask).await.unwrap().len();
    }
    let counts = router.counts();
    println!(
        "{there} of {count} records there, none twice; recall {base:.4} -> {worst:.4}; p99 {:.2} -> {:.2} ms ({:.1} x); hedges {} and retries {} of {} calls",
        p99.as_secs_f64() * 1e3,
        slowest.as_secs_f64() * 1e3,
        slowest.as_secs_f64() / p99.as_secs_f64(),
        counts.hedges,
        counts.retries,
        counts.calls,
    );
    assert_eq!(there, count, "lost");
    assert!(base - worst <= 0.01, "recall {base} -> {worst}");
    assert!(counts.hedges * 20 <= counts.calls);
}
