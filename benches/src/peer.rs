//! The peer of `edge.hit`: plain hyper, answering every request with the same head and body.

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Headers that hyper writes by itself.
const OWN_HEADERS: [&str; 4] = ["content-length", "date", "connection", "transfer-encoding"];

/// Serves the answer in `file` (head, empty line, body) on a free port, which it prints.
pub fn run(file: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(file)?;
    let end = memchr::memmem::find(&bytes, b"\r\n\r\n").context("no head")?;
    let head = std::str::from_utf8(&bytes[..end])?;
    let headers: Vec<(String, String)> = head
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| !OWN_HEADERS.contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let body = Bytes::copy_from_slice(&bytes[end + 4..]);
    let mut template = http::HeaderMap::new();
    for (name, value) in &headers {
        template.append(
            http::HeaderName::from_bytes(name.as_bytes())?,
            value.parse()?,
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (template, body) = (template.clone(), body.clone());
            tokio::spawn(async move {
                let service = service_fn(move |_| {
                    let mut response = http::Response::new(Full::new(body.clone()));
                    *response.headers_mut() = template.clone();
                    async move { Ok::<_, Infallible>(response) }
                });
                // A client that goes away is the end of its connection, nothing more.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

/// The peer as a process of its own; killed when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    pub url: String,
}

impl Peer {
    /// A peer that answers with these bytes.
    pub fn start(file: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("peer")
            .arg(file)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        Ok(Self {
            child,
            url: format!("http://{}", line.trim()),
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
