//! A small HTTP client for the commands that ask a running system.
//!
//! Invariant: a call ends within [`CALL_MS_MAX`], and reads at most [`BODY_BYTES_MAX`].

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::time::Duration;

/// Longest call, in milliseconds.
const CALL_MS_MAX: u64 = 60_000;
/// Largest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 64 << 20;

/// An answer: its status and its body.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Bytes,
}

impl Reply {
    /// The body of a 2xx; an error that says what the problem document says otherwise.
    pub fn json(&self) -> anyhow::Result<Value> {
        let parsed = serde_json::from_slice::<Value>(&self.body);
        if (200..300).contains(&self.status) {
            return parsed.context("the answer is no JSON");
        }
        let problem = parsed.unwrap_or_default();
        let text = |key: &str| {
            problem
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (title, detail, code) = (text("title"), text("detail"), text("code"));
        bail!(
            "{} {title}{}{detail} [{code}]",
            self.status,
            if detail.is_empty() { "" } else { ": " }
        );
    }
}

/// Calls `url`. A body makes it a POST of JSON unless `method` says otherwise.
pub async fn call(
    method: &str,
    url: &str,
    key: Option<&str>,
    body: Option<Vec<u8>>,
) -> anyhow::Result<Reply> {
    let mut request = http::Request::builder().method(method).uri(url);
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let exchange = async {
        let response = client
            .request(request)
            .await
            .with_context(|| format!("{url} does not answer"))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
            .collect()
            .await;
        let body = body
            .map_err(|error| anyhow::anyhow!("{url}: {error}"))?
            .to_bytes();
        anyhow::Ok(Reply { status, body })
    };
    tokio::time::timeout(Duration::from_millis(CALL_MS_MAX), exchange)
        .await
        .with_context(|| format!("{url} did not answer within {} s", CALL_MS_MAX / 1000))?
}

/// Runs one future on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

/// Percent-encodes one path segment or query value.
pub fn encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_url() {
        for (id, want) in [("u1", "u1"), ("a/b c", "a%2Fb%20c"), ("ü", "%C3%BC")] {
            assert_eq!(encode(id), want);
        }
    }

    #[test]
    fn a_problem_becomes_its_own_words() {
        let body = r#"{"title":"Bad request","detail":"`n` is 1 to 200","code":"n_out_of_range"}"#;
        let reply = Reply {
            status: 400,
            body: Bytes::from_static(body.as_bytes()),
        };
        let error = reply.json().unwrap_err().to_string();
        assert_eq!(error, "400 Bad request: `n` is 1 to 200 [n_out_of_range]");
    }
}
