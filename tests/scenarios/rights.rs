//! A hidden item is gone within 5 s on every rung, and stays gone when the origin is.

use serde_json::json;
use skerry_scenarios::process::Pair;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn a_hidden_item_is_gone_everywhere() {
    let mut pair = Pair::start(None).unwrap();
    let (mut edge, mut admin) = (pair.edge(), pair.admin());
    let personal = edge.get("/v1/recommend/5?n=10").await.unwrap().ids();
    let popular = edge.get("/v1/popular?n=10").await.unwrap().ids();
    let hidden = [
        personal.first().expect("a list").clone(),
        popular.first().expect("a list").clone(),
    ];
    for item in &hidden {
        let body = json!({"hidden": true}).to_string();
        let reply = admin
            .send(
                "PATCH",
                &format!("/v1/items/{item}"),
                &[],
                Some(body.as_bytes()),
            )
            .await
            .unwrap();
        assert!(
            (200..300).contains(&reply.status),
            "{}: {}",
            reply.status,
            reply.json()
        );
    }
    let began = Instant::now();
    let targets = [
        "/v1/recommend/5?n=10",
        "/v1/popular?n=10",
        "/v1/recommend/nobody?n=10",
        "/v1/recommend/6?n=50",
    ];
    loop {
        let mut shown = 0;
        for target in targets {
            let ids = edge.get(target).await.unwrap().ids();
            shown += hidden.iter().filter(|item| ids.contains(item)).count();
        }
        if shown == 0 {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "still shown after 5 s"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eprintln!("hidden after {:.2} s", began.elapsed().as_secs_f64());
    pair.origin.kill();
    tokio::task::block_in_place(|| pair.restart_pop()).unwrap();
    let mut edge = pair.edge();
    for user in ["5", "6", "7", "nobody"] {
        let answer = edge
            .get(&format!("/v1/recommend/{user}?n=100"))
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        assert!(
            hidden.iter().all(|item| !answer.ids().contains(item)),
            "user {user} on {}",
            answer.rung()
        );
    }
}
