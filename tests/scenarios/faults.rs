//! The origin is killed under load; the PoP is killed while the origin is down.

use crate::{arrived, event, within};
use serde_json::Value;
use skerry_scenarios::load::{Load, Sample, percentile_ms, tally};
use skerry_scenarios::process::Pair;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Requests a second.
const RATE: u64 = 200;
/// One user in five is unknown. All users are asked for on both surfaces; what is cached of one
/// helps nothing on the other.
fn mixed(number: u64, surface: &str) -> (String, String) {
    let user = if number % 5 == 4 {
        format!("stranger-{}", number % 97)
    } else {
        format!("{}", 1 + number * 7 % 500)
    };
    let target = format!("/v1/recommend/{user}?n=10&surface={surface}");
    (user, target)
}

fn is_known(sample: &Sample) -> bool {
    !sample.user.starts_with("stranger")
}

async fn sleep_s(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn origin_killed_under_load() {
    let mut pair = Pair::start(None).unwrap();
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let load = Load::start(pair.edge_url(), RATE, 16, move |number| {
        mixed(
            number,
            if is_down.load(Ordering::Relaxed) {
                "other"
            } else {
                "home"
            },
        )
    });
    sleep_s(4.0).await;
    pair.origin.kill();
    down.store(true, Ordering::Relaxed);
    let killed = load.now();

    // Events go on being accepted: 20 users, 10 each, while the origin is gone.
    let mut edge = pair.edge();
    let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for round in 0..10 {
        let ids: Vec<(String, String)> = (0..20)
            .map(|user| {
                (
                    format!("outage-user-{user}"),
                    format!("outage-{user}-{round}"),
                )
            })
            .collect();
        let batch: Vec<Value> = ids
            .iter()
            .map(|(user, id)| event(id, "view", user, "12"))
            .collect();
        let reply = edge.post("/v1/events", &Value::Array(batch)).await.unwrap();
        assert_eq!(
            (reply.status, reply.json()["accepted"].as_u64()),
            (202, Some(20)),
            "events during the outage"
        );
        ids.into_iter()
            .for_each(|(user, id)| sent.entry(user).or_default().push(id));
        sleep_s(0.5).await;
    }
    let restarting = load.now();
    tokio::task::block_in_place(|| pair.restart_origin()).unwrap();
    let mut admin = pair.admin();
    let ready = within(Duration::from_secs(20), async || {
        admin.get("/readyz").await.is_ok_and(|r| r.status == 200)
    })
    .await;
    assert!(ready, "the origin is not ready: {}", pair.origin.tail());
    let recovered = load.now() + Duration::from_secs(10);
    sleep_s(14.0).await;
    let samples = load.finish().await;

    let failed: Vec<&Sample> = samples
        .iter()
        .filter(|sample| sample.status != 200)
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} not 200: {:?}",
        failed.len(),
        samples.len(),
        failed.first()
    );
    let open = killed + Duration::from_secs(2);
    let outage: Vec<&Sample> = samples
        .iter()
        .filter(|s| s.at > open && s.at < restarting)
        .collect();
    eprintln!("outage: {:?}", tally(outage.iter().copied()));
    for sample in &outage {
        let fresh_hit = sample.cache == "hit" && sample.rung == "full";
        let right = match (is_known(sample), sample.rung.as_str()) {
            (_, "full") => fresh_hit,
            (true, "edge") | (false, "popular") => !sample.cause.is_empty(),
            _ => false,
        };
        assert!(right, "{sample:?}");
    }
    let p99 = percentile_ms(outage.iter().copied(), 99.0);
    eprintln!("outage: p99 {p99:.1} ms over {} answers", outage.len());
    assert!(p99 <= 10.0, "p99 {p99:.1} ms with the breaker open");
    let after: Vec<&Sample> = samples
        .iter()
        .filter(|s| s.at > recovered && is_known(s))
        .collect();
    eprintln!("after: {:?}", tally(after.iter().copied()));
    let top = after.iter().filter(|sample| sample.rung == "full").count();
    assert!(
        top * 100 >= after.len() * 99 && !after.is_empty(),
        "{top} of {} on the top rung",
        after.len()
    );
    check_arrived(&mut admin, &sent).await;
}

/// Every event of `sent` is at the origin, each once, within 20 s.
async fn check_arrived(
    admin: &mut skerry_scenarios::http::Client,
    sent: &BTreeMap<String, Vec<String>>,
) {
    for (user, ids) in sent {
        let mut want = ids.clone();
        want.sort();
        let mut got = Vec::new();
        let all = within(Duration::from_secs(20), async || {
            got = arrived(admin, user).await;
            got.sort();
            got.len() >= want.len()
        })
        .await;
        assert!(
            all && got == want,
            "{user}: sent {want:?}, at the origin {got:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn pop_killed_while_the_origin_is_down() {
    let mut pair = Pair::start(None).unwrap();
    // Served once, so that the PoP knows this user.
    let known = pair.edge().get("/v1/recommend/1").await.unwrap();
    assert_eq!((known.status, known.rung()), (200, "full"));
    // Contexts are written down up to a second late; what follows is about events.
    sleep_s(1.5).await;
    pair.origin.kill();
    let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut edge = pair.edge();
    for number in 0..40 {
        let (user, id) = (
            format!("crash-user-{}", number % 4),
            format!("crash-{number}"),
        );
        let reply = edge
            .post(
                "/v1/events",
                &event(&id, "like", &user, &format!("{}", 20 + number)),
            )
            .await
            .unwrap();
        assert_eq!(reply.status, 202);
        sent.entry(user).or_default().push(id);
    }
    let began = Instant::now();
    tokio::task::block_in_place(|| pair.restart_pop()).unwrap();
    let mut edge = pair.edge();
    let answer = edge.get("/v1/recommend/1").await.unwrap();
    eprintln!(
        "restarted and answered in {:.2} s: {} {}",
        began.elapsed().as_secs_f64(),
        answer.rung(),
        answer.cause()
    );
    assert_eq!(
        (answer.status, answer.rung()),
        (200, "edge"),
        "{:?}",
        answer.json()
    );
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    // What was acknowledged is also still applied: these users are known by their events alone.
    let answer = edge.get("/v1/recommend/crash-user-0").await.unwrap();
    assert_eq!(answer.rung(), "edge", "{:?}", answer.json());
    assert!(
        !answer.ids().contains(&"20".to_owned()),
        "a liked item is shown again"
    );
    tokio::task::block_in_place(|| pair.restart_origin()).unwrap();
    check_arrived(&mut pair.admin(), &sent).await;
}
