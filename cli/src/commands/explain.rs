//! `skerry explain`: the whole decision behind an answer, from the origin, for 24 h.

use crate::client::{block_on, call, encode};
use crate::output;
use crate::settings::Settings;
use serde_json::Value;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  skerry explain 0198c0de-7000-7000-8000-000000000001")]
pub struct Args {
    /// `request_id` of an answer.
    request_id: String,
    /// The origin's admin address.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The answer as it came.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, settings: &Settings) -> anyhow::Result<()> {
    let admin = settings.endpoint("client.admin_url", args.admin.clone())?;
    let key = settings.maybe("client.key", args.key.clone());
    let url = format!("{}/v1/explain/{}", admin, encode(&args.request_id));
    let decision = block_on(call("GET", &url, key.as_deref(), None))?.json()?;
    if args.json {
        println!("{decision}");
        return Ok(());
    }
    let mut rows = Vec::new();
    flatten("", &decision, &mut rows);
    output::table(&["what", "value"], rows);
    Ok(())
}

/// One row a leaf, named by its path.
fn flatten(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let child = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, value)| flatten(&child(name), value, rows)),
        Value::Array(list)
            if list
                .iter()
                .any(|value| value.is_object() || value.is_array()) =>
        {
            list.iter()
                .enumerate()
                .for_each(|(at, value)| flatten(&child(&at.to_string()), value, rows));
        }
        Value::String(text) => rows.push(vec![path.to_owned(), text.clone()]),
        other => rows.push(vec![path.to_owned(), other.to_string()]),
    }
}
