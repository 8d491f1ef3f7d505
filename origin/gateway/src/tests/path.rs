use super::world::*;
use sha2::Digest;
use skerry_types::ItemId;
use skerry_wire::frame::{Answer, ContextPush, Control, PushKind, RefusalCode};
use skerry_wire::value::{MaskBlob, PoolBlob, PopularBlob};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn ids(answer: &Answer) -> Vec<ItemId> {
    let candidates = answer.decision().unwrap().candidates;
    candidates.into_iter().map(|one| one.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pop_is_pushed_to_asks_and_delivers_once() {
    let origin = Running::start().await;
    let mut pop = origin.pop("p1").await;
    let mut kinds = BTreeSet::new();
    let mut pool_rows = 0;
    while kinds.len() < 5 {
        let (header, body) = pop.push().await;
        assert_eq!(header.sha256, <[u8; 32]>::from(sha2::Sha256::digest(&body)));
        assert!(
            pop.welcome
                .current
                .contains(&(header.kind, header.epoch, header.sha256))
        );
        match header.kind {
            PushKind::Pool => {
                pool_rows = skerry_wire::decode::<PoolBlob>(&body).unwrap().items.len()
            }
            PushKind::Popular => assert!(
                !skerry_wire::decode::<PopularBlob>(&body).unwrap().lists[0]
                    .list
                    .items
                    .is_empty()
            ),
            _ => {}
        }
        kinds.insert(header.kind);
    }
    assert_eq!(pool_rows, ITEMS);

    // A known user: nothing that was liked, and the context with the answer.
    let question = ask(Some("1"), 10);
    let answer = pop.ask(&question).await;
    let decided = answer.outcome.unwrap();
    let context = decided.context.as_ref().unwrap().read().unwrap();
    let shown = ids(&decided);
    assert!(shown.len() >= 10);
    assert!(shown.iter().all(|id| !context.has_seen(id.hash())));
    assert_eq!(answer.stages.len(), 6);

    // An event counts once, whoever repeats it, and shows in the next answer.
    let liked = shown[0].clone();
    let like = event("live-1", "1", liked.as_str(), 2_000_000);
    let before = origin.handle.events().unwrap();
    pop.deliver(1, vec![like.clone()]).await;
    pop.deliver(2, vec![like.clone(), like]).await;
    assert_eq!(origin.handle.events().unwrap(), before + 1);
    let answer = pop.ask(&ask(Some("1"), 10)).await.outcome.unwrap();
    assert!(!ids(&answer).contains(&liked), "a liked item is gone");

    // What has not been delivered yet counts as well.
    let pending = ids(&answer)[0].clone();
    let mut frame = ask(Some("1"), 10);
    frame.pending = vec![event("live-2", "1", pending.as_str(), 2_000_001)];
    let answer = pop.ask(&frame).await.outcome.unwrap();
    assert!(!ids(&answer).contains(&pending));

    // The whole decision is explained.
    let path = format!("/v1/explain/{}", question.request_id);
    let mut explained = serde_json::Value::Null;
    for _ in 0..50 {
        let (status, _, body) = origin.http("GET", &path, b"").await;
        explained = body;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        explained["decision"]["outcome"]["decision_id"],
        decided.decision().unwrap().id.to_string(),
        "{explained}"
    );
    assert_eq!(explained["decision"]["features"][0]["status"], "PRESENT");
    assert!(
        explained["decision"]["outcome"]["candidates"]
            .as_array()
            .unwrap()
            .len()
            >= 10
    );
    assert!(
        explained["decision"]["outcome"]["draw"]["seed"]
            .as_u64()
            .is_some()
    );

    // Titles are the catalogue's: the decision is kept without them.
    let first = &explained["decision"]["outcome"]["candidates"][0];
    let number = shown[0].as_str();
    assert_eq!(first["id"], number, "{first}");
    assert_eq!(first["title"], format!("Item {number}"), "{first}");

    // A hidden item: a new mask at once, and no answer has it.
    let hidden = shown[1].clone();
    let asked = Instant::now();
    let (status, _, _) = origin
        .http(
            "PATCH",
            &format!("/v1/items/{hidden}"),
            br#"{"hidden":true}"#,
        )
        .await;
    assert_eq!(status, 200);
    let (header, mask) = pop.push_of(PushKind::Mask).await;
    let took = asked.elapsed();
    let old = pop
        .welcome
        .current
        .iter()
        .find(|(kind, _, _)| *kind == PushKind::Mask)
        .unwrap()
        .1;
    assert!(header.epoch > old);
    assert_eq!(
        skerry_wire::decode::<MaskBlob>(&mask).unwrap().entries[0].0,
        hidden.hash()
    );
    println!("a takedown reached the PoP in {} ms", took.as_millis());
    assert!(took < Duration::from_secs(5));
    let answer = pop.ask(&ask(Some("1"), 50)).await.outcome.unwrap();
    assert!(!ids(&answer).contains(&hidden));

    // An erased user is forgotten here and there.
    let (status, _, receipt) = origin.http("DELETE", "/v1/users/1", b"").await;
    assert_eq!((status, receipt["events"].as_u64()), (200, Some(13)));
    assert_eq!(receipt["pops"], serde_json::json!(["p1"]));
    let (_, push) = pop.push_of(PushKind::Contexts).await;
    assert_eq!(
        skerry_wire::decode::<ContextPush>(&push).unwrap().erased[0].as_str(),
        "1"
    );
    loop {
        if let Control::Invalidate { tags, .. } = pop.control().await {
            assert_eq!(&*tags[0], "user:u:1");
            break;
        }
    }
    assert!(
        pop.ask(&ask(Some("1"), 10))
            .await
            .outcome
            .unwrap()
            .context
            .is_none()
    );
    assert_eq!(origin.http("GET", "/v1/users/1", b"").await.0, 404);
    assert_eq!(
        origin.http("GET", &path, b"").await.0,
        404,
        "explanations too"
    );
    origin.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contexts_come_back_to_a_pop_that_reconnects_and_spread_to_others() {
    let origin = Running::start().await;
    let mut a = origin.pop("a").await;
    let b = origin.pop("b").await;
    a.ask(&ask(Some("5"), 5)).await.outcome.unwrap();
    b.ask(&ask(Some("5"), 5)).await.outcome.unwrap();
    let mut live = event("live", "5", "70", 3_000_000);
    live.pop = "a".into();
    a.deliver(1, vec![live]).await;
    let (_, push) = b.push_of(PushKind::Contexts).await;
    let push: ContextPush = skerry_wire::decode(&push).unwrap();
    assert!(
        push.contexts[0]
            .1
            .has_seen(ItemId::new("70").unwrap().hash()),
        "the other PoP hears of it"
    );
    // A PoP that holds everything current is sent contexts only.
    let held = a.welcome.current.clone();
    drop(a);
    let again = Pop::connect(&origin.certificates, origin.handle.quic_addr(), "a", held).await;
    let (header, push) = again.push().await;
    assert_eq!(header.kind, PushKind::Contexts);
    assert_eq!(
        skerry_wire::decode::<ContextPush>(&push).unwrap().contexts[0]
            .0
            .as_str(),
        "5"
    );
    origin.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_cannot_be_answered_are_refused_at_once() {
    let origin = Running::start_with(|options| options.limits.asks_max = 1).await;
    let pop = origin.pop("p").await;
    let mut late = ask(Some("1"), 10);
    late.left_ms = 0;
    assert_eq!(
        pop.ask(&late).await.outcome.unwrap_err().code,
        RefusalCode::Deadline
    );
    let mut other = ask(Some("1"), 10);
    other.ask.tenant = skerry_types::TenantId::new("other").unwrap();
    // The only place is free a moment after an answer has arrived.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        pop.ask(&other).await.outcome.unwrap_err().code,
        RefusalCode::Bad
    );
    tokio::time::sleep(Duration::from_millis(50)).await;
    // One question holds the only place while it dawdles over its frame.
    let (mut slow, _recv) = pop.connection.open_bi().await.unwrap();
    slow.write_all(&[9]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        pop.ask(&ask(Some("1"), 10)).await.outcome.unwrap_err().code,
        RefusalCode::Overloaded
    );
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(
        pop.ask(&ask(Some("1"), 10)).await.outcome.is_ok(),
        "the place is free again"
    );
    origin.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_says_so_and_finishes_what_is_in_flight() {
    let origin = Running::start().await;
    let mut pop = origin.pop("p").await;
    let asks: Vec<_> = (0..20).map(|n| ask(Some(&n.to_string()), 10)).collect();
    let in_flight = futures_all(asks.iter().map(|frame| pop.ask(frame)));
    let answers = in_flight.await;
    assert!(answers.iter().all(|answer| answer.outcome.is_ok()));
    write(
        &mut pop.send,
        &Control::Events {
            seq: 9,
            events: vec![event("last", "1", "3", 4_000_000)],
        },
    )
    .await;
    let stopping = tokio::spawn(origin.stop());
    let (mut drained, mut acked) = (false, false);
    while !(drained && acked) {
        match pop.control().await {
            Control::Drain { .. } => drained = true,
            Control::Ack { seq: 9 } => acked = true,
            _ => {}
        }
    }
    stopping.await.unwrap();
}

async fn futures_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut out = Vec::new();
    for future in futures {
        out.push(future.await);
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn popular_lists_follow_events_between_trainings() {
    let player = skerry_types::Surface::new("player").unwrap();
    let surface = player.clone();
    let origin = Running::start_with(move |options| {
        options.popular_ms = 50;
        options.surfaces = vec![surface];
    })
    .await;
    let mut pop = origin.pop("p1").await;
    let lists = |body: Vec<u8>| {
        skerry_wire::decode::<PopularBlob>(&body)
            .unwrap()
            .lists
            .into_iter()
            .map(|one| (one.surface, one.list.items[0].id.to_string()))
            .collect::<Vec<_>>()
    };
    let (first, body) = pop.push_of(PushKind::Popular).await;
    let before = lists(body);
    assert_eq!(before.len(), 1);
    let rising = if before[0].1 == "17" { "18" } else { "17" };

    // Half of it on a surface of its own.
    let likes = |from: u64| {
        let one = |n: u64| {
            let user = format!("fan{n}");
            let mut like = event(&format!("t{n}"), &user, rising, 3_000_000 + n);
            like.surface = n.is_multiple_of(2).then(|| player.clone());
            like
        };
        (from..from + 400).map(one).collect::<Vec<_>>()
    };
    pop.deliver(1, likes(0)).await;
    let want = vec![
        (None, rising.to_owned()),
        (Some(player.clone()), rising.to_owned()),
    ];
    let moved = loop {
        let (header, body) = pop.push_of(PushKind::Popular).await;
        assert!(header.epoch > first.epoch);
        if lists(body) == want {
            break header;
        }
    };

    // More of the same changes nothing in them: nothing is sent.
    pop.deliver(2, likes(1_000)).await;
    let more = tokio::time::timeout(Duration::from_millis(400), pop.push_of(PushKind::Popular));
    let more = more.await.map(|(header, _)| header.epoch);
    assert!(more.is_err(), "{moved:?} then {more:?}");

    // The lists are those of the log: a restart has them again.
    let (dir, certificates) = origin.stop().await;
    let again = Running::start_in(dir, certificates, |options| {
        options.surfaces = vec![player.clone()];
    })
    .await
    .unwrap();
    let pop = again.pop("p2").await;
    let (_, body) = pop.push_of(PushKind::Popular).await;
    assert_eq!(lists(body), want);
    again.stop().await;
}

/// A stream that is dropped before its end was seen costs a datagram that says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_read_to_their_end() {
    const ASKED: u64 = 40;
    let origin = Running::start().await;
    let pop = origin.pop("p1").await;
    for _ in 0..ASKED {
        pop.ask(&ask(Some("1"), 10)).await.outcome.unwrap();
    }
    let told_to_stop = pop.connection.stats().frame_rx.stop_sending;
    // The end may come a datagram after the question, when both are on their way at once.
    assert!(
        told_to_stop < ASKED / 2,
        "{told_to_stop} of {ASKED} streams were not read to their end"
    );
    origin.stop().await;
}
