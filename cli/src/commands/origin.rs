//! `skerry origin`: the origin as a process of its own.

use crate::roles;
use crate::settings::Settings;
use serde_json::json;
use skerry_origin_gateway::{Options, api_keys};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  skerry keys new keys/
  skerry origin --data ml-latest-small --state origin/ --keys keys/ --listen 0.0.0.0:7443 --admin 127.0.0.1:8081")]
pub struct Args {
    /// Folder of items and events to import.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
    /// Folder made by `skerry keys new`.
    #[arg(long, value_name = "DIR")]
    keys: Option<String>,
    /// QUIC (UDP) for PoPs.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// HTTP for operators.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    #[arg(long)]
    region: Option<String>,
    /// Set damaged state aside instead of refusing to start.
    #[arg(long)]
    repair: bool,
}

pub fn run(args: Args, settings: &Settings) -> anyhow::Result<()> {
    let state = PathBuf::from(settings.text("node.state", args.state)?);
    let keys = PathBuf::from(settings.text("node.keys", args.keys)?);
    let seed = settings.parsed("origin.seed", None)?;
    std::fs::create_dir_all(&state)?;
    let mut options = Options::new(&state, &keys);
    options.listen = settings.parsed("origin.listen", args.listen)?;
    options.admin = settings.parsed("origin.admin", args.admin)?;
    options.api_keys = api_keys(&keys)?;
    options.region = Arc::from(settings.text("node.region", args.region)?);
    options.data = roles::data(&state, settings.maybe("node.data", args.data), seed, false)?;
    options.train.seed = seed;
    roles::tune(&mut options, settings)?;
    options.repair = args.repair;
    options.progress = roles::progress();
    roles::runtime()?.block_on(async {
        let stop = roles::stop_on_signal()?;
        let origin = options.build().await?;
        let handle = origin.handle();
        let admin = format!("http://{}", handle.admin_addr());
        roles::write_endpoints(
            &state,
            &json!({"admin": admin, "quic": handle.quic_addr().to_string()}),
        )?;
        let running = tokio::spawn(origin.run(stop.cancelled_owned()));
        // Where the start fails, `run` says why.
        if handle.started().await.is_ok() {
            roles::say_ready(&admin)?;
        }
        running.await??;
        Ok(())
    })
}
