//! Between the world's records and the core's types. Moves, no copies, where the shapes allow it.

use crate::bindings::skerry::edge::types as wit;
use skerry_edge_core::ports::{self, Body, CacheState, Header, RouteLabel};
use skerry_types::{Cause, Rung, Tick};

/// In a [`wit::Note`]: no position.
const NONE: u8 = 255;

pub fn request(request: wit::Request) -> ports::Request {
    let (high, low) = request.entropy;
    ports::Request {
        method: method(request.method),
        target: request.target,
        headers: request.headers,
        body: request.body,
        now: request.now_ms,
        tick: Tick(request.tick_us),
        entropy: u128::from(high) << 64 | u128::from(low),
        loopback: request.loopback,
        revalidate: request.revalidate,
        epochs: ports::Epochs {
            config: request.epochs.config,
            pool: request.epochs.pool,
            pool_as_of: request.epochs.pool_as_of_ms,
            mask: request.epochs.mask,
            mask_until: request.epochs.mask_until_ms,
            popular: request.epochs.popular,
            bandit: request.epochs.bandit,
        },
    }
}

fn method(method: wit::Method) -> ports::Method {
    match method {
        wit::Method::Get => ports::Method::Get,
        wit::Method::Head => ports::Method::Head,
        wit::Method::Post => ports::Method::Post,
        wit::Method::Put => ports::Method::Put,
        wit::Method::Patch => ports::Method::Patch,
        wit::Method::Delete => ports::Method::Delete,
        wit::Method::Options => ports::Method::Options,
        wit::Method::Other => ports::Method::Other,
    }
}

pub fn response(response: ports::Response) -> wit::Response {
    let note = response.note;
    wit::Response {
        revalidate: response.revalidate,
        status: response.status,
        headers: response
            .headers
            .into_iter()
            .map(|(name, value)| (header(name), value))
            .collect(),
        body: match response.body {
            Body::Inline(bytes) => wit::Body::Inline(bytes),
            Body::Keep(keep) => wit::Body::Keep(wit::Keep {
                bytes: keep.bytes,
                key: keep.key,
                render: keep.render,
                context_version: keep.context_version,
                until_ms: keep.until,
                slots: keep.slots,
                head: keep.head,
            }),
            Body::Stored(patches) => wit::Body::Stored(patches),
        },
        exposure: response.exposure,
        note: wit::Note {
            route: position(&RouteLabel::ALL, Some(note.route)),
            rung: position(Rung::ALL, note.rung),
            cause: position(Cause::ALL, note.cause),
            cache: position(&CacheState::ALL, note.cache),
            surface_known: note.surface_known,
        },
    }
}

const fn header(header: Header) -> wit::Header {
    match header {
        Header::ContentType => wit::Header::ContentType,
        Header::CacheControl => wit::Header::CacheControl,
        Header::Rung => wit::Header::XSkerryRung,
        Header::CacheStatus => wit::Header::CacheStatus,
        Header::ServerTiming => wit::Header::ServerTiming,
        Header::Traceparent => wit::Header::Traceparent,
        Header::RetryAfter => wit::Header::RetryAfter,
        Header::Allow => wit::Header::Allow,
        Header::WwwAuthenticate => wit::Header::WwwAuthenticate,
    }
}

/// Position of a value among all of its kind.
fn position<T: PartialEq>(all: &[T], value: Option<T>) -> u8 {
    let at = value.and_then(|value| all.iter().position(|one| *one == value));
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(NONE)
}

/// The value at a position among all of its kind.
pub fn at<T: Copy>(all: &[T], position: u8) -> Option<T> {
    all.get(usize::from(position)).copied()
}
