//! The answer, written straight into bytes. Four fields have a fixed width, so that a body that was
//! kept can be served again by overwriting them: `request_id`, `age_ms`, `took_ms`, `cache`. Padding
//! is JSON whitespace outside the values.

use super::attributes::time_to_json;
use super::write::{comma, key, write_float, write_integer, write_name, write_string, write_value};
use skerry_types::{
    Attributes, Candidate, Cause, ItemId, ItemRef, Millis, ReasonKind, Rung, Source, Uid, Warning,
};

/// Width of the patchable durations, in bytes.
pub const MS_WIDTH: usize = 10;
/// Width of the patchable cache state, quotes included, in bytes.
pub const CACHE_WIDTH: usize = 8;
/// Length of an id's text.
const UID_BYTES: usize = 36;
/// Length of all slots together.
pub const PATCHES_BYTES: usize = UID_BYTES + MS_WIDTH + CACHE_WIDTH + MS_WIDTH;

/// Everything that an answer says, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct AnswerView<'a> {
    pub request_id: Uid,
    /// In order.
    pub items: &'a [ItemView<'a>],
    /// Items of the same list shown before: ranks go on from here.
    pub shown: u16,
    /// Names of the metadata that the caller asked for.
    pub fields: &'a [Box<str>],
    pub served: Served<'a>,
    pub next: Option<&'a str>,
    pub warnings: &'a [Warning],
}

/// One item of an answer.
#[derive(Debug, Clone, Copy)]
pub struct ItemView<'a> {
    pub id: &'a ItemId,
    pub score: f32,
    pub source: Source,
    pub propensity: f32,
    /// All metadata that is there; only what was asked for is written.
    pub metadata: Option<&'a Attributes>,
    pub reason: Option<ReasonView<'a>>,
}

impl<'a> ItemView<'a> {
    /// A candidate without its reason and its metadata.
    #[must_use]
    pub fn of(candidate: &'a Candidate) -> Self {
        Self {
            id: &candidate.id,
            score: candidate.score,
            source: candidate.source,
            propensity: candidate.propensity,
            metadata: None,
            reason: None,
        }
    }

    /// A candidate with its reason in words.
    #[must_use]
    pub fn explained(candidate: &'a Candidate, text: &'a str, by: &'a str) -> Self {
        let reason = ReasonView {
            text,
            kind: candidate.reason.kind,
            items: candidate.reason.item.as_slice(),
            by,
        };
        Self {
            reason: Some(reason),
            ..Self::of(candidate)
        }
    }

    /// The same, with metadata.
    #[must_use]
    pub fn with(self, metadata: &'a Attributes) -> Self {
        Self {
            metadata: Some(metadata),
            ..self
        }
    }
}

/// A reason in words.
#[derive(Debug, Clone, Copy)]
pub struct ReasonView<'a> {
    pub text: &'a str,
    pub kind: ReasonKind,
    pub items: &'a [ItemRef],
    /// Who put it into words: `template` or a model's name.
    pub by: &'a str,
}

/// How the answer came about.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    pub rung: Rung,
    pub cause: Option<Cause>,
    pub as_of_ms: Millis,
    pub age_ms: u64,
    /// `hit`, `miss`, `stale` or `bypass`.
    pub cache: &'a str,
    pub decision_id: Uid,
    pub region: &'a str,
    pub pop: &'a str,
    pub model: &'a str,
    pub took_ms: u64,
}

/// Where the fixed-width fields of a rendered body start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    pub request_id: u32,
    pub age_ms: u32,
    pub cache: u32,
    pub took_ms: u32,
}

impl Slots {
    /// Offset and length of each, in the order of [`Self::patches`].
    #[must_use]
    pub const fn to_array(self) -> [(u32, u32); 4] {
        let (id, ms, cache) = (UID_BYTES as u32, MS_WIDTH as u32, CACHE_WIDTH as u32);
        [
            (self.request_id, id),
            (self.age_ms, ms),
            (self.cache, cache),
            (self.took_ms, ms),
        ]
    }

    /// What makes a kept body this request's answer: the bytes of all slots, one after another.
    #[must_use]
    pub fn patches(request_id: Uid, age_ms: u64, cache: &str, took_ms: u64) -> [u8; PATCHES_BYTES] {
        let mut out = [0; PATCHES_BYTES];
        let id = request_id.text();
        let (age_ms, cache, took_ms) = (ms_patch(age_ms), cache_patch(cache), ms_patch(took_ms));
        let all = id.iter().chain(&age_ms).chain(&cache).chain(&took_ms);
        for (slot, byte) in out.iter_mut().zip(all) {
            *slot = *byte;
        }
        out
    }
}

/// Milliseconds, right-aligned; more than 10 digits stay at the largest number of 10.
#[must_use]
pub fn ms_patch(ms: u64) -> [u8; MS_WIDTH] {
    let mut out = [b' '; MS_WIDTH];
    let mut left = ms.min(9_999_999_999);
    for slot in out.iter_mut().rev() {
        *slot = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out
}

/// A quoted cache state, filled up with spaces. Names of more than 6 bytes do not exist; one that
/// is not plain `a-z` would break the body and becomes `bypass`.
#[must_use]
pub fn cache_patch(state: &str) -> [u8; CACHE_WIDTH] {
    let fits = state.len() + 2 <= CACHE_WIDTH && state.bytes().all(|b| b.is_ascii_lowercase());
    let state = if fits { state } else { "bypass" };
    let mut out = [b' '; CACHE_WIDTH];
    let quoted = std::iter::once(b'"')
        .chain(state.bytes())
        .chain(std::iter::once(b'"'));
    for (slot, byte) in out.iter_mut().zip(quoted) {
        *slot = byte;
    }
    out
}

/// Appends an answer to `out`; slots count from the start of the answer.
pub fn render_answer(view: &AnswerView<'_>, out: &mut Vec<u8>) -> Slots {
    out.reserve(512 + view.items.len() * 256);
    let start = out.len();
    let here = |out: &Vec<u8>| u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out.push(b'{');
    key!(out, "request_id");
    let request_id = here(out) + 1;
    uid(out, view.request_id);
    key!(out, "items");
    out.push(b'[');
    for (at, item) in view.items.iter().enumerate() {
        comma(out);
        write_item(
            out,
            item,
            u64::from(view.shown) + at as u64 + 1,
            view.fields,
        );
    }
    out.push(b']');

    let served = &view.served;
    key!(out, "served");
    out.push(b'{');
    key!(out, "rung");
    write_name(out, served.rung.as_str());
    key!(out, "cause");
    match served.cause {
        Some(cause) => write_name(out, cause.as_str()),
        None => out.extend_from_slice(b"null"),
    }
    key!(out, "as_of");
    time_to_json(out, served.as_of_ms);
    key!(out, "age_ms");
    let age_ms = here(out);
    out.extend_from_slice(&ms_patch(served.age_ms));
    key!(out, "cache");
    let cache = here(out);
    out.extend_from_slice(&cache_patch(served.cache));
    key!(out, "decision_id");
    uid(out, served.decision_id);
    for (name, text) in [
        ("region", served.region),
        ("pop", served.pop),
        ("model", served.model),
    ] {
        comma(out);
        write_string(out, name);
        out.push(b':');
        write_string(out, text);
    }
    key!(out, "took_ms");
    let took_ms = here(out);
    out.extend_from_slice(&ms_patch(served.took_ms));
    out.push(b'}');

    out.extend_from_slice(b",\"experiments\":[]");
    key!(out, "next");
    match view.next {
        Some(token) => write_string(out, token),
        None => out.extend_from_slice(b"null"),
    }
    key!(out, "warnings");
    out.push(b'[');
    for warning in view.warnings {
        comma(out);
        out.push(b'{');
        key!(out, "code");
        write_name(out, warning.code.as_str());
        key!(out, "detail");
        write_string(out, &warning.detail);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Slots {
        request_id,
        age_ms,
        cache,
        took_ms,
    }
}

fn uid(out: &mut Vec<u8>, id: Uid) {
    out.push(b'"');
    out.extend_from_slice(&id.text());
    out.push(b'"');
}

fn write_item(out: &mut Vec<u8>, item: &ItemView<'_>, rank: u64, fields: &[Box<str>]) {
    out.push(b'{');
    key!(out, "id");
    write_string(out, item.id.as_str());
    key!(out, "rank");
    write_integer(out, rank);
    key!(out, "score");
    write_float(out, f64::from(item.score));
    key!(out, "source");
    write_name(out, item.source.as_str());
    key!(out, "propensity");
    write_float(out, f64::from(item.propensity));
    if !fields.is_empty() {
        key!(out, "fields");
        out.push(b'{');
        for (at, name) in fields.iter().enumerate() {
            // A name asked for twice is answered once.
            if fields.iter().take(at).any(|earlier| earlier == name) {
                continue;
            }
            if let Some(value) = item.metadata.and_then(|metadata| metadata.get(name)) {
                comma(out);
                write_string(out, name);
                out.push(b':');
                write_value(out, value);
            }
        }
        out.push(b'}');
    }
    if let Some(reason) = &item.reason {
        key!(out, "reason");
        out.push(b'{');
        key!(out, "text");
        write_string(out, reason.text);
        key!(out, "kind");
        write_name(out, reason.kind.as_str());
        key!(out, "items");
        out.push(b'[');
        for liked in reason.items {
            comma(out);
            write_string(out, liked.id.as_str());
        }
        out.push(b']');
        key!(out, "by");
        write_string(out, reason.by);
        out.push(b'}');
    }
    out.push(b'}');
}
