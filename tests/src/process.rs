//! Starting and killing the product's processes.

use crate::http::Client;
use crate::{binary, made};
use anyhow::{Context, bail};
use serde_json::Value;
use skerry_testkit::{Size, world};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest start of a process, training included, in seconds.
pub const START_S_MAX: u64 = 300;
/// Seed of the catalogue, as the product's own default.
pub const SEED: u64 = 7;
/// Longest graceful end of a process, in seconds.
const STOP_S_MAX: u64 = 20;

/// A running `skerry` process, killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    state: PathBuf,
    /// How long it took to say that it is ready.
    pub started_in: Duration,
}

impl Process {
    /// Starts `skerry ARGS` and waits for its `ready` line. `state` is where it keeps its state.
    pub fn start(args: &[&str], state: &Path) -> anyhow::Result<Self> {
        Self::start_with(args, state, &[])
    }

    /// The same, with variables of the environment.
    pub fn start_with(
        args: &[&str],
        state: &Path,
        env: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let folder = state.to_string_lossy();
        let args: Vec<&str> = args.iter().copied().chain(["--state", &folder]).collect();
        Self::start_in(&args, state, env)
    }

    /// `skerry vector`: a node that keeps users' vectors, and listens where it is told.
    pub fn start_vector(dir: &Path, listen: &str) -> anyhow::Result<Self> {
        let folder = dir.to_string_lossy();
        Self::start_in(&["vector", "--listen", listen, "--dir", &folder], dir, &[])
    }

    /// The same of a command that has its folder in its arguments.
    pub fn start_in(args: &[&str], state: &Path, env: &[(String, String)]) -> anyhow::Result<Self> {
        let began = Instant::now();
        std::fs::create_dir_all(state)?;
        let log = state.with_extension("log");
        let mut child = Command::new(binary()?)
            .args(args)
            .env(
                "SKERRY_LOG",
                std::env::var("SKERRY_LOG").unwrap_or_else(|_| "info".to_owned()),
            )
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut process = Self {
            child,
            log,
            state: state.to_path_buf(),
            started_in: Duration::ZERO,
        };
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        match lines.recv_timeout(Duration::from_secs(START_S_MAX)) {
            Ok(line) if line.starts_with("ready ") => process.started_in = began.elapsed(),
            Ok(line) => bail!("{args:?} said {line:?} instead of ready"),
            Err(_) => bail!("{args:?} did not get ready: {}", process.tail()),
        }
        Ok(process)
    }

    /// Where it listens, as its `endpoints.json` says.
    pub fn endpoint(&self, name: &str) -> anyhow::Result<String> {
        let path = self.state.join("endpoints.json");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let endpoints: Value = serde_json::from_str(&text)?;
        Ok(endpoints[name]
            .as_str()
            .with_context(|| format!("no {name} in {text}"))?
            .to_owned())
    }

    /// A client of one of its HTTP endpoints.
    pub fn client(&self, name: &str) -> anyhow::Result<Client> {
        Ok(Client::new(&self.endpoint(name)?))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// SIGTERM, and the exit status.
    pub fn stop(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        let until = Instant::now() + Duration::from_secs(STOP_S_MAX);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            pause(20);
        }
        bail!(
            "still running {STOP_S_MAX} s after SIGTERM: {}",
            self.tail()
        )
    }

    /// Resident memory, in bytes.
    pub fn rss(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("no VmRSS")?;
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .context("no number")?
            .parse()?;
        Ok(kib * 1024)
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "waiting for another process has no other way"
)]
fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// An origin and a PoP, each its own process, on ports of the system's choice that stay theirs over
/// a restart.
#[derive(Debug)]
pub struct Pair {
    pub folder: tempfile::TempDir,
    pub origin: Process,
    pub pop: Process,
    /// Variables of processes that are started from now on.
    pub env: Vec<(String, String)>,
    data: Vec<String>,
    quic: String,
    admin: String,
    edge: String,
}

impl Pair {
    /// Keys, an origin and a PoP, both ready, on a folder or on the seeded catalogue.
    pub fn start(data: Option<&Path>) -> anyhow::Result<Self> {
        Self::start_with(data, Vec::new())
    }

    /// The same, with variables of the environment.
    pub fn start_with(data: Option<&Path>, env: Vec<(String, String)>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let keys = folder.path().join("keys");
        let made = Command::new(binary()?)
            .args(["keys", "new"])
            .arg(&keys)
            .stderr(Stdio::null())
            .status()?;
        anyhow::ensure!(made.success(), "keys new failed");
        let data = match data {
            Some(data) => data.to_path_buf(),
            None => {
                let seeded = folder.path().join("data");
                made::write(&seeded, &world(SEED, Size::default()))?;
                seeded
            }
        };
        let data = vec!["--data".to_owned(), data.to_string_lossy().into_owned()];
        let origin = start_origin(folder.path(), &env, &data, "127.0.0.1:0", "127.0.0.1:0")?;
        let (quic, admin) = (origin.endpoint("quic")?, origin.endpoint("admin")?);
        let pop = start_pop(folder.path(), &env, &quic, "0")?;
        let edge = pop.endpoint("edge")?;
        Ok(Self {
            folder,
            origin,
            pop,
            env,
            data,
            quic,
            admin,
            edge,
        })
    }

    /// Starts the origin again, on the ports it had.
    pub fn restart_origin(&mut self) -> anyhow::Result<()> {
        self.origin.kill();
        let admin = self.admin.trim_start_matches("http://").to_owned();
        self.origin = start_origin(
            self.folder.path(),
            &self.env,
            &self.data,
            &self.quic,
            &admin,
        )?;
        Ok(())
    }

    /// Starts the PoP again, on the port it had.
    pub fn restart_pop(&mut self) -> anyhow::Result<()> {
        self.pop.kill();
        let port = self.edge.rsplit(':').next().unwrap_or("0").to_owned();
        self.pop = start_pop(self.folder.path(), &self.env, &self.quic, &port)?;
        Ok(())
    }

    #[must_use]
    pub fn edge(&self) -> Client {
        Client::new(&self.edge)
    }

    #[must_use]
    pub fn edge_url(&self) -> &str {
        &self.edge
    }

    #[must_use]
    pub fn admin(&self) -> Client {
        Client::new(&self.admin)
    }

    #[must_use]
    pub fn quic(&self) -> &str {
        &self.quic
    }

    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    #[must_use]
    pub fn pop_state(&self) -> PathBuf {
        self.folder.path().join("pop")
    }

    #[must_use]
    pub fn origin_state(&self) -> PathBuf {
        self.folder.path().join("origin")
    }
}

fn start_origin(
    folder: &Path,
    env: &[(String, String)],
    data: &[String],
    listen: &str,
    admin: &str,
) -> anyhow::Result<Process> {
    let keys = folder.join("keys").to_string_lossy().into_owned();
    let mut args = vec![
        "origin", "--keys", &keys, "--listen", listen, "--admin", admin,
    ];
    args.extend(data.iter().map(String::as_str));
    Process::start_with(&args, &folder.join("origin"), env)
}

fn start_pop(
    folder: &Path,
    env: &[(String, String)],
    origin: &str,
    port: &str,
) -> anyhow::Result<Process> {
    let keys = folder.join("keys").to_string_lossy().into_owned();
    Process::start_with(
        &["pop", "--keys", &keys, "--origin", origin, "--port", port],
        &folder.join("pop"),
        env,
    )
}
