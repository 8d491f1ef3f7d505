//! A server that speaks S3, for tests: moto, in a venv in the cache folder, on loopback.

use crate::cargo::{cache, step, succeeds};
use anyhow::{Context, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Pinned, so that a new release never breaks an old commit.
const MOTO: &str = "moto[server]==5.2.5";
const BUCKET: &str = "skerry-test";
/// Longest start of the server, in seconds.
const START_S_MAX: u64 = 60;

/// A running server with an empty bucket; it ends with this.
pub struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    /// `None` where it cannot be installed: there is no Python, or nothing to install from.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let Some(venv) = installed()? else {
            return Ok(None);
        };
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = venv.join("server.log");
        let out = File::create(&log).with_context(|| log.display().to_string())?;
        let child = Command::new(venv.join("bin/moto_server"))
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("moto_server")?;
        let server = Self { child, port };
        let until = Instant::now() + Duration::from_secs(START_S_MAX);
        while !server.make_bucket().unwrap_or(false) {
            if Instant::now() > until {
                bail!("the S3 server did not start: see {}", log.display());
            }
            let pause = Duration::from_millis(100);
            std::sync::mpsc::channel::<()>().1.recv_timeout(pause).ok();
        }
        Ok(Some(server))
    }

    fn make_bucket(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let host = format!("127.0.0.1:{}", self.port);
        write!(
            stream,
            "PUT /{BUCKET} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply
            .split_whitespace()
            .nth(1)
            .is_some_and(|code| code == "200"))
    }

    /// Tells a command where the server is.
    pub fn told<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("SKERRY_TEST_S3", format!("s3://{BUCKET}"))
            .env(
                "AWS_ENDPOINT_URL",
                format!("http://127.0.0.1:{}", self.port),
            )
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-east-1")
    }
}

/// The venv with the server in it.
fn installed() -> anyhow::Result<Option<PathBuf>> {
    let venv = cache()?.join("tools").join("moto-5.2.5");
    if venv.join("bin/moto_server").exists() {
        return Ok(Some(venv));
    }
    let has_venv = ["-c", "import ensurepip, venv"];
    if !succeeds(Command::new("python3").args(has_venv)) {
        eprintln!("== the S3 server needs python3 with venv");
        return Ok(None);
    }
    step(
        "make a venv for the S3 server (once)",
        Command::new("python3").args(["-m", "venv"]).arg(&venv),
    )?;
    let mut install = Command::new(venv.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", MOTO]);
    if let Err(error) = step("install the S3 server (once)", &mut install) {
        eprintln!("== {error:#}");
        return Ok(None);
    }
    Ok(Some(venv))
}
