//! What crosses into the worker of a request, and back of a response: method, headers, bodies.

use crate::world::skerry::edge::types::Method;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use skerry_wire::json::{BODY_BYTES_MAX, Problem, codes};
use std::time::Duration;

/// A request's body must be there within this, in milliseconds.
const BODY_MS_MAX: u64 = 10_000;
/// Of a body that is too large so much is read and dropped, so that its sender reads our answer and not
/// a reset; in bytes, and in milliseconds.
const DISCARD_BYTES_MAX: usize = 16 << 20;
const DISCARD_MS_MAX: u64 = 2_000;
/// Headers that the core reads.
const HEADERS: [&str; 4] = ["x-api-key", "authorization", "content-type", "traceparent"];
/// Where platforms put the caller's country, and what the core calls it.
const COUNTRY_HEADERS: [&str; 3] = [
    "cf-ipcountry",
    "cloudfront-viewer-country",
    "x-vercel-ip-country",
];
const COUNTRY: &str = "x-skerry-country";
const RUNG: HeaderName = HeaderName::from_static("x-skerry-rung");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The body, where it is small enough. A larger one is never held: what is still coming is dropped.
pub(super) async fn read_body(mut body: Incoming, headers: &HeaderMap) -> Result<Vec<u8>, Problem> {
    if body.is_end_stream() {
        return Ok(Vec::new());
    }
    let announced = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if let Some(bytes) = announced.filter(|bytes| *bytes > BODY_BYTES_MAX) {
        if bytes <= DISCARD_BYTES_MAX {
            discard(body).await;
        }
        return Err(Problem::too_large(bytes));
    }
    let all = async {
        let mut bytes = Vec::with_capacity(announced.unwrap_or(0));
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| ())?.into_data() else {
                continue;
            };
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
        Ok::<_, ()>(Some(bytes))
    };
    match tokio::time::timeout(Duration::from_millis(BODY_MS_MAX), all).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            discard(body).await;
            Err(Problem::too_large(BODY_BYTES_MAX + 1))
        }
        Ok(Err(())) => Err(Problem::bad_request(
            codes::INVALID_REQUEST,
            "the body broke off",
        )),
        Err(_) => Err(Problem::bad_request(
            codes::INVALID_REQUEST,
            "the body did not come in time",
        )),
    }
}

/// Reads and drops, within bounds.
async fn discard(mut body: Incoming) {
    let all = async {
        let mut left = DISCARD_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(bytes);
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(DISCARD_MS_MAX), all).await;
}

pub(super) fn headers(all: &HeaderMap) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for name in HEADERS {
        if let Some(value) = all.get(name) {
            // A value that is not text cannot be a key; it must not be taken for an absent one.
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            out.push((name.to_owned(), value));
        }
    }
    let country = COUNTRY_HEADERS
        .iter()
        .find_map(|name| all.get(*name))
        .and_then(|value| value.to_str().ok());
    if let Some(country) = country {
        out.push((COUNTRY.to_owned(), country.to_owned()));
    }
    out
}

pub(super) fn put_header(headers: &mut HeaderMap, name: &[u8], value: String) {
    let name = match name {
        // Those of every answer, without a look at their letters.
        b"content-type" => http::header::CONTENT_TYPE,
        b"cache-control" => http::header::CACHE_CONTROL,
        b"x-skerry-rung" => RUNG,
        b"cache-status" => CACHE_STATUS,
        b"server-timing" => SERVER_TIMING,
        b"traceparent" => TRACEPARENT,
        other => match HeaderName::from_bytes(other) {
            Ok(name) => name,
            Err(_) => return,
        },
    };
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
        headers.append(name, value);
    }
}

pub(super) fn method(method: &http::Method) -> Method {
    match *method {
        http::Method::GET => Method::Get,
        http::Method::POST => Method::Post,
        http::Method::HEAD => Method::Head,
        http::Method::PUT => Method::Put,
        http::Method::PATCH => Method::Patch,
        http::Method::DELETE => Method::Delete,
        http::Method::OPTIONS => Method::Options,
        _ => Method::Other,
    }
}
