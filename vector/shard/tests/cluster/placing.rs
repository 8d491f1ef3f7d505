//! Replicas that go to other nodes under load: nothing is lost, no search finds less, and no in-sync
//! set is smaller than it was.

use crate::harness::*;
use crate::load::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use skerry_vector_index::{Record, Write};
use skerry_vector_shard::wire::grpc as g;
use skerry_vector_shard::{Error, NodeId, Placing, Router, ShardId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Records that are found before all that [`Load`] writes.
const BASE: usize = 3_000;
const QUERIES: usize = 16;

fn names(list: &[&str]) -> Vec<NodeId> {
    list.iter().map(|name| node(name)).collect()
}

fn replace(shard: u32, to: &[&str]) -> g::migrate_request::Verb {
    g::migrate_request::Verb::Replace(g::Replace {
        shard,
        replicas: to.iter().map(|name| (*name).to_owned()).collect(),
    })
}

async fn placing(cluster: &Cluster) -> Option<Placing> {
    cluster.table().await.placing(ShardId(0)).cloned()
}

async fn replicas(cluster: &Cluster) -> Vec<NodeId> {
    let table = cluster.table().await;
    table.shard(ShardId(0)).unwrap().replicas.clone()
}

async fn over(cluster: &Cluster) {
    until("the replicas have changed", async || {
        placing(cluster).await.is_none()
    })
    .await;
}

/// The in-sync sets of shard 0 since so many had been written.
fn sets_since(cluster: &Cluster, from: usize) -> Vec<Vec<NodeId>> {
    let sets = cluster.coordination.sets.lock();
    let sets = sets.iter().skip(from);
    let mine = sets.filter(|(shard, _)| *shard == ShardId(0));
    mine.map(|(_, set)| set.clone()).collect()
}

/// Numbers between -1 and 1 that are always the same.
fn random(seed: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
    (0..DIM).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Long vectors in all directions: by the inner product they come before everything else.
fn base(at: usize) -> Record {
    Record {
        id: format!("base{at}").into(),
        vector: random(at).iter().map(|value| value * 100.0).collect(),
        payload: Default::default(),
    }
}

/// Searches that compare what they find with what there is, until they are told to stop.
struct Recall {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(usize, usize)>,
}

impl Recall {
    async fn start(router: &Router) -> Self {
        let records: Vec<Record> = (0..BASE).map(base).collect();
        for chunk in records.chunks(500) {
            let writes = chunk.iter().cloned().map(Write::Upsert).collect();
            router.write(writes, 10_000).await.unwrap().all().unwrap();
        }
        let asked = |at: usize| {
            let vector = random(BASE + at);
            let dot = |record: &Record| -> f32 {
                let pairs = record.vector.iter().zip(&vector);
                pairs.map(|(a, b)| a * b).sum()
            };
            let mut best: Vec<(f32, &str)> =
                records.iter().map(|one| (dot(one), &*one.id)).collect();
            best.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            let best = best.iter().take(10).map(|(_, id)| (*id).to_owned());
            let mut query = query(10);
            query.vectors = vec![vector.clone()];
            query.ef = Some(200);
            (query, best.collect::<BTreeSet<String>>())
        };
        let asked: Vec<_> = (0..QUERIES).map(asked).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (router, stopped) = (router.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let (mut hits, mut wanted) = (0, 0);
            for (query, best) in asked.iter().cycle() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let found = router.search(std::slice::from_ref(query), ask(2_000)).await;
                let found = found.unwrap();
                assert!(!found.is_partial());
                let list = found.lists[0].iter();
                hits += list.filter(|one| best.contains(&*one.id)).count();
                wanted += best.len();
            }
            (hits, wanted)
        });
        Self { stop, task }
    }

    async fn end(self) -> f64 {
        self.stop.store(true, Ordering::SeqCst);
        let (hits, wanted) = self.task.await.unwrap();
        println!("recall {hits} of {wanted}");
        hits as f64 / wanted as f64
    }
}

/// A cluster of six with the shard on the first three, under load, and what it looks like at the end.
struct Scene {
    cluster: Arc<Cluster>,
    router: Router,
    load: Load,
    recall: Recall,
    sets: usize,
}

impl Scene {
    async fn begin() -> Self {
        let nodes = ["a", "b", "c", "d", "e", "f"];
        let cluster = Cluster::start(&nodes, &[&["a", "b", "c"]]).await;
        let router = cluster.router();
        let recall = Recall::start(&router).await;
        let load = Load::start(&router, 2, 100, 1);
        load.more(20).await;
        let sets = cluster.coordination.sets.lock().len();
        Self {
            cluster,
            router,
            load,
            recall,
            sets,
        }
    }

    /// The same, with `f` killed before it has the shard: a change to it cannot end.
    async fn held_up() -> Self {
        let scene = Self::begin().await;
        let change = replace(0, &["d", "e", "f"]);
        scene.cluster.migrate(change).await.unwrap();
        scene.cluster.kill("f");
        until("the others are in sync", async || {
            let sets = sets_since(&scene.cluster, scene.sets);
            let both = names(&["d", "e"]);
            sets.last()
                .is_some_and(|set| both.iter().all(|node| set.contains(node)))
        })
        .await;
        assert!(placing(&scene.cluster).await.is_some(), "f is missing");
        scene
    }

    /// Nothing is lost and nothing was found that should not be; recall was whole throughout.
    async fn end(self) -> Arc<Cluster> {
        let (mut model, token, _) = self.load.end().await;
        assert_eq!(self.recall.end().await, 1.0);
        // `check` asks for versions.
        let again: Vec<Write> = (0..BASE)
            .map(|at| upsert(&format!("base{at}"), 1))
            .collect();
        let mut token = token;
        for chunk in again.chunks(500) {
            // On a machine that is busy a member may be late: the same is written again.
            let mut written = self.router.write(chunk.to_vec(), 10_000).await.unwrap();
            for _ in 0..5 {
                if written.failed.is_empty() {
                    break;
                }
                written = self.router.write(chunk.to_vec(), 10_000).await.unwrap();
            }
            token.merge(&written.all().unwrap());
        }
        model.extend((0..BASE).map(|at| (format!("base{at}"), 1)));
        check(&self.router, &model, &token).await;
        self.cluster
    }

    fn least(&self) -> usize {
        let sets = sets_since(&self.cluster, self.sets);
        println!("in-sync sets: {sets:?}");
        sets.iter().map(Vec::len).min().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_replicas_go_to_other_nodes() {
    let scene = Scene::begin().await;
    let cluster = Arc::clone(&scene.cluster);
    let before = cluster.token(0);
    cluster.migrate(replace(0, &["d", "e", "f"])).await.unwrap();
    assert_eq!(replicas(&cluster).await.len(), 6, "both serve meanwhile");
    over(&cluster).await;
    assert_eq!(replicas(&cluster).await, names(&["d", "e", "f"]));
    assert!(cluster.token(0) > before);
    cluster.settled().await;
    scene.load.more(30).await;
    assert!(scene.least() >= 3);
    let sets = sets_since(&cluster, scene.sets);
    let last: BTreeSet<&NodeId> = sets.last().unwrap().iter().collect();
    assert_eq!(last, names(&["d", "e", "f"]).iter().collect());
    until("the old nodes have put it away", async || {
        ["a", "b", "c"]
            .iter()
            .all(|name| !cluster.dir_of(name).join("shard-0000").exists())
    })
    .await;
    for name in ["a", "b", "c"] {
        cluster.kill(name);
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced() {
    let scene = Scene::begin().await;
    let cluster = Arc::clone(&scene.cluster);
    let leader = cluster.leader(0).unwrap();
    let dead = ["a", "b", "c"]
        .into_iter()
        .find(|name| *name != leader)
        .unwrap();
    cluster.kill(dead);
    until("the set goes on without it", async || {
        sets_since(&cluster, scene.sets)
            .last()
            .is_some_and(|set| set.len() == 2)
    })
    .await;
    let others = ["a", "b", "c"].into_iter().filter(|name| *name != dead);
    let to: Vec<&str> = others.chain(["d"]).collect();
    cluster.migrate(replace(0, &to)).await.unwrap();
    over(&cluster).await;
    assert_eq!(replicas(&cluster).await, names(&to));
    assert_eq!(cluster.leader(0).unwrap(), leader, "it stays");
    cluster.settled().await;
    // It comes back as nobody, and holds nothing.
    cluster.up(dead).await;
    scene.load.more(30).await;
    let stats = cluster.client(dead).stats(g::StatsRequest {}).await;
    assert_eq!(stats.unwrap().into_inner().shards, []);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_dies_in_the_middle() {
    let scene = Scene::held_up().await;
    let cluster = Arc::clone(&scene.cluster);
    scene.load.more(50).await;
    let now = placing(&cluster).await.unwrap();
    assert_eq!(now.to, names(&["d", "e", "f"]), "it waits");
    // One that was in sync dies too, and both come back.
    cluster.kill("e");
    scene.load.more(30).await;
    cluster.up("e").await;
    cluster.up("f").await;
    over(&cluster).await;
    assert_eq!(replicas(&cluster).await, names(&["d", "e", "f"]));
    assert!(scene.least() >= 3);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_dies_in_the_middle() {
    let scene = Scene::held_up().await;
    let cluster = Arc::clone(&scene.cluster);
    let leader = cluster.leader(0).unwrap();
    cluster.kill(&leader);
    until("another leads", async || {
        cluster.leader(0).is_some_and(|now| now != leader)
    })
    .await;
    scene.load.more(30).await;
    cluster.up("f").await;
    over(&cluster).await;
    assert_eq!(replicas(&cluster).await, names(&["d", "e", "f"]));
    // Its own death aside, at no time were there fewer.
    assert!(scene.least() >= 3);
    cluster.up(&leader).await;
    cluster.settled().await;
    scene.load.more(30).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_given_up() {
    let scene = Scene::held_up().await;
    let cluster = Arc::clone(&scene.cluster);
    let leader = cluster.leader(0).unwrap();
    let split = g::Split {
        shard: 0,
        replicas: Vec::new(),
    };
    let busy = cluster
        .migrate(g::migrate_request::Verb::Split(split))
        .await
        .unwrap_err();
    assert_eq!(Error::from(busy).code(), "shard_replicas_busy");
    let back = || g::migrate_request::Verb::PutBack(g::PutBack { shard: 0 });
    cluster.migrate(back()).await.unwrap();
    over(&cluster).await;
    assert_eq!(replicas(&cluster).await, names(&["a", "b", "c"]));
    assert_eq!(cluster.leader(0).unwrap(), leader);
    assert!(scene.least() >= 3);
    let again = cluster.migrate(back()).await.unwrap_err();
    assert_eq!(Error::from(again).code(), "shard_replicas_unknown");
    until("the new nodes have put it away", async || {
        ["d", "e"]
            .iter()
            .all(|name| !cluster.dir_of(name).join("shard-0000").exists())
    })
    .await;
    scene.load.more(30).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coordination_goes_and_the_table_changes_in_the_middle() {
    let nodes = ["a", "b", "c", "d", "e", "f"];
    let old: &[&str] = &["a", "b", "c"];
    let cluster = Cluster::start(&nodes, &[old, old]).await;
    let router = cluster.router();
    let recall = Recall::start(&router).await;
    let load = Load::start(&router, 2, 100, 1);
    let sets = cluster.coordination.sets.lock().len();
    cluster.migrate(replace(0, &["d", "e", "f"])).await.unwrap();
    cluster.coordination.cut(true);
    load.more(100).await;
    assert!(placing(&cluster).await.is_some(), "it waits");
    cluster.coordination.cut(false);
    // Other changes of the table come between.
    let split = g::Split {
        shard: 1,
        replicas: Vec::new(),
    };
    let split = g::migrate_request::Verb::Split(split);
    cluster.migrate(split).await.unwrap();
    over(&cluster).await;
    until("the split is over", async || {
        cluster.table().await.migration().is_none()
    })
    .await;
    assert_eq!(replicas(&cluster).await, names(&["d", "e", "f"]));
    let least = sets_since(&cluster, sets).iter().map(Vec::len).min();
    assert!(least.unwrap() >= 3);
    cluster.settled().await;
    let scene = Scene {
        cluster,
        router,
        load,
        recall,
        sets,
    };
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_replica_goes_to_another_node() {
    let cluster = Cluster::start(&["a", "b"], &[&["a"]]).await;
    let router = cluster.router();
    let recall = Recall::start(&router).await;
    let load = Load::start(&router, 2, 100, 1);
    let sets = cluster.coordination.sets.lock().len();
    cluster.migrate(replace(0, &["b"])).await.unwrap();
    over(&cluster).await;
    assert_eq!(replicas(&cluster).await, names(&["b"]));
    load.more(20).await;
    cluster.kill("a");
    let scene = Scene {
        cluster,
        router,
        load,
        recall,
        sets,
    };
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_there_gets_no_replica() {
    let cluster = Cluster::start(&["a", "b"], &[&["a", "b"]]).await;
    let cases = [
        (replace(0, &["a", "z"]), "shard_node_absent"),
        (replace(0, &["a", "A"]), "shard_node"),
        (replace(0, &["b", "a"]), "shard_replicas"),
        (replace(0, &["a", "a"]), "shard_replicas"),
        (replace(0, &[]), "shard_replicas"),
        (replace(7, &["a"]), "shard_unknown"),
    ];
    for (change, code) in cases {
        let status = cluster.migrate(change).await.unwrap_err();
        let error = Error::from(status);
        assert_eq!(error.code(), code, "{error}");
    }
    assert_eq!(placing(&cluster).await, None);
}
