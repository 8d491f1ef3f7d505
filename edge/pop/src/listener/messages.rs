//! What crosses into the worker of a request, and back of a response: method, headers, bodies.

use crate::world::skerry::edge::types::{Header, Method};
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
    let mut out: Vec<(String, String)> = Vec::new();
    let mut country: Option<(usize, &HeaderValue)> = None;
    for (name, value) in all {
        let name = name.as_str();
        if HEADERS.contains(&name) {
            if out.iter().any(|(known, _)| known == name) {
                continue;
            }
            // A value that is not text cannot be a key; it must not be taken for an absent one.
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            out.push((name.to_owned(), value));
        } else if let Some(at) = COUNTRY_HEADERS.iter().position(|one| *one == name)
            && country.is_none_or(|(best, _)| at < best)
        {
            country = Some((at, value));
        }
    }
    if let Some(country) = country.and_then(|(_, value)| value.to_str().ok()) {
        out.push((COUNTRY.to_owned(), country.to_owned()));
    }
    out
}

pub(super) const fn header_name(header: Header) -> HeaderName {
    match header {
        Header::ContentType => http::header::CONTENT_TYPE,
        Header::CacheControl => http::header::CACHE_CONTROL,
        Header::XSkerryRung => RUNG,
        Header::CacheStatus => CACHE_STATUS,
        Header::ServerTiming => SERVER_TIMING,
        Header::Traceparent => TRACEPARENT,
        Header::RetryAfter => http::header::RETRY_AFTER,
        Header::Allow => http::header::ALLOW,
        Header::WwwAuthenticate => http::header::WWW_AUTHENTICATE,
    }
}

pub(super) fn put_header(headers: &mut HeaderMap, name: HeaderName, value: String) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_core_reads_of_a_request() {
        type Given = &'static [(&'static str, &'static [u8])];
        type Read = &'static [(&'static str, &'static str)];
        let cases: [(&str, Given, Read); 5] = [
            ("nothing", &[("host", b"x"), ("accept", b"*/*")], &[]),
            (
                "keys and types",
                &[("x-api-key", b"k"), ("host", b"x"), ("content-type", b"t")],
                &[("x-api-key", "k"), ("content-type", "t")],
            ),
            (
                "the first of several",
                &[("x-api-key", b"one"), ("x-api-key", b"two")],
                &[("x-api-key", "one")],
            ),
            (
                "not text",
                &[("authorization", b"\xff")],
                &[("authorization", "\u{fffd}")],
            ),
            (
                "the platform that is named first",
                &[("x-vercel-ip-country", b"FR"), ("cf-ipcountry", b"DE")],
                &[("x-skerry-country", "DE")],
            ),
        ];
        for (name, given, want) in cases {
            let mut all = HeaderMap::new();
            for (name, value) in given {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                all.append(name, HeaderValue::from_bytes(value).unwrap());
            }
            let got = headers(&all);
            let got: Vec<_> = got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(got, want, "{name}");
        }
    }
}
