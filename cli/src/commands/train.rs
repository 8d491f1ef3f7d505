//! `skerry train`: embeddings and the default ranker from a folder, and what came out.

use crate::settings::Settings;
use crate::{data, output};
use anyhow::Context;
use serde_json::json;
use skerry_origin_training::{TrainOptions, train};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  skerry train --data ml-latest-small --out ranker.model")]
pub struct Args {
    /// Folder of items and events; a seeded catalogue without it.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Write the model to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, settings: &Settings) -> anyhow::Result<()> {
    let seed: u64 = settings.parsed("origin.seed", None)?;
    let data = data::load(
        settings
            .maybe("node.data", args.data.clone())
            .map(PathBuf::from),
        seed,
    )?;
    let bar = output::progress(Some(100), "training");
    let began = Instant::now();
    let options = TrainOptions {
        seed,
        ..TrainOptions::default()
    };
    let model = train(&data.interactions, &options, &|stage, share| {
        bar.set_message(stage.as_str());
        bar.set_position((share * 100.0) as u64);
    })?;
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    let bytes = model.to_bytes();
    if let Some(path) = &args.out {
        std::fs::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (items, users) = (data.interactions.items().len(), data.interactions.users());
    let events = data.interactions.rows().len();
    if args.json {
        println!(
            "{}",
            json!({"model": &*model.version(), "items": items, "users": users, "events": events, "bytes": bytes.len(),
                "seconds": seconds})
        );
        return Ok(());
    }
    let row = vec![
        model.version().to_string(),
        items.to_string(),
        users.to_string(),
        events.to_string(),
        bytes.len().to_string(),
        format!("{seconds:.1}"),
    ];
    output::table(
        &["model", "items", "users", "events", "bytes", "seconds"],
        [row],
    );
    Ok(())
}
