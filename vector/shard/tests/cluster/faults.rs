//! Kills, takeovers, cuts.

use crate::harness::*;
use crate::load::*;
use skerry_vector_shard::wire::grpc as g;
use skerry_vector_shard::{Error, ReadToken};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_dies_and_comes_back() {
    let cluster = Cluster::start(&["a", "b", "c"], &[&["a", "b", "c"]]).await;
    let router = cluster.router();
    let load = Load::start(&router, 2, 60, 2);
    load.more(50).await;
    let leader = cluster.leader(0).unwrap();
    let replica = ["a", "b", "c"]
        .into_iter()
        .find(|name| *name != leader)
        .unwrap();
    cluster.kill(replica);
    load.more(100).await;
    cluster.up(replica).await;
    cluster.settled().await;
    load.more(50).await;
    let (model, token, _) = load.end().await;
    check(&router, &model, &token).await;
    assert_eq!(cluster.leader(0).unwrap(), leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_die_one_after_the_other() {
    let cluster = Cluster::start(&["a", "b", "c"], &[&["a", "b", "c"]]).await;
    let router = cluster.router();
    let load = Load::start(&router, 3, 60, 2);
    for _ in 0..4 {
        load.more(40).await;
        let (leader, token) = (cluster.leader(0).unwrap(), cluster.token(0));
        cluster.kill(&leader);
        until("another leads", async || {
            cluster.leader(0).is_some_and(|now| now != leader)
        })
        .await;
        assert!(cluster.token(0) > token);
        load.more(40).await;
        cluster.up(&leader).await;
        cluster.settled().await;
    }
    let (model, token, _) = load.end().await;
    check(&router, &model, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_too_long_takes_a_snapshot() {
    let cluster = Cluster::start_with(&["a", "b", "c"], &[&["a", "b", "c"]], Some(50)).await;
    let router = cluster.router();
    let leader = cluster.leader(0).unwrap();
    let away = ["a", "b", "c"]
        .into_iter()
        .find(|name| *name != leader)
        .unwrap();
    cluster.kill(away);
    let mut model = Model::new();
    let mut token = ReadToken::default();
    for round in 0..20i64 {
        let ids: Vec<String> = (0..20)
            .map(|at| format!("i{}", (round * 7 + at) % 200))
            .collect();
        let writes = ids.iter().map(|id| upsert(id, round)).collect();
        token.merge(&router.write(writes, 5_000).await.unwrap().all().unwrap());
        model.extend(ids.into_iter().map(|id| (id, round)));
    }
    cluster.up(away).await;
    cluster.settled().await;
    let request = g::SearchRequest {
        shard: 0,
        epoch: token.epoch,
        left_ms: 5_000,
        min_seq: *token.seqs.values().next().unwrap(),
        queries: vec![skerry_vector_shard::wire::query_out(&query(ALL)).unwrap()],
    };
    let reply = cluster
        .client(away)
        .search(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reply.lists[0].found.len(), model.len());
    check(&router, &model, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_in_sync_replica_nothing_is_acknowledged() {
    let cluster = Cluster::start(&["a", "b"], &[&["a", "b"]]).await;
    let router = cluster.router();
    router
        .write(vec![upsert("x", 1)], 5_000)
        .await
        .unwrap()
        .all()
        .unwrap();
    let leader = cluster.leader(0).unwrap();
    cluster.kill(if leader == "a" { "b" } else { "a" });
    let error = router
        .write(vec![upsert("x", 2)], 2_000)
        .await
        .unwrap()
        .all()
        .unwrap_err();
    assert_eq!(error.code(), "shard_write_unconfirmed");
    assert!(!error.is_safe());
    router.search(&[query(1)], ask(1_000)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_coordination_writes_stop_and_searches_go_on() {
    let cluster = Cluster::start(&["a", "b", "c"], &[&["a", "b", "c"]]).await;
    let router = cluster.router();
    let token = router
        .write(vec![upsert("x", 1)], 5_000)
        .await
        .unwrap()
        .all()
        .unwrap();
    cluster.coordination.cut(true);
    // A node that starts now serves what it has, by the table that it saw last.
    let leader = cluster.leader(0).unwrap();
    let follower = ["a", "b", "c"]
        .into_iter()
        .find(|name| *name != leader)
        .unwrap();
    cluster.kill(follower);
    cluster.up(follower).await;
    let found = router.search(&[query(5)], ask(2_000)).await.unwrap();
    assert_eq!((found.lists[0].len(), found.is_partial()), (1, false));
    // The set cannot shrink without coordination: a write that needs it is not acknowledged.
    cluster.kill(follower);
    let error = router
        .write(vec![upsert("x", 2)], 3_000)
        .await
        .unwrap()
        .all()
        .unwrap_err();
    assert_eq!(error.code(), "shard_write_unconfirmed");
    cluster.coordination.cut(false);
    let token = {
        let mut later = router
            .write(vec![upsert("x", 3)], 5_000)
            .await
            .unwrap()
            .all()
            .unwrap();
        later.merge(&token);
        later
    };
    check(&router, &Model::from([("x".to_owned(), 3)]), &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_leader_is_refused() {
    let cluster = Cluster::start(&["a", "b", "c"], &[&["a", "b", "c"]]).await;
    let router = cluster.router();
    router
        .write(vec![upsert("x", 1)], 5_000)
        .await
        .unwrap()
        .all()
        .unwrap();
    let leader = cluster.leader(0).unwrap();
    let token = cluster.token(0);
    // A caller that has heard of a later leader tells the old one so: it gives nothing more away.
    let open = g::FollowOpen {
        shard: 0,
        node: "b".to_owned(),
        epoch: 1,
        token: token + 1,
        last_token: token,
        seq: 0,
        migration: 0,
    };
    let open = g::FollowRequest {
        open: Some(open),
        acked_seq: 0,
    };
    let status = cluster
        .client(&leader)
        .follow(tokio_stream::iter([open]))
        .await
        .unwrap_err();
    assert_eq!(Error::from(status).code(), "shard_fenced");
    let request = g::SnapshotRequest {
        shard: 0,
        node: "b".to_owned(),
        token: token + 1,
    };
    let status = cluster.client(&leader).snapshot(request).await.unwrap_err();
    assert_eq!(Error::from(status).code(), "shard_fenced");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_shard_says_so() {
    let cluster = Cluster::start(&["a", "b"], &[&["a"], &["b"]]).await;
    let router = cluster.router();
    let writes = (0..100).map(|at| upsert(&format!("i{at}"), 1)).collect();
    router.write(writes, 5_000).await.unwrap().all().unwrap();
    let whole = router.search(&[query(ALL)], ask(1_000)).await.unwrap();
    assert_eq!((whole.lists[0].len(), whole.is_partial()), (100, false));
    cluster.kill("b");
    let part = router.search(&[query(ALL)], ask(1_000)).await.unwrap();
    assert_eq!(part.missing, [skerry_vector_shard::ShardId(1)]);
    assert!((20..80).contains(&part.lists[0].len()));
    cluster.kill("a");
    let error = router.search(&[query(ALL)], ask(500)).await.unwrap_err();
    assert!(
        ["shard_unreachable", "shard_absent"].contains(&error.code()),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lacks_acknowledged_writes_does_not_lead() {
    let cluster = Cluster::start(&["a", "b", "c"], &[&["a", "b", "c"]]).await;
    let router = cluster.router();
    let leader = cluster.leader(0).unwrap();
    let away = ["a", "b", "c"]
        .into_iter()
        .find(|name| *name != leader)
        .unwrap();
    cluster.kill(away);
    let token = router
        .write(vec![upsert("x", 1)], 5_000)
        .await
        .unwrap()
        .all()
        .unwrap();
    // Whoever has the write goes; who lacks it comes back alone.
    let others: Vec<&str> = ["a", "b", "c"]
        .into_iter()
        .filter(|name| *name != away)
        .collect();
    others.iter().for_each(|name| cluster.kill(name));
    until("nobody leads", async || cluster.leader(0).is_none()).await;
    cluster.up(away).await;
    let written = router.write(vec![upsert("y", 1)], 1_500).await.unwrap();
    assert_eq!(
        written.failed[0].error.code(),
        "shard_not_leader",
        "it waits"
    );
    for name in others {
        cluster.up(name).await;
    }
    cluster.settled().await;
    check(&router, &Model::from([("x".to_owned(), 1)]), &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_disk_leaves_the_set_before_it_comes_back() {
    let cluster = Cluster::start(&["a", "b", "c"], &[&["a", "b", "c"]]).await;
    let router = cluster.router();
    let model: Model = (0..500).map(|at| (format!("i{at}"), 1)).collect();
    let writes = model.keys().map(|id| upsert(id, 1)).collect();
    let token = router.write(writes, 5_000).await.unwrap().all().unwrap();
    let leader = cluster.leader(0).unwrap();
    let lost = ["a", "b", "c"]
        .into_iter()
        .find(|name| *name != leader)
        .unwrap();
    // Nothing is written meanwhile: no write finds out.
    cluster.kill(lost);
    until("its files are free", async || {
        std::fs::remove_dir_all(cluster.dir_of(lost)).is_ok()
    })
    .await;
    let before = cluster.coordination.sets.lock().len();
    cluster.up(lost).await;
    let with = |(_, set): &(_, Vec<_>)| set.contains(&node(lost));
    // The leader may not have met it yet: then the set is still what it was.
    until("it left the set and is in it again", async || {
        let sets = cluster.coordination.sets.lock();
        sets[before..].last().is_some_and(with)
    })
    .await;
    cluster.settled().await;
    let sets: Vec<_> = cluster.coordination.sets.lock()[before..].to_vec();
    assert!(!with(&sets[0]), "{sets:?}");
    assert!(with(sets.last().unwrap()), "{sets:?}");
    for name in ["a", "b", "c"] {
        if name != lost {
            cluster.kill(name);
        }
    }
    // What it has now is everything.
    let request = g::SearchRequest {
        shard: 0,
        epoch: token.epoch,
        left_ms: 5_000,
        min_seq: *token.seqs.values().next().unwrap(),
        queries: vec![skerry_vector_shard::wire::query_out(&query(ALL)).unwrap()],
    };
    let reply = cluster.client(lost).search(request).await.unwrap();
    let reply = reply.into_inner();
    assert_eq!(reply.lists[0].found.len(), model.len());
}
