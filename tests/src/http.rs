//! An HTTP/1.1 client that can also misbehave: one connection, one request at a time, nothing
//! hidden, cheap enough to put load on a server from the same machine.

use anyhow::{Context, bail};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest exchange, in milliseconds.
pub const CALL_MS_MAX: u64 = 30_000;
const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 64 << 20;

/// An answer. Header names are in lower case.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }

    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Ids of the items of an answer, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let answer = self.json();
        let items = answer["items"].as_array().into_iter().flatten();
        items
            .filter_map(|item| Some(item["id"].as_str()?.to_owned()))
            .collect()
    }

    #[must_use]
    pub fn rung(&self) -> &str {
        self.header("x-skerry-rung")
    }

    /// `served.cause`, empty for none.
    #[must_use]
    pub fn cause(&self) -> String {
        self.json()["served"]["cause"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// One kept-alive connection; it reconnects after the server closed it.
#[derive(Debug)]
pub struct Client {
    address: String,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    /// For `http://HOST:PORT`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let address = url
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        Self {
            address,
            stream: None,
            buffer: Vec::with_capacity(16 << 10),
        }
    }

    pub async fn get(&mut self, target: &str) -> anyhow::Result<Response> {
        self.send("GET", target, &[], None).await
    }

    pub async fn post(&mut self, target: &str, body: &Value) -> anyhow::Result<Response> {
        self.send("POST", target, &[], Some(body.to_string().as_bytes()))
            .await
    }

    pub async fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> anyhow::Result<Response> {
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            request.push_str(&format!(
                "content-type: application/json\r\ncontent-length: {}\r\n",
                body.len()
            ));
        }
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        self.exchange(&bytes).await
    }

    /// Sends these bytes, whatever they are, and reads one answer.
    pub async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Response> {
        let done = tokio::time::timeout(
            Duration::from_millis(CALL_MS_MAX),
            self.exchange_unbounded(request),
        )
        .await;
        let done = done.unwrap_or_else(|_| bail!("no answer within {CALL_MS_MAX} ms"));
        if done.is_err() {
            self.stream = None;
        }
        done
    }

    async fn exchange_unbounded(&mut self, request: &[u8]) -> anyhow::Result<Response> {
        let fresh = self.stream.is_none();
        if fresh {
            self.connect().await?;
        }
        match self.once(request).await {
            // The server may close an idle connection at any time: once more, on a new one.
            Err(_) if !fresh => {
                self.connect().await?;
                self.once(request).await
            }
            done => done,
        }
    }

    async fn connect(&mut self) -> anyhow::Result<()> {
        let stream = TcpStream::connect(&self.address)
            .await
            .with_context(|| format!("connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        self.stream = Some(stream);
        self.buffer.clear();
        Ok(())
    }

    async fn once(&mut self, request: &[u8]) -> anyhow::Result<Response> {
        let stream = self.stream.as_mut().context("not connected")?;
        // A server that refuses a body early closes its side: what it said still counts.
        let written = stream.write_all(request).await;
        let head_end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                bail!("the head of the answer is too large");
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                written?;
                bail!("closed before an answer");
            }
        };
        let head = std::str::from_utf8(&self.buffer[..head_end]).context("the head is no text")?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|status| status.parse().ok());
        let status = status.context("no status")?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let value = |name: &str| {
            headers
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        let start = head_end + 4;
        let length = value("content-length")
            .map(str::parse::<usize>)
            .transpose()?;
        if value("transfer-encoding").is_some()
            || length.is_some_and(|length| length > BODY_BYTES_MAX)
        {
            bail!("an answer without a plain length");
        }
        let end = start + length.unwrap_or(0);
        while self.buffer.len() < end {
            if stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("closed within an answer");
            }
        }
        let body = self.buffer[start..end].to_vec();
        let close = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.buffer.drain(..end);
        if close {
            self.stream = None;
        }
        Ok(Response {
            status,
            headers,
            body,
        })
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
