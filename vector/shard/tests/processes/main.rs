//! Shard processes and a real etcd under load: a split, a replica that goes to another node, leader and
//! replica killed, etcd killed and started again. Prints what searches saw; fails where one failed,
//! where a record is lost or twice, where recall drops by more than a point, or where a move held
//! writes for longer than it may.
//!
//! The nodes are this very program with other arguments. `SKERRY_SHARD_VECTORS` says how many vectors;
//! segments are small enough that every replica searches graphs, whatever the number.

use cluster::{Cluster, NODES, REPLICAS, until};
use load::{Phase, phase};
use skerry_vector_index::{Metric, Spec, Stored, store};
use skerry_vector_shard::coordination::etcd::Etcd;
use skerry_vector_shard::{Ask, Collections, Coordination, NodeId, Options, Router, ShardId};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;
use world::{DIM, World, count, query, record};

mod cluster;
mod load;
#[path = "../support/etcd.rs"]
mod support;
mod world;

const PREFIX: &str = "/skerry/test";
/// Bucket of the histogram of gates that has all: what a move may hold writes for, in seconds.
const GATE_S_MAX: &str = "5";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match args.as_slice() {
        ["node", name, dir, listen, admin, etcd] => {
            runtime.block_on(node(name, Path::new(dir), listen, admin, etcd));
        }
        _ if Command::new("etcd").arg("--version").output().is_err() => {
            println!("skipped: etcd is not installed (apt-get install etcd-server)");
            return ExitCode::from(u8::from(std::env::var("CI").is_ok()));
        }
        _ => runtime.block_on(scenario()),
    }
    ExitCode::SUCCESS
}

fn names(nodes: &[&str]) -> Vec<NodeId> {
    nodes.iter().map(|name| name.parse().unwrap()).collect()
}

async fn node(name: &str, dir: &Path, listen: &str, admin: &str, etcd: &str) {
    let coordination = Etcd::connect(&[etcd.to_owned()], PREFIX).await.unwrap();
    let stores = Collections {
        spec: Spec {
            dim: DIM,
            metric: Metric::Cosine,
            stored: Stored::F32,
            fields: Vec::new(),
        },
        options: store::Options {
            // A shard has a quarter of the records at the end, which is four segments of these.
            mutable_rows: (count() / 16).max(256),
            ..Default::default()
        },
    };
    let mut options = Options::new(
        name.parse().unwrap(),
        dir.to_path_buf(),
        Arc::new(coordination),
        Arc::new(stores),
    );
    let first = names(&NODES[..REPLICAS]);
    options.first = Some(vec![first.clone(), first]);
    options.listen = listen.parse().unwrap();
    options.admin = Some(admin.parse().unwrap());
    options.lease_ms = 2_000;
    let node = options.build().await.unwrap();
    let handle = node.handle();
    tokio::spawn(async move {
        handle.ready().await;
        println!("ready");
    });
    node.run(std::future::pending()).await.unwrap();
}

/// What happened to searches since they were quiet.
struct Worst {
    base: Phase,
    recall: f64,
    p99: Duration,
}

impl Worst {
    fn note(&mut self, phase: Phase) {
        self.recall = self.recall.min(phase.recall);
        self.p99 = self.p99.max(phase.p99);
    }
}

async fn scenario() {
    let count = count();
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
    let router = Router::new(etcd.clone(), None);
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
    println!("{count} x {DIM} vectors, 2 shards, 3 replicas, etcd");
    cluster.sealed().await;

    let base = phase("quiet", &world, &router, async {}).await;
    let mut worst = Worst {
        base,
        recall: base.recall,
        p99: Duration::ZERO,
    };

    let admin = cluster.admin();
    let split = async {
        admin.split(ShardId(0), &[]).await.unwrap();
        let over = |seen: &skerry_vector_shard::admin::Overview| seen.migration.is_none();
        cluster.until_seen("the split is over", over).await;
    };
    worst.note(phase("split", &world, &router, split).await);
    let gates = gates(&cluster);
    cluster.settled().await;
    cluster.sealed().await;
    worst.note(phase("after the split", &world, &router, async {}).await);

    // The leader's own replica goes, so that the lead does too; etcd is away for a while meanwhile.
    let goes = cluster.leader(0).await.unwrap();
    let stay: Vec<&str> = NODES[..REPLICAS]
        .iter()
        .copied()
        .filter(|n| *n != goes)
        .collect();
    let to = names(&[stay[0], stay[1], NODES[REPLICAS]]);
    admin.replace(ShardId(0), &to).await.unwrap();
    cluster.etcd = None;
    worst.note(phase("etcd away in a change", &world, &router, async {}).await);
    cluster.start_etcd();
    let changed = cluster.until_seen("the replica has moved", |seen| {
        seen.shards.iter().all(|state| state.placing.is_none())
    });
    worst.note(phase("replica goes to n4", &world, &router, changed).await);
    assert_eq!(cluster.replicas(0).await, to);
    cluster.settled().await;
    assert_ne!(cluster.leader(0).await.unwrap(), goes);

    let leader = cluster.leader(0).await.unwrap();
    cluster.kill(leader);
    let takeover = until("another leads", async || {
        cluster.leader(0).await.is_some_and(|now| now != leader)
    });
    worst.note(phase("leader killed", &world, &router, takeover).await);
    let ready = cluster.start(leader);
    worst.note(phase("leader comes back", &world, &router, cluster.settled()).await);
    ready.join().unwrap();

    let leader = cluster.leader(1).await.unwrap();
    let followers = NODES[..REPLICAS].iter().copied();
    let replica = followers.into_iter().find(|name| *name != leader).unwrap();
    cluster.kill(replica);
    worst.note(phase("replica killed", &world, &router, async {}).await);
    let ready = cluster.start(replica);
    worst.note(phase("replica comes back", &world, &router, cluster.settled()).await);
    ready.join().unwrap();

    cluster.etcd = None;
    worst.note(phase("etcd killed", &world, &router, async {}).await);
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
    worst.note(phase("replica without etcd", &world, &router, back).await);
    cluster.start_etcd();
    let writes_again = until("writes go on", async || {
        let write = vec![record(0, &world.vectors[0])];
        router
            .write(write, 1_000)
            .await
            .is_ok_and(|written| written.failed.is_empty())
    });
    worst.note(phase("etcd comes back", &world, &router, writes_again).await);
    cluster.settled().await;

    all_there(&cluster, &etcd, &router, &world).await;
    let counts = router.counts();
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    println!(
        "{count} of {count} records there, none twice; recall {:.4} -> {:.4}; p99 {:.2} -> {:.2} ms ({:.1} x); the move held writes {:.1} ms; hedges {} and retries {} of {} calls",
        base.recall,
        worst.recall,
        ms(base.p99),
        ms(worst.p99),
        ms(worst.p99) / ms(base.p99),
        gates * 1e3,
        counts.hedges,
        counts.retries,
        counts.calls,
    );
    assert!(
        worst.base.recall - worst.recall <= 0.01,
        "recall {} -> {}",
        base.recall,
        worst.recall
    );
    assert!(counts.hedges * 20 <= counts.calls);
}

/// For how long moves held writes, in seconds, all of them together.
fn gates(cluster: &Cluster) -> f64 {
    let metrics = cluster.metrics();
    let name = "skerry_vector_gate_seconds";
    let count = metrics[&format!("{name}_count")];
    let bucket = format!("{name}_bucket{{le=\"{GATE_S_MAX}\"}}");
    assert!(count >= 1.0);
    assert_eq!(
        metrics[&bucket], count,
        "held for longer than {GATE_S_MAX} s"
    );
    metrics[&format!("{name}_sum")]
}

/// Every record is there, from its own shard, and no shard has one more.
async fn all_there(
    cluster: &Cluster,
    etcd: &Arc<dyn Coordination>,
    router: &Router,
    world: &World,
) {
    let count = world.vectors.len();
    let ask = Ask {
        budget_ms: 20_000,
        ..Ask::default()
    };
    let mut found = BTreeSet::new();
    for shard in etcd.table().await.unwrap().shards() {
        let ask = Ask {
            slots: Some(&shard.slots),
            ..ask
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
        there += router.get(&chunk, ask).await.unwrap().len();
    }
    assert_eq!(there, count, "lost");
    cluster
        .until_seen("each shard has its own records alone", |seen| {
            let leading = seen.shards.iter().filter_map(|state| state.leading());
            leading.map(|stats| stats.records).sum::<u64>() == count as u64
        })
        .await;
}
