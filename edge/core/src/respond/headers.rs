//! What a response's headers say.

use crate::ports::{CacheState, Header, Request};
use skerry_types::Rung;
use skerry_wire::json;

/// Those of every answer.
pub(super) fn headers(
    request: &Request,
    rung: Rung,
    cache: CacheState,
    ttl_s: Option<u64>,
    timings: &[(&'static str, u32)],
) -> Vec<(Header, String)> {
    let (known, ttl_s) = match (cache, ttl_s) {
        (CacheState::Hit, Some(_)) => ("skerry; hit; ttl=", ttl_s),
        (CacheState::Hit, None) => ("skerry; hit", None),
        (CacheState::Miss, Some(_)) => ("skerry; fwd=uri-miss; stored; ttl=", ttl_s),
        (CacheState::Miss, None) => ("skerry; fwd=uri-miss", None),
        (CacheState::Stale, _) => ("skerry; hit; detail=stale", None),
        (CacheState::Bypass, _) => ("skerry; fwd=bypass", None),
    };
    let mut cache_status = String::with_capacity(known.len() + 20);
    cache_status.push_str(known);
    if let Some(ttl_s) = ttl_s {
        cache_status.push_str(itoa::Buffer::new().format(ttl_s));
    }
    vec![
        (Header::ContentType, json::CONTENT_TYPE_JSON.to_owned()),
        (Header::Rung, rung.as_str().to_owned()),
        (Header::CacheStatus, cache_status),
        (Header::CacheControl, "private, no-store".to_owned()),
        (Header::ServerTiming, server_timing(timings)),
        (Header::Traceparent, traceparent(request)),
    ]
}

/// `rank;dur=1.234, total;dur=5.678`: milliseconds with microseconds behind the point.
fn server_timing(timings: &[(&'static str, u32)]) -> String {
    let mut out = String::with_capacity(32 * timings.len());
    let mut number = itoa::Buffer::new();
    for (at, (name, us)) in timings.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        out.push_str(name);
        out.push_str(";dur=");
        out.push_str(number.format(us / 1000));
        out.push('.');
        // The leading 1 keeps the zeros behind it.
        let thousandths = number.format(1000 + us % 1000);
        out.push_str(thousandths.get(1..).unwrap_or_default());
    }
    out
}

/// W3C Trace Context: the caller's trace goes on with a span of ours, else a trace begins here.
pub(super) fn traceparent(request: &Request) -> String {
    let span = (request.entropy as u64) | 1;
    let incoming = request.header("traceparent").and_then(trace_of);
    let mut out = String::with_capacity(55);
    out.push_str("00-");
    match incoming {
        Some((trace, _)) => out.push_str(trace),
        None => push_hex(&mut out, &(request.entropy | 1).to_be_bytes()),
    }
    out.push('-');
    push_hex(&mut out, &span.to_be_bytes());
    out.push('-');
    out.push_str(incoming.map_or("00", |(_, flags)| flags));
    out
}

/// Trace and flags of a `traceparent` that is one.
fn trace_of(value: &str) -> Option<(&str, &str)> {
    let is_hex = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let mut parts = value.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let (span, flags) = (parts.next()?, parts.next()?);
    let is_one = parts.next().is_none()
        && is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && trace.bytes().any(|b| b != b'0')
        && is_hex(span, 16)
        && is_hex(flags, 2);
    is_one.then_some((trace, flags))
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    let digit = |nibble: u8| char::from(nibble + if nibble < 10 { b'0' } else { b'a' - 10 });
    for byte in bytes {
        out.push(digit(byte >> 4));
        out.push(digit(byte & 15));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::request;

    #[test]
    fn a_trace_goes_on_or_begins() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let good = format!("00-{trace}-b7ad6b7169203331-01");
        let begun = "00-00000000000000030000000000000005-0000000000000005-00";
        let ours = format!("00-{trace}-0000000000000005-01");
        let cases = [
            ("one", good.clone(), &*ours),
            ("a later version", good.replacen("00", "cc", 1), &ours),
            ("none", String::new(), begun),
            ("a forbidden version", good.replacen("00", "ff", 1), begun),
            ("no trace", good.replace(trace, &"0".repeat(32)), begun),
            ("capitals", good.to_uppercase(), begun),
            ("too short", good.replace("319c", "319"), begun),
            ("too many parts", format!("{good}-00"), begun),
            ("not hex", good.replace("b7ad", "b7xd"), begun),
        ];
        for (name, value, want) in cases {
            let mut request = request("GET", "/", "");
            request.entropy = 3 << 64 | 4;
            if !value.is_empty() {
                request.headers.push(("traceparent".to_owned(), value));
            }
            assert_eq!(traceparent(&request), want, "{name}");
        }
    }

    #[test]
    fn headers_say_how_it_went() {
        let request = request("GET", "/", "");
        let cases = [
            (CacheState::Hit, Some(9), "skerry; hit; ttl=9"),
            (CacheState::Hit, None, "skerry; hit"),
            (
                CacheState::Miss,
                Some(300),
                "skerry; fwd=uri-miss; stored; ttl=300",
            ),
            (CacheState::Miss, None, "skerry; fwd=uri-miss"),
            (CacheState::Stale, Some(1), "skerry; hit; detail=stale"),
            (CacheState::Bypass, None, "skerry; fwd=bypass"),
        ];
        let timings = [("rank", 1_234), ("rules", 7), ("total", 5_060_000)];
        for (cache, ttl_s, want) in cases {
            let headers = headers(&request, Rung::Full, cache, ttl_s, &timings);
            let value = |name| headers.iter().find(|(known, _)| *known == name);
            assert_eq!(value(Header::CacheStatus).unwrap().1, want);
            assert_eq!(
                value(Header::ServerTiming).unwrap().1,
                "rank;dur=1.234, rules;dur=0.007, total;dur=5060.000"
            );
        }
    }
}
