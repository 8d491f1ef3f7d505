//! Trains on the training part, asks the edge over HTTP for every user, and scores the answers.

use crate::process::Process;
use crate::ratings::{Held, Split};
use crate::{binary, ratings};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use skerry_wire::json::format_time;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What a client saw, and what `skerry eval` says.
#[derive(Debug, Clone)]
pub struct Figures {
    pub users: usize,
    pub http_ndcg_at_10: f64,
    pub http_hr_at_10: f64,
    /// The same with exploration off.
    pub plain_ndcg_at_10: f64,
    /// Of those lists, how many have the held-out item at each position.
    pub plain_hits: [usize; 10],
    pub eval_ndcg_at_10: f64,
    /// Share of the answers on the top rung.
    pub top_rung: f64,
    /// Why the others were not, and how many.
    pub causes: BTreeMap<String, usize>,
}

impl Figures {
    /// What exploration cost, as a share.
    #[must_use]
    pub fn cost(&self) -> f64 {
        1.0 - self.http_ndcg_at_10 / self.plain_ndcg_at_10
    }

    /// What a client sees with exploration off, as a share of what `skerry eval` says.
    #[must_use]
    pub fn kept(&self) -> f64 {
        self.plain_ndcg_at_10 / self.eval_ndcg_at_10
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"users": self.users, "http_ndcg_at_10": self.http_ndcg_at_10, "http_hr_at_10": self.http_hr_at_10,
            "plain_ndcg_at_10": self.plain_ndcg_at_10, "plain_hits": self.plain_hits, "eval_ndcg_at_10": self.eval_ndcg_at_10, "kept": self.kept(), "cost": self.cost(), "top_rung": self.top_rung, "causes": self.causes})
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "users                      {}", self.users)?;
        writeln!(
            f,
            "over HTTP                  NDCG@10 {:.4}  HR@10 {:.3}",
            self.http_ndcg_at_10, self.http_hr_at_10
        )?;
        writeln!(
            f,
            "over HTTP, exploration off NDCG@10 {:.4}  hits by position {:?}",
            self.plain_ndcg_at_10, self.plain_hits
        )?;
        writeln!(
            f,
            "skerry eval                NDCG@10 {:.4}",
            self.eval_ndcg_at_10
        )?;
        writeln!(f, "exploration costs          {:.1} %", self.cost() * 100.0)?;
        write!(
            f,
            "on the top rung            {:.1} %, others {:?}",
            self.top_rung * 100.0,
            self.causes
        )
    }
}

/// Answers over HTTP are averaged over so many draws of exploration.
const DRAWS: usize = 5;
const BATCH_EVENTS: usize = 100;
/// The origin has all events within this, in seconds.
const TOLD_S_MAX: u64 = 60;

/// Measures both on a MovieLens folder.
pub async fn measure(data: &Path) -> anyhow::Result<Figures> {
    let folder = tempfile::tempdir()?;
    let split = ratings::leave_last_out(ratings::read(data)?);
    ensure!(!split.held.is_empty(), "no users in {}", data.display());
    let train = folder.path().join("train");
    ratings::write(&train, &split.train, data)?;
    let state = folder.path().join("state");
    let args = ["up", "--port", "0", "--data", &train.to_string_lossy()];
    let explored = {
        let system = Process::start(&args, &state)?;
        tell(&system, &split).await?;
        ask(&system, &split, DRAWS).await?
    };
    let off = [("SKERRY_EXPLORE".to_owned(), "false".to_owned())];
    let plain = {
        let system = Process::start_with(&args, &state, &off)?;
        ask(&system, &split, 1).await?
    };
    Ok(Figures {
        users: split.held.len(),
        http_ndcg_at_10: explored.ndcg,
        http_hr_at_10: explored.hits,
        plain_ndcg_at_10: plain.ndcg,
        plain_hits: plain.hits_at,
        eval_ndcg_at_10: eval(data)?,
        top_rung: explored.top,
        causes: explored.causes,
    })
}

/// Means over users and draws, but for the hits at each position, which are counted.
#[derive(Default)]
struct Seen {
    ndcg: f64,
    hits: f64,
    hits_at: [usize; 10],
    top: f64,
    causes: BTreeMap<String, usize>,
}

/// Who is asked for: the user where the held-out rating was the last one, else somebody new who did
/// what the user did before it.
fn asked(user: &str, held: &Held) -> String {
    match held.after.is_empty() {
        true => user.to_owned(),
        false => format!("then-{user}"),
    }
}

/// Tells the edge what those new users did, and waits until the origin knows.
async fn tell(system: &Process, split: &Split) -> anyhow::Result<()> {
    let mut edge = system.client("edge")?;
    let mut events = Vec::new();
    for (user, held) in &split.held {
        let name = asked(user, held);
        let told = held.before.iter().filter(|_| name != *user).enumerate();
        for (at, rating) in told {
            let value: f64 = rating.value.parse()?;
            events.push(
                json!({"id": format!("{name}-{at}"), "type": "rating", "user": name,
                "item": rating.item, "value": value, "at": format_time(rating.at_s * 1000)}),
            );
        }
    }
    for batch in events.chunks(BATCH_EVENTS) {
        let accepted = edge.post("/v1/events", &json!(batch)).await?;
        ensure!(
            accepted.status == 202,
            "{}",
            String::from_utf8_lossy(&accepted.body)
        );
    }
    let until = Instant::now() + Duration::from_secs(TOLD_S_MAX);
    while edge.get("/readyz").await?.json()["spool_events"] != 0 {
        ensure!(Instant::now() < until, "the origin does not catch up");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Asks for every user, on a surface of its own for each draw, so that each is drawn anew.
async fn ask(system: &Process, split: &Split, draws: usize) -> anyhow::Result<Seen> {
    let mut edge = system.client("edge")?;
    let mut seen = Seen::default();
    let share = 1.0 / (split.held.len() * draws) as f64;
    for draw in 0..draws {
        for (user, held) in &split.held {
            let after: Vec<&str> = held.after.iter().map(|one| one.item.as_str()).collect();
            let ask = json!({"user": {"id": asked(user, held)}, "exclude": after, "n": 10,
                "budget_ms": 1000, "surface": format!("draw{draw}")});
            let answer = edge.post("/v1/recommend", &ask).await?;
            ensure!(answer.status == 200, "user {user}: {}", answer.status);
            let list = answer.ids();
            seen.ndcg += share * ratings::ndcg_at_10(&list, &held.item);
            let hit = ratings::hit_at(&list, &held.item);
            if let Some(count) = hit.and_then(|at| seen.hits_at.get_mut(at)) {
                *count += 1;
                seen.hits += share;
            }
            if answer.rung() == "full" {
                seen.top += share;
            } else {
                *seen.causes.entry(answer.cause()).or_default() += 1;
            }
        }
    }
    if !seen.causes.is_empty() {
        eprintln!(
            "below the top rung: {:?}; the last lines of the log:\n{}",
            seen.causes,
            system.tail()
        );
    }
    Ok(seen)
}

/// NDCG@10 of `full` as `skerry eval` says.
fn eval(data: &Path) -> anyhow::Result<f64> {
    let output = Command::new(binary()?)
        .args(["eval", "--protocol", "loo", "--json", "--data"])
        .arg(data)
        .output()?;
    ensure!(
        output.status.success(),
        "skerry eval: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let results = report["results"].as_array().context("no results")?;
    let full = results
        .iter()
        .find(|result| result["rung"] == "full")
        .context("no rung full")?;
    full["ndcg_at_10"].as_f64().context("no ndcg_at_10")
}
