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
    let all = settings.all().map(|(name, value, source)| {
        let value = match &*name {
            "client.key" if !value.is_empty() => "(set)".to_owned(),
            _ => value,
        };
        (name, value, source.to_string())
    });
    if json {
        let all: Vec<_> = all
            .map(|(name, value, from)| json!({"name": name, "value": value, "from": from}))
            .collect();
        println!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    let rows = all.map(|(name, value, from)| {
        let help = help(&name).to_owned();
        vec![name, value, from, help]
    });
    output::table(&["setting", "value", "from", "what"], rows);
    Ok(())
}

fn help(name: &str) -> &'static str {
    let known = TABLE.iter().find(|setting| setting.name == name);
    match known {
        Some(setting) => setting.help,
        None if name.starts_with("surfaces.") => "a surface with lists and metrics of its own",
        None if name.ends_with(".taste") => "what such an event says of its item",
        None => "how much such an event counts",
    }
}
