//! Slots that change hands under load.

use crate::harness::*;
use crate::load::*;
use g::migrate_request::Verb;
use skerry_vector_shard::wire::grpc as g;
use skerry_vector_shard::{Router, ShardId, slot_of};

async fn over(cluster: &Cluster) {
    until("the migration is over", async || {
        cluster.table().await.migration().is_none()
    })
    .await;
}

/// Each replica's own records, all of them in the shard's slots, once the sweeps are done.
async fn swept(cluster: &Cluster, router: &Router) {
    let total = router
        .search(&[query(ALL)], ask(5_000))
        .await
        .unwrap()
        .lists[0]
        .len() as u64;
    until("each shard has its own records alone", async || {
        let mut sum = 0;
        for client in cluster.clients() {
            let stats = client
                .clone()
                .stats(g::StatsRequest {})
                .await
                .unwrap()
                .into_inner();
            let leads = stats.shards.iter().filter(|shard| shard.role == "leading");
            sum += leads.map(|shard| shard.records).sum::<u64>();
        }
        sum == total
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_and_moves_under_load_lose_nothing() {
    let cluster = Cluster::start(&["a", "b", "c"], &[&["a", "b", "c"]]).await;
    let router = cluster.router();
    let load = Load::start(&router, 3, 150, 3);
    load.more(50).await;
    let epoch = cluster.table().await.epoch();
    for shard in [0, 1] {
        let split = g::Split {
            shard,
            replicas: Vec::new(),
        };
        let begun = cluster.migrate(Verb::Split(split)).await.unwrap();
        assert!(begun.slots >= 4_096);
        over(&cluster).await;
        load.more(30).await;
    }
    let table = cluster.table().await;
    assert_eq!(table.shards().len(), 3);
    let few = table.shard(ShardId(2)).unwrap().slots.last(1_000);
    let slots = few.iter().map(u32::from).collect();
    cluster
        .migrate(Verb::Move(g::Move {
            from: 2,
            to: 0,
            slots,
        }))
        .await
        .unwrap();
    over(&cluster).await;
    load.more(30).await;
    let table = cluster.table().await;
    assert!(table.shard(ShardId(0)).unwrap().slots.covers(&few));
    assert!(table.epoch() >= epoch + 6);
    let (model, token, _) = load.end().await;
    check(&router, &model, &token).await;
    swept(&cluster, &router).await;
    check(&router, &model, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_outlives_the_death_of_either_leader() {
    let cluster = Cluster::start(&["a", "b", "c"], &[&["a", "b", "c"]]).await;
    let router = cluster.router();
    let load = Load::start(&router, 3, 300, 2);
    load.more(80).await;
    for round in 0..4u32 {
        let source = round % 2;
        let split = g::Split {
            shard: source,
            replicas: Vec::new(),
        };
        let begun = cluster.migrate(Verb::Split(split)).await.unwrap();
        // At whatever step it is: the giving leader, then the receiving one.
        let victim = if round % 2 == 0 { begun.from } else { begun.to };
        until("it is led", async || {
            cluster.leader(victim).is_some() || cluster.table().await.migration().is_none()
        })
        .await;
        if let Some(leader) = cluster.leader(victim) {
            cluster.kill(&leader);
            load.more(20).await;
            cluster.up(&leader).await;
        }
        over(&cluster).await;
        cluster.settled().await;
        load.more(20).await;
    }
    let (model, token, _) = load.end().await;
    check(&router, &model, &token).await;
    swept(&cluster, &router).await;
    check(&router, &model, &token).await;
    assert_eq!(cluster.table().await.shards().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_given_up_leaves_nothing() {
    let cluster = Cluster::start(&["a", "b", "c"], &[&["a", "b"], &["a", "b"]]).await;
    let router = cluster.router();
    let load = Load::start(&router, 2, 200, 2);
    load.more(40).await;
    let shards = cluster.table().await.shards().to_vec();
    // `d` is not there: the new shard has nobody, and the migration cannot end.
    let split = g::Split {
        shard: 0,
        replicas: vec!["d".to_owned()],
    };
    let begun = cluster.migrate(Verb::Split(split)).await.unwrap();
    load.more(20).await;
    let busy = cluster
        .migrate(Verb::Split(g::Split {
            shard: 1,
            replicas: Vec::new(),
        }))
        .await;
    let busy = skerry_vector_shard::Error::from(busy.unwrap_err());
    assert_eq!(busy.code(), "shard_migration_busy");
    let abort = g::Abort {
        migration: begun.migration,
    };
    cluster.migrate(Verb::Abort(abort)).await.unwrap();
    assert_eq!(
        cluster.table().await.shards(),
        shards,
        "as before, but for the epoch"
    );

    // Given up while it copies, if it is slow enough for that; the receiver sweeps what it has.
    let slots = shards[0].slots.iter().map(u32::from).take(4_000).collect();
    let begun = cluster
        .migrate(Verb::Move(g::Move {
            from: 0,
            to: 1,
            slots,
        }))
        .await
        .unwrap();
    let aborted = cluster
        .migrate(Verb::Abort(g::Abort {
            migration: begun.migration,
        }))
        .await;
    println!("aborted: {}", aborted.is_ok());
    over(&cluster).await;
    let (model, token, _) = load.end().await;
    check(&router, &model, &token).await;
    swept(&cluster, &router).await;
    check(&router, &model, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_with_an_old_table_finds_its_way() {
    let cluster = Cluster::start(&["a", "b"], &[&["a", "b"]]).await;
    let router = cluster.router();
    let model: Model = (0..300).map(|at| (format!("i{at}"), 1)).collect();
    let writes = model.keys().map(|id| upsert(id, 1)).collect();
    let token = router.write(writes, 5_000).await.unwrap().all().unwrap();
    let old = cluster.table().await.epoch();
    cluster
        .migrate(Verb::Split(g::Split {
            shard: 0,
            replicas: Vec::new(),
        }))
        .await
        .unwrap();
    over(&cluster).await;
    // By hand with the old epoch: refused, with the epoch that is in force.
    let request = g::SearchRequest {
        shard: 0,
        epoch: old,
        left_ms: 1_000,
        min_seq: 0,
        queries: vec![skerry_vector_shard::wire::query_out(&query(3)).unwrap()],
    };
    let leader = cluster.leader(0).unwrap();
    let status = cluster.client(&leader).search(request).await.unwrap_err();
    match skerry_vector_shard::Error::from(status) {
        skerry_vector_shard::Error::Refused {
            code, epoch, safe, ..
        } => {
            assert_eq!((code.as_str(), safe), ("shard_epoch", true));
            assert!(epoch > old);
        }
        other => panic!("{other}"),
    }
    check(&router, &model, &token).await;
    let table = cluster.table().await;
    let moved = model
        .keys()
        .find(|id| table.owner(slot_of(id)).unwrap().id == ShardId(1))
        .unwrap();
    let later = router
        .write(vec![upsert(moved, 2)], 2_000)
        .await
        .unwrap()
        .all()
        .unwrap();
    assert_eq!(later.seqs.keys().collect::<Vec<_>>(), [&ShardId(1)]);
    let mut model = model.clone();
    model.insert(moved.clone(), 2);
    check(&router, &model, &later).await;
}
