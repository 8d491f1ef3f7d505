//! Trains on the training part, asks the edge over HTTP for every user, and scores the answers.

use crate::process::Process;
use crate::{binary, ratings};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What a client saw, and what `skerry eval` says.
#[derive(Debug, Clone)]
pub struct Figures {
    pub users: usize,
    pub http_ndcg_at_10: f64,
    pub http_hr_at_10: f64,
    pub eval_ndcg_at_10: f64,
    /// Share of the answers on the top rung.
    pub top_rung: f64,
    /// Why the others were not, and how many.
    pub causes: BTreeMap<String, usize>,
}

impl Figures {
    /// What exploration (and everything else between the two) cost, as a share.
    #[must_use]
    pub fn cost(&self) -> f64 {
        1.0 - self.http_ndcg_at_10 / self.eval_ndcg_at_10
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"users": self.users, "http_ndcg_at_10": self.http_ndcg_at_10, "http_hr_at_10": self.http_hr_at_10,
            "eval_ndcg_at_10": self.eval_ndcg_at_10, "cost": self.cost(), "top_rung": self.top_rung, "causes": self.causes})
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "users            {}", self.users)?;
        writeln!(
            f,
            "over HTTP        NDCG@10 {:.4}  HR@10 {:.3}",
            self.http_ndcg_at_10, self.http_hr_at_10
        )?;
        writeln!(
            f,
            "skerry eval      NDCG@10 {:.4}  (exploration off)",
            self.eval_ndcg_at_10
        )?;
        writeln!(f, "cost             {:.1} %", self.cost() * 100.0)?;
        write!(
            f,
            "on the top rung  {:.1} %, others {:?}",
            self.top_rung * 100.0,
            self.causes
        )
    }
}

/// Measures both on a MovieLens folder.
pub async fn measure(data: &Path) -> anyhow::Result<Figures> {
    let folder = tempfile::tempdir()?;
    let split = ratings::leave_last_out(ratings::read(data)?);
    let train = folder.path().join("train");
    ratings::write(&train, &split.train, data)?;
    let train = train.to_string_lossy();
    let system = Process::start(
        &["up", "--port", "0", "--data", &train],
        &folder.path().join("state"),
    )?;
    let mut edge = system.client("edge")?;
    let (mut ndcg, mut hits, mut top, mut causes) = (0.0, 0usize, 0usize, BTreeMap::new());
    for (user, item) in &split.held {
        let answer = edge
            .get(&format!("/v1/recommend/{user}?n=10&budget_ms=1000"))
            .await?;
        ensure!(answer.status == 200, "user {user}: {}", answer.status);
        let score = ratings::ndcg_at_10(&answer.ids(), item);
        ndcg += score;
        hits += usize::from(score > 0.0);
        if answer.rung() == "full" {
            top += 1;
        } else {
            *causes.entry(answer.cause()).or_default() += 1;
        }
    }
    let users = split.held.len();
    ensure!(users > 0, "no users in {}", data.display());
    Ok(Figures {
        users,
        http_ndcg_at_10: ndcg / users as f64,
        http_hr_at_10: hits as f64 / users as f64,
        eval_ndcg_at_10: eval(data)?,
        top_rung: top as f64 / users as f64,
        causes,
    })
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
