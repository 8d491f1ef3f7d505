//! A list just past its freshness serves at once, and the next one is made behind it.

use crate::within;
use skerry_scenarios::process::Pair;
use std::time::Duration;

const FRESH: Duration = Duration::from_millis(1_000);
/// Users tried until the PoP has heard of the shorter freshness.
const USERS_MAX: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn a_stale_list_serves_while_the_next_is_made() {
    let mut pair = Pair::start(None).unwrap();
    let fresh_ms = FRESH.as_millis().to_string();
    pair.env = ["SKERRY_FRESH_ACTIVE_MS", "SKERRY_FRESH_IDLE_MS"]
        .map(|name| (name.to_owned(), fresh_ms.clone()))
        .to_vec();
    tokio::task::block_in_place(|| pair.restart_origin()).unwrap();
    let mut edge = pair.edge();
    let mut stale = None;
    for user in 1..=USERS_MAX {
        let target = format!("/v1/recommend/{user}?n=10");
        edge.get(&target).await.unwrap();
        tokio::time::sleep(FRESH * 3 / 2).await;
        let answer = edge.get(&target).await.unwrap();
        if answer.json()["served"]["cache"] == "stale" {
            stale = Some((target, answer));
            break;
        }
    }
    let (target, answer) = stale.expect("no list was served past its freshness");
    assert_eq!((answer.status, answer.rung()), (200, "full"));
    let old = answer.json()["served"]["decision_id"].clone();
    let renewed = within(FRESH * 5, async || {
        let answer = edge.get(&target).await.unwrap().json();
        answer["served"]["cache"] == "hit" && answer["served"]["decision_id"] != old
    });
    assert!(renewed.await, "no other list was made behind {old}");
    let metrics = edge.get("/metrics").await.unwrap();
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(
        text.contains("skerry_revalidations_total{outcome=\"done\"}"),
        "{text}"
    );
}
