//! A day of sessions in compressed time: Zipf users who come back after 5 to 15 minutes, with
//! events in between. The processes' clocks run faster (`SKERRY_TEST_CLOCK`), so that freshness,
//! which is counted in minutes, means what it means in a day.

use crate::load::{Pump, get, post};
use crate::report::Row;
use crate::subject::{ITEMS, USERS};
use anyhow::ensure;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use skerry_scenarios::process::Pair;
use skerry_testkit::Zipf;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::{JoinSet, LocalSet};

const DAY_MS: u64 = 86_400_000;
/// The longest that an answer is fresh, jitter aside.
const FRESH_MS_MAX: u64 = 15 * 60 * 1000;
const SESSIONS: usize = 2_500;
/// One session in twelve is of somebody unknown.
const STRANGERS: u32 = 12;
const CONNECTIONS: usize = 16;
const SEED: u64 = 11;

enum Act {
    Ask,
    /// An event on the item at this position of the last list.
    Do(&'static str, usize),
}

struct Step {
    at_ms: u64,
    user: String,
    act: Act,
}

/// Sessions of a day, by time.
fn day() -> Vec<Step> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let users = Zipf::new(USERS, 0.9);
    let mut steps = Vec::new();
    for session in 0..SESSIONS {
        let user = if rng.random_ratio(1, STRANGERS) {
            format!("stranger-{session}")
        } else {
            (users.rank(rng.random()) + 1).to_string()
        };
        // Two thirds of the day's sessions begin in its second half.
        let share: f64 = rng.random();
        let mut at_ms = (share.powf(0.63) * DAY_MS as f64) as u64;
        loop {
            steps.push(Step {
                at_ms,
                user: user.clone(),
                act: Act::Ask,
            });
            if rng.random_bool(0.5) {
                let kind = ["view", "view", "click", "like", "rating"][rng.random_range(0..5)];
                let place = rng.random_range(0..5);
                steps.push(Step {
                    at_ms: at_ms + 30_000,
                    user: user.clone(),
                    act: Act::Do(kind, place),
                });
            }
            if rng.random_bool(0.3) {
                break;
            }
            at_ms += rng.random_range(300_000..900_000);
        }
    }
    steps.retain(|step| step.at_ms < DAY_MS);
    steps.sort_by_key(|step| step.at_ms);
    steps
}

/// The share of asks that any cache could answer: the same user asked within the longest freshness,
/// and no event came in between that must show in the next list.
fn reachable(day: &[Step]) -> f64 {
    let mut asked: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut asks, mut hits) = (0.0, 0.0);
    for step in day {
        match step.act {
            Act::Do(..) => drop(asked.remove(step.user.as_str())),
            Act::Ask => {
                asks += 1.0;
                let last = asked.insert(&step.user, step.at_ms);
                if last.is_some_and(|last| step.at_ms - last < FRESH_MS_MAX) {
                    hits += 1.0;
                }
            }
        }
    }
    hits / asks
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clocks of other processes begin here"
)]
fn now_ms() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis()
}

/// Replays the day within `length`.
pub async fn run(pair: &mut Pair, length: Duration) -> anyhow::Result<Vec<Row>> {
    let speed = DAY_MS / u64::try_from(length.as_millis())?;
    pair.env = vec![
        ("SKERRY_TEST".to_owned(), "1".to_owned()),
        (
            "SKERRY_TEST_CLOCK".to_owned(),
            format!("{}:{speed}", now_ms()),
        ),
    ];
    pair.pop.stop()?;
    pair.origin.stop()?;
    pair.restart_origin()?;
    pair.restart_pop()?;
    let tally: Rc<RefCell<BTreeMap<String, usize>>> = Rc::default();
    let mut lanes: Vec<Vec<Step>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for step in day() {
        // All of a user's steps on one connection: they keep their order.
        let lane = step.user.bytes().fold(7usize, |hash, byte| {
            hash.wrapping_mul(31) + usize::from(byte)
        });
        lanes[lane % CONNECTIONS].push(step);
    }
    let local = LocalSet::new();
    let url = pair.edge_url().to_owned();
    let counts = Rc::clone(&tally);
    local
        .run_until(async move {
            let mut workers = JoinSet::new();
            let began = Instant::now();
            for lane in lanes {
                let (url, counts) = (url.clone(), Rc::clone(&counts));
                workers.spawn_local(walk(url, lane, began, speed, counts));
            }
            while let Some(done) = workers.join_next().await {
                done??;
            }
            anyhow::Ok(())
        })
        .await?;
    let tally = tally.borrow();
    let count = |name: &str| tally.get(name).copied().unwrap_or(0) as f64;
    let asks = count("asks");
    ensure!(asks > 0.0, "nobody asked");
    let mut rows = vec![Row::new(
        "edge.replay",
        count("hit") / asks * 100.0,
        "% hits",
    )];
    rows.push(Row::new(
        "edge.replay.reachable",
        reachable(&day()) * 100.0,
        "% hits at most",
    ));
    rows.push(Row::new("edge.replay.asks", asks, "answers"));
    for rung in ["full", "edge", "cached", "popular"] {
        rows.push(Row::new(
            format!("edge.replay.{rung}"),
            count(rung) / asks * 100.0,
            "% of answers",
        ));
    }
    Ok(rows)
}

/// One lane's steps, each at its time.
async fn walk(
    url: String,
    lane: Vec<Step>,
    began: Instant,
    speed: u64,
    counts: Rc<RefCell<BTreeMap<String, usize>>>,
) -> anyhow::Result<()> {
    let mut pump = Pump::connect(&url).await?;
    let mut last: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for step in lane {
        tokio::time::sleep_until((began + Duration::from_micros(step.at_ms * 1000 / speed)).into())
            .await;
        match step.act {
            Act::Ask => {
                let reply = pump
                    .exchange(&get(&format!("/v1/recommend/{}?n=10", step.user)))
                    .await?;
                ensure!(
                    reply.status == 200,
                    "{}",
                    String::from_utf8_lossy(reply.body)
                );
                let answer: serde_json::Value = serde_json::from_slice(reply.body)?;
                let mut counts = counts.borrow_mut();
                let mut add = |name: &str| *counts.entry(name.to_owned()).or_default() += 1;
                add("asks");
                add(answer["served"]["rung"].as_str().unwrap_or_default());
                add(answer["served"]["cache"].as_str().unwrap_or_default());
                let items = answer["items"].as_array().into_iter().flatten();
                last.insert(
                    step.user,
                    items
                        .filter_map(|item| Some(item["id"].as_str()?.to_owned()))
                        .collect(),
                );
            }
            Act::Do(kind, place) => {
                let fallback = format!("{}", 1 + place % ITEMS);
                let item = last
                    .get(&step.user)
                    .and_then(|list| list.get(place))
                    .unwrap_or(&fallback);
                let value = if kind == "rating" {
                    r#","value":4.5"#
                } else {
                    ""
                };
                let body = format!(
                    r#"{{"type":"{kind}","user":"{}","item":"{item}"{value}}}"#,
                    step.user
                );
                let reply = pump.exchange(&post("/v1/events", &body)).await?;
                ensure!(
                    reply.status == 202,
                    "{}",
                    String::from_utf8_lossy(reply.body)
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_a_day_and_the_same_each_time() {
        let (one, two) = (day(), day());
        assert!((0.2..0.5).contains(&reachable(&one)), "{}", reachable(&one));
        assert!(
            one.is_sorted_by_key(|step| step.at_ms) && one.len() > 8_000,
            "{}",
            one.len()
        );
        assert!(
            one.iter()
                .zip(&two)
                .all(|(a, b)| a.at_ms == b.at_ms && a.user == b.user)
        );
    }
}
