//! A lean load generator: kept-alive connections, one request in flight on each, no allocation on
//! the way, so that what is measured is the server.

use anyhow::{Context, bail, ensure};
use memchr::memmem;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Longest wait for one answer, in milliseconds.
const ANSWER_MS_MAX: u64 = 10_000;

/// One connection.
#[derive(Debug)]
pub struct Pump {
    stream: TcpStream,
    buffer: Vec<u8>,
    end: usize,
}

/// An answer, in the connection's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    pub status: u16,
    pub head: &'a [u8],
    pub body: &'a [u8],
}

impl Reply<'_> {
    /// The value of a header, given in lower case.
    pub fn header(&self, name: &str) -> &str {
        let text = std::str::from_utf8(self.head).unwrap_or_default();
        let lines = text
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'));
        lines
            .into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.trim())
    }

    /// `Server-Timing`: milliseconds by step.
    pub fn timings(&self) -> Vec<(String, f64)> {
        let steps = self.header("server-timing").split(',');
        steps
            .filter_map(|step| {
                let (name, rest) = step.trim().split_once(';')?;
                Some((
                    name.to_owned(),
                    rest.trim().strip_prefix("dur=")?.parse().ok()?,
                ))
            })
            .collect()
    }
}

impl Pump {
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; 64 << 10],
            end: 0,
        })
    }

    /// Sends a request and reads its answer.
    pub async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Reply<'_>> {
        self.stream.write_all(request).await?;
        self.end = 0;
        let (mut head_end, mut total) = (None, usize::MAX);
        while self.end < total {
            if self.end == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let read = self.stream.read(&mut self.buffer[self.end..]).await?;
            ensure!(read > 0, "closed before the end of an answer");
            self.end += read;
            if head_end.is_none()
                && let Some(at) = memmem::find(&self.buffer[..self.end], b"\r\n\r\n")
            {
                head_end = Some(at);
                total = at + 4 + content_length(&self.buffer[..at])?;
            }
        }
        let at = head_end.context("no head")?;
        let status = self
            .buffer
            .get(9..12)
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        Ok(Reply {
            status: status.context("no status")?,
            head: &self.buffer[..at],
            body: &self.buffer[at + 4..total],
        })
    }
}

fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    // Both servers here write names in lower case.
    let at = memmem::find(head, b"content-length: ").context("an answer without a length")? + 16;
    let digits = head[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Ok(digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0')))
}

/// A GET, ready to send.
pub fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

/// A POST of JSON, ready to send.
pub fn post(target: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// What a round of load came to.
#[derive(Debug, Default)]
pub struct Round {
    pub per_second: f64,
    pub latencies_ms: Vec<f64>,
}

/// As many requests as `connections` connections can do in `length`. `request(connection, turn)`
/// makes them; `check` sees every answer.
pub async fn full_speed<R, C>(
    url: &str,
    connections: usize,
    length: Duration,
    request: R,
    check: C,
) -> anyhow::Result<Round>
where
    R: Fn(usize, u64) -> Vec<u8> + Clone + 'static,
    C: Fn(&Reply<'_>) -> anyhow::Result<()> + Clone + 'static,
{
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let mut workers = JoinSet::new();
            let began = Instant::now();
            for connection in 0..connections {
                let (url, request, check) = (url.to_owned(), request.clone(), check.clone());
                workers.spawn_local(async move {
                    let mut pump = Pump::connect(&url).await?;
                    let mut latencies = Vec::with_capacity(1 << 14);
                    for turn in 0u64.. {
                        if began.elapsed() >= length {
                            break;
                        }
                        let bytes = request(connection, turn);
                        let sent = Instant::now();
                        let limit = Duration::from_millis(ANSWER_MS_MAX);
                        match tokio::time::timeout(limit, pump.exchange(&bytes)).await {
                            Ok(reply) => check(&reply?)?,
                            Err(_) => bail!("no answer within {ANSWER_MS_MAX} ms"),
                        }
                        latencies.push(sent.elapsed().as_secs_f64() * 1000.0);
                    }
                    anyhow::Ok(latencies)
                });
            }
            let mut round = Round::default();
            while let Some(done) = workers.join_next().await {
                round.latencies_ms.extend(done??);
            }
            round.per_second = round.latencies_ms.len() as f64 / began.elapsed().as_secs_f64();
            Ok(round)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nserver-timing: rank;dur=0.5, total;dur=2";
        assert_eq!(content_length(head).unwrap(), 1234);
        let reply = Reply {
            status: 200,
            head,
            body: b"",
        };
        assert_eq!(
            reply.timings(),
            [("rank".to_owned(), 0.5), ("total".to_owned(), 2.0)]
        );
        assert!(content_length(b"HTTP/1.1 200 OK").is_err());
    }
}
