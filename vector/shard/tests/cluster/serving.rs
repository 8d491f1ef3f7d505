//! A cluster that is well.

use crate::harness::*;
use crate::load::*;
use skerry_types::Slot;
use skerry_vector_index::Write;
use skerry_vector_shard::wire::{self, grpc as g};
use skerry_vector_shard::{Ask, ShardId, SlotSet, slot_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_reads_its_writes_on_every_replica() {
    let cluster = Cluster::start(&["a", "b", "c"], &[&["a", "b", "c"], &["b", "c", "a"]]).await;
    let router = cluster.router();
    let model: Model = (0..400).map(|at| (format!("i{at}"), 1)).collect();
    let writes = model.keys().map(|id| upsert(id, 1)).collect();
    let token = router.write(writes, 5_000).await.unwrap().all().unwrap();
    assert_eq!(token.seqs.len(), 2, "both shards have some");
    check(&router, &model, &token).await;

    // Every replica, asked by itself, has what the token says.
    let table = cluster.table().await;
    for (name, mut client) in ["a", "b", "c"].map(|name| (name, cluster.client(name))) {
        let mut total = 0;
        for shard in table.shards() {
            let request = g::SearchRequest {
                shard: shard.id.0,
                epoch: table.epoch(),
                left_ms: 2_000,
                min_seq: token.seqs[&shard.id],
                queries: vec![wire::query_out(&query(ALL)).unwrap()],
            };
            let reply = client.search(request).await.unwrap().into_inner();
            let ids = &reply.lists[0].found;
            assert!(
                ids.iter()
                    .all(|found| shard.slots.contains(slot_of(&found.id)))
            );
            total += ids.len();
        }
        assert_eq!(total, 400, "{name}");
    }

    // A search of some slots asks their shards alone.
    let slots: SlotSet = [slot_of("i7").0].into_iter().collect();
    let before = router.counts().calls;
    let asked = Ask {
        slots: Some(&slots),
        ..ask(1_000)
    };
    let found = router.search(&[query(ALL)], asked).await.unwrap();
    assert_eq!(router.counts().calls - before, 1);
    let owner = table.owner(Slot(slot_of("i7").0)).unwrap();
    assert!(
        found.lists[0]
            .iter()
            .all(|found| owner.slots.contains(slot_of(&found.id)))
    );

    let deleted = router
        .write(vec![Write::Delete("i7".into())], 2_000)
        .await
        .unwrap()
        .all()
        .unwrap();
    let found = router
        .get(
            &["i7", "i8"],
            Ask {
                after: Some(&deleted),
                ..ask(1_000)
            },
        )
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shard_refuses_has_a_code() {
    let cluster = Cluster::start(&["a", "b"], &[&["a", "b"], &["a", "b"]]).await;
    let router = cluster.router();
    let table = cluster.table().await;
    let id = |shard: u32| {
        let slots = &table.shard(ShardId(shard)).unwrap().slots;
        (0..)
            .map(|at| format!("x{at}"))
            .find(|id| slots.contains(slot_of(id)))
            .unwrap()
    };
    let leader = cluster.leader(0).unwrap();
    let follower = if leader == "a" { "b" } else { "a" };
    let write = |shard, epoch, write: Write| g::WriteRequest {
        shard,
        epoch,
        left_ms: 1_000,
        writes: vec![wire::write_out(write)],
    };
    let now = table.epoch();
    let mut wrong = record(&id(0), 1);
    wrong.vector.push(0.0);
    let mut nan = record(&id(0), 1);
    nan.vector[1] = f32::NAN;
    let writes = [
        (
            leader.as_str(),
            write(0, now, upsert(&id(1), 1)),
            "shard_slot_not_owned",
        ),
        (
            leader.as_str(),
            write(0, 0, upsert(&id(0), 1)),
            "shard_epoch",
        ),
        (
            leader.as_str(),
            write(0, now + 100, upsert(&id(0), 1)),
            "shard_request",
        ),
        (
            leader.as_str(),
            write(9, now, upsert(&id(0), 1)),
            "shard_not_here",
        ),
        (
            follower,
            write(0, now, upsert(&id(0), 1)),
            "shard_not_leader",
        ),
        (
            leader.as_str(),
            write(0, now, Write::Upsert(wrong)),
            "vector_dim",
        ),
        (
            leader.as_str(),
            write(0, now, Write::Upsert(nan)),
            "vector_not_finite",
        ),
        (
            leader.as_str(),
            g::WriteRequest {
                writes: Vec::new(),
                ..write(0, now, upsert("x", 1))
            },
            "shard_request",
        ),
        (
            leader.as_str(),
            g::WriteRequest {
                writes: vec![g::Write { change: None }],
                ..write(0, now, upsert("x", 1))
            },
            "shard_request",
        ),
    ];
    for (at, request, want) in writes {
        let status = cluster.client(at).write(request).await.unwrap_err();
        let error = skerry_vector_shard::Error::from(status);
        assert_eq!(error.code(), want, "{error}");
    }
    let search = |epoch, min_seq, query: g::Query| g::SearchRequest {
        shard: 0,
        epoch,
        left_ms: 100,
        min_seq,
        queries: vec![query],
    };
    let good = wire::query_out(&query(1)).unwrap();
    let filter = g::Query {
        filter: b"no filter".to_vec(),
        ..good.clone()
    };
    let short = g::Query {
        vectors: vec![g::Vector { values: vec![1.0] }],
        ..good.clone()
    };
    let searches = [
        (search(0, 0, good.clone()), "shard_epoch"),
        (search(now, 99, good), "shard_behind"),
        (search(now, 0, filter), "shard_request"),
        (search(now, 0, short), "vector_query_dim"),
    ];
    for (request, want) in searches {
        let status = cluster.client(follower).search(request).await.unwrap_err();
        let error = skerry_vector_shard::Error::from(status);
        assert_eq!(error.code(), want, "{error}");
    }
    // The router names the caller's fault, and asks nobody else.
    let mut wrong = query(1);
    wrong.vectors[0].pop();
    let error = router.search(&[wrong], ask(1_000)).await.unwrap_err();
    assert_eq!(error.code(), "vector_query_dim");
    assert_eq!(router.counts().retries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn between_machines_only_shard_nodes_are_heard() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
    use skerry_vector_shard::coordination::embedded::Embedded;
    use skerry_vector_shard::memory::MemoryStores;
    use skerry_vector_shard::{Admin, Options, Tls, tls};
    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let folder = |role: &str| {
        let folder = dir.path().join(role);
        std::fs::create_dir(&folder).unwrap();
        let mut params = CertificateParams::default();
        let uri = format!("skerry://local/{role}/x");
        params.subject_alt_names = vec![
            SanType::URI(uri.as_str().try_into().unwrap()),
            SanType::DnsName(tls::SERVER_NAME.try_into().unwrap()),
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(folder.join("ca.crt"), ca.pem()).unwrap();
        std::fs::write(folder.join("vector.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.join("vector.key"), key.serialize_pem()).unwrap();
        Tls::read(&folder).unwrap()
    };
    let (ours, other) = (folder("vector"), folder("pop"));
    let stores = std::sync::Arc::new(MemoryStores::new(spec(), 100));
    let options = || {
        let coordination = std::sync::Arc::new(Embedded::default());
        Options::new(
            node("a"),
            dir.path().join("a"),
            coordination,
            stores.clone(),
        )
    };
    let mut open = options();
    open.listen = "0.0.0.0:0".parse().unwrap();
    let error = open.build().await.err().unwrap();
    assert_eq!(
        error.code(),
        "shard_listen",
        "beyond this machine not without keys"
    );

    let mut options = options();
    options.tls = Some(ours.clone());
    let built = options.build().await.unwrap();
    let addr = built.handle().addr().to_string();
    let handle = built.handle();
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(built.run(stop.clone().cancelled_owned()));
    handle.ready().await;
    let admin = |tls: Option<&Tls>| Admin::new(&addr, tls.map(|tls| tls.client.clone()));
    assert_eq!(admin(Some(&ours)).overview().await.unwrap().shards.len(), 1);
    let refused = admin(Some(&other)).overview().await.unwrap_err();
    assert!(
        refused.to_string().contains("not for shard nodes"),
        "{refused}"
    );
    assert!(admin(None).overview().await.is_err(), "not without TLS");
    stop.cancel();
    running.await.unwrap().unwrap();
}
