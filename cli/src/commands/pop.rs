//! `skerry pop`: a point of presence as a process of its own.

use crate::roles;
use crate::settings::{Settings, usage};
use serde_json::json;
use skerry_edge_pop::{Handle, Options};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often readiness is looked at.
const POLL_MS: u64 = 5;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  skerry pop --origin origin.example:7443 --state pop/ --keys keys/ --port 8080 --name sea1 --region us-west")]
pub struct Args {
    /// The origin's QUIC address.
    #[arg(long, value_name = "HOST:PORT")]
    origin: Option<String>,
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
    /// Folder made by `skerry keys new`.
    #[arg(long, value_name = "DIR")]
    keys: Option<String>,
    /// HTTP for users; 0 lets the system choose.
    #[arg(long)]
    port: Option<u16>,
    /// Address to listen on.
    #[arg(long, value_name = "IP")]
    bind: Option<IpAddr>,
    #[arg(long)]
    name: Option<String>,
    #[arg(long)]
    region: Option<String>,
    /// A worker component other than the one inside this binary.
    #[arg(long, value_name = "FILE")]
    worker: Option<String>,
}

pub fn run(args: Args, settings: &Settings) -> anyhow::Result<()> {
    let state = PathBuf::from(settings.text("node.state", args.state)?);
    let listen = SocketAddr::new(
        settings.parsed("pop.bind", args.bind)?,
        settings.parsed("pop.port", args.port)?,
    );
    let mut options = Options::new(state.clone(), listen);
    options.keys = Some(PathBuf::from(settings.text("node.keys", args.keys)?));
    options.origin = Some(settings.text("pop.origin", args.origin)?);
    options.name = settings.text("pop.name", args.name)?;
    options.region = settings.text("node.region", args.region)?;
    options.cache_bytes = settings.parsed("limits.cache_bytes", None)?;
    options.worker = settings.maybe("pop.worker", args.worker).map(PathBuf::from);
    options.metrics = Some(roles::metrics()?);
    check_free(listen)?;
    roles::pop_runtime()?.block_on(async {
        let stop = roles::stop_on_signal()?;
        let pop = options.build().await?;
        let handle = pop.handle();
        let edge = format!("http://{}", handle.local_addr());
        roles::write_endpoints(&state, &json!({"edge": edge}))?;
        let mut running = tokio::spawn(pop.run(stop.clone().cancelled_owned()));
        tokio::select! {
            ended = &mut running => return Ok(ended??),
            () = ready(&handle, &stop) => {}
        }
        if !stop.is_cancelled() {
            roles::say_ready(&edge)?;
        }
        running.await??;
        Ok(())
    })
}

/// Waits until the PoP holds what it needs, or until `stop`.
pub async fn ready(handle: &Handle, stop: &CancellationToken) {
    while !handle.is_ready() && !stop.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
    }
}

/// Says plainly that a port is taken, before anything takes long.
pub fn check_free(listen: SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(listen) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let port = listen.port();
            anyhow::bail!(
                "port {port} is in use by another process: choose another with --port (or SKERRY_PORT), 0 for a free one"
            )
        }
        Err(error) => Err(usage(format!("cannot listen on {listen}: {error}"))),
        Ok(_) => Ok(()),
    }
}
