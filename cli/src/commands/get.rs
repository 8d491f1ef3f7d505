//! `skerry get`: ask a PoP, and see titles and reasons.

use crate::client::{block_on, call, encode};
use crate::output;
use crate::settings::Settings;
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  skerry get recommend 1
  skerry get recommend 1 -n 20 --json
  skerry get similar 318
  skerry get popular")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Items for a user.
    Recommend {
        user: String,
        #[command(flatten)]
        common: Common,
    },
    /// Items like these (up to 10).
    Similar {
        #[arg(required = true, num_args = 1..=10)]
        items: Vec<String>,
        /// For this user: without what they have seen.
        #[arg(long)]
        user: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// The list that never fails.
    Popular {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// How many items, 1 to 200.
    #[arg(short, default_value_t = 10)]
    n: u16,
    #[arg(long, default_value = "home")]
    surface: String,
    /// The PoP's address.
    #[arg(long, value_name = "URL")]
    edge: Option<String>,
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The answer as it came.
    #[arg(long)]
    json: bool,
}

/// Item fields that the table shows.
const FIELDS: [&str; 2] = ["title", "year"];

pub fn run(args: &Args, settings: &Settings) -> anyhow::Result<()> {
    let (common, path, body) = match &args.what {
        What::Recommend { user, common } => {
            let body = json!({"user": {"id": user}, "n": common.n, "surface": common.surface,
                "fields": FIELDS, "explain": true});
            (common, "/v1/recommend".to_owned(), Some(body))
        }
        What::Similar {
            items,
            user,
            common,
        } => {
            let mut body = json!({"items": items, "n": common.n, "fields": FIELDS});
            if let Some(user) = user {
                body["user"] = json!({"id": user});
            }
            (common, "/v1/similar".to_owned(), Some(body))
        }
        What::Popular { common } => {
            let surface = encode(&common.surface);
            (
                common,
                format!(
                    "/v1/popular?n={}&surface={surface}&fields=title,year",
                    common.n
                ),
                None,
            )
        }
    };
    let edge = settings.endpoint("client.edge", common.edge.clone())?;
    let key = settings.maybe("client.key", common.key.clone());
    let url = format!("{}{path}", edge);
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.map(|body| body.to_string().into_bytes());
    let answer = block_on(call(method, &url, key.as_deref(), body))?.json()?;
    if common.json {
        println!("{answer}");
    } else {
        print(&answer);
    }
    Ok(())
}

fn print(answer: &Value) {
    let items = answer["items"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    output::table(
        &["#", "id", "title", "year", "score", "from", "why"],
        items.iter().map(row),
    );
    let served = &answer["served"];
    let cause = served["cause"]
        .as_str()
        .map(|cause| format!(" ({cause})"))
        .unwrap_or_default();
    println!(
        "rung {}{cause}, cache {}, request {}",
        text(&served["rung"]),
        text(&served["cache"]),
        text(&answer["request_id"])
    );
    for warning in answer["warnings"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
    {
        println!(
            "warning {}: {}",
            text(&warning["code"]),
            text(&warning["detail"])
        );
    }
}

fn row(item: &Value) -> Vec<String> {
    let score = item["score"]
        .as_f64()
        .map(|score| format!("{score:.3}"))
        .unwrap_or_default();
    let fields = &item["fields"];
    vec![
        text(&item["rank"]),
        text(&item["id"]),
        text(&fields["title"]),
        text(&fields["year"]),
        score,
        text(&item["source"]),
        text(&item["reason"]["text"]),
    ]
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
