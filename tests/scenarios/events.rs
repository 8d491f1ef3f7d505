//! An event changes the next answer; pages go on without repeats.

use crate::event;
use skerry_scenarios::http::Client;
use skerry_scenarios::process::Pair;
use skerry_testkit::{Size, World, world};
use std::collections::{BTreeMap, HashSet};

/// The world that the product makes when it is given no data.
fn genres() -> BTreeMap<String, Vec<String>> {
    let World { items, .. } = world(7, Size::default());
    let of = |item: &skerry_types::Item| {
        let genres = item
            .attributes
            .get("genre")
            .into_iter()
            .flat_map(|list| list.each());
        genres
            .filter_map(|genre| genre.as_str().map(str::to_owned))
            .collect()
    };
    items
        .iter()
        .map(|item| (item.id.to_string(), of(item)))
        .collect()
}

/// Likes the first item of the user's list; the next list must not have it.
async fn like_the_first(edge: &mut Client, user: &str, what: &str) {
    let target = format!("/v1/recommend/{user}?n=10");
    // Twice: the second answer comes from the cache where there is one.
    edge.get(&target).await.unwrap();
    let before = edge.get(&target).await.unwrap();
    let first = before.ids().first().cloned().expect("a list");
    let reply = edge
        .post(
            "/v1/events",
            &event(&format!("{what}-{first}"), "like", user, &first),
        )
        .await
        .unwrap();
    assert_eq!(reply.status, 202, "{what}");
    let after = edge.get(&target).await.unwrap();
    assert_eq!(after.status, 200, "{what}");
    assert!(
        !after.ids().contains(&first),
        "{what}: {first} is still there: {:?}",
        after.ids()
    );
    assert_eq!(after.ids().len(), 10, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn an_event_changes_the_next_answer() {
    let mut pair = Pair::start(None).unwrap();
    let mut edge = pair.edge();
    like_the_first(&mut edge, "1", "connected").await;
    shift(&mut edge, "newcomer-a", "full").await;
    pair.origin.kill();
    like_the_first(&mut edge, "1", "origin down").await;
    like_the_first(&mut edge, "2", "origin down, not served before").await;
    shift(&mut edge, "newcomer-b", "edge").await;
}

/// After five likes of one genre by a new user, their list turns to it.
async fn shift(edge: &mut Client, user: &str, rung: &str) {
    let genres = genres();
    let target = format!("/v1/recommend/{user}?n=20");
    let before = edge.get(&target).await.unwrap();
    let genre = "Documentary";
    let share = |ids: &[String]| {
        ids.iter()
            .filter(|id| genres[*id].iter().any(|g| g == genre))
            .count()
    };
    let liked: Vec<&String> = genres
        .iter()
        .filter(|(_, of)| of.iter().any(|g| g == genre))
        .map(|(id, _)| id)
        .take(5)
        .collect();
    for item in &liked {
        edge.post(
            "/v1/events",
            &event(&format!("{user}-{item}"), "like", user, item),
        )
        .await
        .unwrap();
    }
    let after = edge.get(&target).await.unwrap();
    let (was, is) = (share(&before.ids()), share(&after.ids()));
    eprintln!(
        "{user}: {genre} in {was}, then in {is} of 20 on {}",
        after.rung()
    );
    assert_eq!(after.rung(), rung, "{user}: {:?}", after.cause());
    assert!(
        is > was,
        "{user}: {was} of 20 before, {is} after five likes of {genre}"
    );
    assert!(liked.iter().all(|item| !after.ids().contains(item)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn pages_go_on_without_repeats_even_when_the_origin_is_gone() {
    let mut pair = Pair::start(None).unwrap();
    let mut edge = pair.edge();
    let mut seen = HashSet::new();
    let mut target = "/v1/recommend/3?n=7".to_owned();
    for page in 0..4 {
        let answer = edge.get(&target).await.unwrap();
        assert_eq!(answer.status, 200, "page {page}: {}", answer.json());
        for id in answer.ids() {
            assert!(seen.insert(id.clone()), "page {page} repeats {id}");
        }
        let json = answer.json();
        let Some(next) = json["next"].as_str() else {
            break;
        };
        target = format!("/v1/recommend/3?n=7&next={next}");
        if page == 1 {
            pair.origin.kill();
        }
    }
    assert!(seen.len() >= 28, "{} items on four pages of 7", seen.len());
}
