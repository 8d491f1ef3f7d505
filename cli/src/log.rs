//! The log: to stderr, with levels and targets as the filter says.

use crate::settings::usage;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts the log. `filter` is a level or directives such as `info,skerry_edge_pop=debug`.
pub fn init(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| usage(format!("the log filter {filter:?}: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
