//! `bench edge`: what an edge answer costs, rung by rung.

use crate::load::{Pump, Reply, full_speed, get, post};
use crate::peer::Peer;
use crate::report::{Row, median, percentile};
use crate::{replay, subject};
use anyhow::{Context, ensure};
use skerry_scenarios::process::Pair;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Connections of the load.
const CONNECTIONS: usize = 32;
const EVENT_CONNECTIONS: usize = 8;
const BATCH_EVENTS: usize = 100;
/// Targets: see the issue that this bench answers to.
const HIT_TARGET: f64 = 0.5;
const MISS_TARGET: f64 = 0.05;
const RANK_MS_MAX: f64 = 1.0;
const RSS_MB_MAX: f64 = 150.0;
const WORKER_MB_MAX: f64 = 1.5;

/// How long everything takes.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: usize,
    round: Duration,
    ranks: usize,
    replay: Duration,
}

impl Plan {
    fn new(quick: bool) -> Self {
        if quick {
            Self {
                rounds: 3,
                round: Duration::from_secs(1),
                ranks: 300,
                replay: Duration::from_secs(10),
            }
        } else {
            Self {
                rounds: 7,
                round: Duration::from_secs(3),
                ranks: 2_000,
                replay: Duration::from_secs(60),
            }
        }
    }
}

pub async fn run(quick: bool) -> anyhow::Result<Vec<Row>> {
    let plan = Plan::new(quick);
    let folder = tempfile::tempdir()?;
    eprintln!("data, training, start ...");
    let mut pair = subject::start(&folder.path().join("data"))?;
    let mut rows = Vec::new();
    let idle = rss_idle(&pair).await?;
    eprintln!("hit ...");
    let (hit, peer) = hit(&pair, plan, folder.path()).await?;
    rows.push(hit);
    eprintln!("miss ...");
    rows.extend(miss(&pair, plan, &peer).await?);
    drop(peer);
    eprintln!("events ...");
    rows.push(events(&pair, plan).await?);
    eprintln!("replay ...");
    rows.extend(replay::run(&mut pair, plan.replay).await?);
    eprintln!("rank ...");
    rows.push(rank(&mut pair, plan).await?);
    rows.push(idle);
    rows.push(worker_size()?);
    Ok(rows)
}

/// Fresh cache hits, one user a connection; the peer answers the same bytes.
async fn hit(pair: &Pair, plan: Plan, folder: &std::path::Path) -> anyhow::Result<(Row, Peer)> {
    let target = |connection: usize| get(&format!("/v1/recommend/{}?n=10", connection + 1));
    let file = folder.join("answer");
    for connection in 0..CONNECTIONS {
        let mut pump = Pump::connect(pair.edge_url()).await?;
        pump.exchange(&target(connection)).await?;
        let reply = pump.exchange(&target(connection)).await?;
        ensure!(
            is_hit(&reply),
            "the second answer is no hit: {}",
            String::from_utf8_lossy(reply.head)
        );
        std::fs::write(&file, [reply.head, b"\r\n\r\n", reply.body].concat())?;
    }
    let peer = Peer::start(&file)?;
    let (mut ours, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let check = |reply: &Reply<'_>| {
            ensure!(
                reply.status == 200 && is_hit(reply),
                "not a hit: {}",
                String::from_utf8_lossy(reply.head)
            );
            Ok(())
        };
        let round = full_speed(
            pair.edge_url(),
            CONNECTIONS,
            plan.round,
            move |c, _| target(c),
            check,
        )
        .await?;
        let other = hyper(&peer, plan).await?;
        eprintln!("  {:.0} against {other:.0} a second", round.per_second);
        ours.push(round.per_second);
        ratios.push(round.per_second / other);
    }
    let row = Row::new("edge.hit", median(&ours), "requests/s").against(
        "hyper",
        median(&ratios),
        HIT_TARGET,
    );
    Ok((row.spread(&ratios), peer))
}

/// A round of the peer: answers a second.
async fn hyper(peer: &Peer, plan: Plan) -> anyhow::Result<f64> {
    let request = |connection: usize, _: u64| get(&format!("/{connection}"));
    let check = |reply: &Reply<'_>| {
        ensure!(reply.status == 200);
        Ok(())
    };
    let round = full_speed(&peer.url, CONNECTIONS, plan.round, request, check).await?;
    Ok(round.per_second)
}

fn is_hit(reply: &Reply<'_>) -> bool {
    memchr::memmem::find(reply.head, b"; hit").is_some()
}

/// The whole pipeline over QUIC: every request has a context of its own, so nothing is cached.
async fn miss(pair: &Pair, plan: Plan, peer: &Peer) -> anyhow::Result<Vec<Row>> {
    let steps: Rc<RefCell<BTreeMap<String, Vec<f64>>>> = Rc::default();
    let others = Rc::new(RefCell::new(0usize));
    let (mut per_second, mut latencies, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let request = move |connection: usize, turn: u64| {
            let user = 1 + (turn as usize * CONNECTIONS + connection) % subject::USERS;
            let body = format!(
                r#"{{"user":{{"id":"{user}"}},"n":10,"context":{{"device":"d{round}-{connection}-{turn}"}}}}"#
            );
            post("/v1/recommend", &body)
        };
        let (seen, below) = (Rc::clone(&steps), Rc::clone(&others));
        let check = move |reply: &Reply<'_>| {
            ensure!(
                reply.status == 200,
                "{}",
                String::from_utf8_lossy(reply.body)
            );
            ensure!(!is_hit(reply), "a hit among the misses");
            if reply.header("x-skerry-rung") == "full" {
                for (name, ms) in reply.timings() {
                    seen.borrow_mut().entry(name).or_default().push(ms);
                }
            } else {
                *below.borrow_mut() += 1;
            }
            Ok(())
        };
        let before = *others.borrow();
        let measured = full_speed(pair.edge_url(), CONNECTIONS, plan.round, request, check).await?;
        let lower = *others.borrow() - before;
        let share = 1.0 - lower as f64 / measured.latencies_ms.len().max(1) as f64;
        let other = hyper(peer, plan).await?;
        eprintln!(
            "  {:.0} against {other:.0} a second, {:.1} % on the top rung",
            measured.per_second,
            share * 100.0
        );
        ratios.push(measured.per_second * share / other);
        // Answers below the top rung are answers, but not misses.
        per_second.push(measured.per_second * share);
        latencies.extend(measured.latencies_ms);
    }
    let row = Row::new("edge.miss", median(&per_second), "requests/s").against(
        "hyper",
        median(&ratios),
        MISS_TARGET,
    );
    let mut rows = vec![row.spread(&ratios)];
    rows.push(Row::new(
        "edge.miss.p50",
        percentile(&latencies, 50.0),
        "ms",
    ));
    rows.push(Row::new(
        "edge.miss.p99",
        percentile(&latencies, 99.0),
        "ms",
    ));
    for (name, values) in steps.borrow().iter() {
        rows.push(Row::new(
            format!("edge.miss.{name}.p50"),
            percentile(values, 50.0),
            "ms",
        ));
        rows.push(Row::new(
            format!("edge.miss.{name}.p99"),
            percentile(values, 99.0),
            "ms",
        ));
    }
    Ok(rows)
}

/// Events acknowledged, in batches.
async fn events(pair: &Pair, plan: Plan) -> anyhow::Result<Row> {
    let mut per_second = Vec::new();
    for round in 0..plan.rounds {
        let request = move |connection: usize, turn: u64| {
            let event = |at: usize| {
                let user = (turn as usize * BATCH_EVENTS + at) % 5_000;
                let item = 1 + (at * 37 + turn as usize) % subject::ITEMS;
                format!(
                    r#"{{"id":"b{round}-{connection}-{turn}-{at}","type":"view","user":"load-{user}","item":"{item}"}}"#
                )
            };
            let batch: Vec<String> = (0..BATCH_EVENTS).map(event).collect();
            post("/v1/events", &format!("[{}]", batch.join(",")))
        };
        let check = |reply: &Reply<'_>| {
            let accepted = memchr::memmem::find(reply.body, br#""accepted":100"#).is_some();
            ensure!(
                reply.status == 202 && accepted,
                "{}",
                String::from_utf8_lossy(reply.body)
            );
            Ok(())
        };
        let measured = full_speed(
            pair.edge_url(),
            EVENT_CONNECTIONS,
            plan.round,
            request,
            check,
        )
        .await?;
        eprintln!(
            "  {:.0} events a second",
            measured.per_second * BATCH_EVENTS as f64
        );
        per_second.push(measured.per_second * BATCH_EVENTS as f64);
    }
    Ok(Row::new("edge.events", median(&per_second), "events/s").spread(&per_second))
}

/// Ranking the whole pool inside the worker, with the origin gone; one request at a time.
async fn rank(pair: &mut Pair, plan: Plan) -> anyhow::Result<Row> {
    // Served once, so that their contexts are here.
    let mut pump = Pump::connect(pair.edge_url()).await?;
    for user in 1..=50 {
        pump.exchange(&get(&format!("/v1/recommend/{user}?n=10")))
            .await?;
    }
    pair.origin.kill();
    let mut times = Vec::with_capacity(plan.ranks);
    let until = Instant::now() + Duration::from_secs(30);
    let mut turn = 0;
    while times.len() < plan.ranks {
        ensure!(
            Instant::now() < until,
            "{} of {} answers ranked at the edge in 30 s",
            times.len(),
            plan.ranks
        );
        turn += 1;
        let body = format!(
            r#"{{"user":{{"id":"{}"}},"n":10,"context":{{"device":"r{turn}"}}}}"#,
            1 + turn % 50
        );
        let reply = pump.exchange(&post("/v1/recommend", &body)).await?;
        if reply.header("x-skerry-rung") == "edge" {
            let timings = reply.timings();
            let rank = timings
                .iter()
                .find(|(name, _)| name == "rank")
                .context("no step `rank` in Server-Timing")?;
            times.push(rank.1);
        }
    }
    // Rounds of a tenth each, for the spread.
    let rounds: Vec<f64> = times.chunks(plan.ranks.div_ceil(10)).map(median).collect();
    Ok(Row::new("edge.rank_10k", median(&times), "ms")
        .within(RANK_MS_MAX)
        .spread(&rounds))
}

/// Resident memory of a PoP that holds the pool and has nothing to do.
async fn rss_idle(pair: &Pair) -> anyhow::Result<Row> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mb = pair.pop.rss()? as f64 / 1e6;
    Ok(Row::new("edge.rss_idle", mb, "MB").within(RSS_MB_MAX))
}

fn worker_size() -> anyhow::Result<Row> {
    let path = std::env::var_os("SKERRY_WORKER")
        .context("SKERRY_WORKER is not set: run `cargo xtask bench`")?;
    let mb = std::fs::metadata(path)?.len() as f64 / 1e6;
    Ok(Row::new("edge.worker_size", mb, "MB").within(WORKER_MB_MAX))
}
