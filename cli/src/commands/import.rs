//! `skerry import`: items and events into a running origin, with every refused row.

use crate::client::{block_on, call};
use crate::output;
use crate::settings::Settings;
use anyhow::Context;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How often a running import is asked for.
const POLL_MS: u64 = 300;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  skerry import ml-latest-small --train")]
pub struct Args {
    /// A MovieLens folder, a folder of JSON lines and CSV files, or one such file, as the origin
    /// sees it.
    path: PathBuf,
    /// Train on what is stored then, and put the model into service.
    #[arg(long)]
    train: bool,
    /// The origin's admin address.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, settings: &Settings) -> anyhow::Result<ExitCode> {
    let admin = settings.endpoint("client.admin_url", args.admin.clone())?;
    let key = settings.maybe("client.key", args.key.clone());
    let path =
        std::fs::canonicalize(&args.path).with_context(|| args.path.display().to_string())?;
    let done = block_on(import(&admin, key.as_deref(), &path.to_string_lossy()))?;
    let failed = done["state"] == "failed";
    if args.train && !failed {
        let bar = output::progress(None, "training");
        let made = block_on(call(
            "POST",
            &format!("{admin}/v1/models"),
            key.as_deref(),
            None,
        ))?
        .json()?;
        bar.finish_and_clear();
        eprintln!(
            "{} is in service",
            made["version"].as_str().unwrap_or("a model")
        );
    }
    if args.json {
        println!("{done}");
    } else {
        print(&done);
    }
    Ok(if failed {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

async fn import(admin: &str, key: Option<&str>, path: &str) -> anyhow::Result<Value> {
    let body = json!({"path": path}).to_string().into_bytes();
    let started = call("POST", &format!("{admin}/v1/imports"), key, Some(body))
        .await?
        .json()?;
    let id = started["id"]
        .as_str()
        .context("the origin named no import")?;
    let bar = output::progress(None, "importing");
    loop {
        let job = call("GET", &format!("{admin}/v1/imports/{id}"), key, None)
            .await?
            .json()?;
        bar.set_message(format!("importing, {} rows", job["rows"]));
        if job["state"] != "running" {
            bar.finish_and_clear();
            return Ok(job);
        }
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
    }
}

fn print(job: &Value) {
    let of = |what: &str| {
        let counts = job[what].as_object().into_iter().flatten();
        counts
            .map(|(name, count)| format!("{count} {name}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let state = job["state"].as_str().unwrap_or_default();
    println!(
        "{state}: items {}; events {}; {} rows refused",
        of("items"),
        of("events"),
        job["errors_total"]
    );
    if let Some(failure) = job["failure"].as_str() {
        println!("{failure}");
    }
    let errors = job["errors"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if !errors.is_empty() {
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let rows = errors.iter().map(|e| {
            vec![
                text(&e["file"]),
                text(&e["line"]),
                text(&e["code"]),
                text(&e["detail"]),
            ]
        });
        output::table(&["file", "line", "code", "what"], rows);
    }
}
