//! What users and operators see, through faults. One scenario at a time
//! (`cargo xtask test` runs them with one thread): they measure time.

mod bad_input;
mod events;
mod faults;
mod freshness;
mod quality;
mod rights;
#[cfg(feature = "etcd")]
mod shards;
mod similar;
mod snapshots;
mod start;
#[cfg(feature = "etcd")]
#[path = "../../vector/shard/tests/support/etcd.rs"]
mod support;

use serde_json::Value;
use skerry_scenarios::http::Client;
use std::time::{Duration, Instant};

/// Polls until `done`, at most `limit`; whether it came true.
async fn within(limit: Duration, mut done: impl AsyncFnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if done().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// Ids of a user's events that have arrived at the origin, through its admin API.
async fn arrived(admin: &mut Client, user: &str) -> Vec<String> {
    let Ok(reply) = admin
        .get(&format!("/v1/events?user={user}&limit=1000"))
        .await
    else {
        return Vec::new();
    };
    let answer = reply.json();
    let events = answer["events"].as_array().into_iter().flatten();
    events
        .filter_map(|event| event["event"]["id"].as_str().map(str::to_owned))
        .collect()
}

fn event(id: &str, kind: &str, user: &str, item: &str) -> Value {
    serde_json::json!({"id": id, "type": kind, "user": user, "item": item})
}
