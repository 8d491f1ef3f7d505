//! `skerry config show`: each setting and where it came from.

use crate::output;
use crate::settings::{Settings, TABLE};
use clap::Subcommand;
use serde_json::json;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  SKERRY_PORT=9000 skerry config show")]
pub struct Args {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Flags are not shown: they belong to one command.
    Show {
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: &Args, settings: &Settings) -> anyhow::Result<()> {
    let ConfigCommand::Show { json } = args.command;
    // A key is a secret: that it is set is all that anyone needs to see.
    let shown = |name: &str, value: &str| match name {
        "client.key" if !value.is_empty() => "(set)".to_owned(),
        _ => value.to_owned(),
    };
    if json {
        let all: Vec<_> = settings
            .all()
            .map(|(name, value, source)| json!({"name": name, "value": shown(name, value), "from": source.to_string()}))
            .collect();
        println!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    let help = |name: &str| {
        TABLE
            .iter()
            .find(|setting| setting.name == name)
            .map_or("", |setting| setting.help)
    };
    let rows = settings.all().map(|(name, value, source)| {
        vec![
            name.to_owned(),
            shown(name, value),
            source.to_string(),
            help(name).to_owned(),
        ]
    });
    output::table(&["setting", "value", "from", "what"], rows);
    Ok(())
}
