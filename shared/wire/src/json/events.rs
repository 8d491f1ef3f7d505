//! Events from JSON, each judged by itself: a batch is taken as far as it is valid.

use super::attributes::read_time;
use super::read::{Mistakes, Path, get};
use super::tree::{Entry, Node, parse};
use super::write::{comma, key, write_integer, write_name, write_string};
use super::{ERRORS_MAX, EVENT_AHEAD_MS_MAX, FieldError, POSITIONS_MAX, Problem, codes};
use crate::frame::EVENTS_MAX;
use skerry_types::{
    Event, EventId, EventKind, Hlc, IdError, ItemId, Millis, SessionId, Surface, TenantId, Uid,
    UserId,
};
use std::sync::Arc;

/// An event as an app reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct EventInput {
    pub id: Option<EventId>,
    pub kind: EventKind,
    pub user: Option<UserId>,
    pub session: Option<SessionId>,
    pub item: Option<ItemId>,
    pub value: Option<f32>,
    pub at_ms: Option<Millis>,
    pub surface: Option<Surface>,
    pub request_id: Option<Uid>,
    pub positions: Vec<u16>,
}

/// What accepting adds to an event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventStamp {
    pub tenant: TenantId,
    /// For an event that brings none.
    pub fresh_id: Uid,
    pub accepted_ms: Millis,
    pub hlc: Hlc,
    pub region: Arc<str>,
    pub pop: Arc<str>,
}

impl EventInput {
    /// The event as accepted. `at` of an event that names no time is the acceptance.
    #[must_use]
    pub fn accept(self, stamp: EventStamp) -> Event {
        let EventStamp {
            tenant,
            fresh_id,
            accepted_ms,
            hlc,
            region,
            pop,
        } = stamp;
        Event {
            tenant,
            id: self.id.unwrap_or_else(|| fresh_id.into()),
            kind: self.kind,
            user: self.user,
            session: self.session,
            item: self.item,
            value: self.value,
            at_ms: self.at_ms.unwrap_or(accepted_ms),
            accepted_ms,
            surface: self.surface,
            request_id: self.request_id,
            positions: self.positions,
            hlc,
            region,
            pop,
        }
    }
}

/// One entry of a batch that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub index: usize,
    pub code: &'static str,
    pub detail: String,
    /// JSON pointer into the body.
    pub pointer: String,
}

impl Rejected {
    pub(super) fn of(index: usize, error: FieldError) -> Self {
        Self {
            index,
            code: error.code,
            detail: error.detail,
            pointer: error.pointer,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ParsedEvents {
    /// By index in the body.
    pub accepted: Vec<(usize, EventInput)>,
    pub rejected: Vec<Rejected>,
}

/// `POST /v1/events`: one event, or an array of up to 500. A body of which nothing can be taken is
/// a problem.
pub fn parse_events(body: &[u8], now: Millis) -> Result<ParsedEvents, Problem> {
    let root = parse(body)?;
    let mut parsed = ParsedEvents::default();
    match &root {
        Node::List(_) => {
            let mut mistakes = Mistakes::default();
            let Some(list) = mistakes.list(&root, &Path::ROOT, 1..=EVENTS_MAX) else {
                return mistakes.finish(parsed);
            };
            for (index, node) in list.iter().enumerate() {
                parsed.take(index, node, &Path::ROOT.index(index), now);
            }
        }
        one => parsed.take(0, one, &Path::ROOT, now),
    }
    if !parsed.accepted.is_empty() {
        return Ok(parsed);
    }
    let errors = parsed
        .rejected
        .into_iter()
        .take(ERRORS_MAX)
        .map(|rejected| FieldError {
            pointer: rejected.pointer,
            code: rejected.code,
            detail: rejected.detail,
        });
    Err(Problem {
        code: codes::NONE_ACCEPTED,
        title: codes::title(codes::NONE_ACCEPTED),
        ..Problem::invalid(errors.collect())
    })
}

/// Appends the body of the 202.
pub fn render_accepted(out: &mut Vec<u8>, accepted: usize, rejected: &[Rejected]) {
    out.push(b'{');
    key!(out, "accepted");
    write_integer(out, accepted as u64);
    key!(out, "rejected");
    out.push(b'[');
    for one in rejected {
        comma(out);
        out.push(b'{');
        key!(out, "index");
        write_integer(out, one.index as u64);
        key!(out, "code");
        write_name(out, one.code);
        key!(out, "detail");
        write_string(out, &one.detail);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

impl ParsedEvents {
    fn take(&mut self, index: usize, node: &Node<'_>, path: &Path<'_>, now: Millis) {
        let mut mistakes = Mistakes::default();
        let event = read_event(node, path, now, &mut mistakes);
        match (event, mistakes.into_list().into_iter().next()) {
            (Some(event), None) => self.accepted.push((index, event)),
            (_, first) => self
                .rejected
                .extend(first.map(|error| Rejected::of(index, error))),
        }
    }
}

const KNOWN: [&str; 10] = [
    "id",
    "type",
    "user",
    "session",
    "item",
    "value",
    "at",
    "surface",
    "request_id",
    "positions",
];

fn read_event(
    node: &Node<'_>,
    path: &Path<'_>,
    now: Millis,
    mistakes: &mut Mistakes,
) -> Option<EventInput> {
    let entries = mistakes.object(node, path)?;
    mistakes.known(entries, path, &KNOWN);
    let event = EventInput {
        kind: read_kind(entries, path, mistakes)?,
        id: id(entries, "id", path, mistakes, EventId::new),
        user: id(entries, "user", path, mistakes, UserId::new),
        session: id(entries, "session", path, mistakes, SessionId::new),
        item: id(entries, "item", path, mistakes, ItemId::new),
        value: read_value(entries, path, mistakes),
        at_ms: read_at(entries, path, now, mistakes),
        surface: id(entries, "surface", path, mistakes, Surface::new),
        request_id: id(entries, "request_id", path, mistakes, |text| text.parse()),
        positions: read_positions(entries, path, mistakes),
    };
    if mistakes.is_empty() {
        complete(&event, path, mistakes);
    }
    Some(event)
}

/// What an event of its kind cannot do without.
fn complete(event: &EventInput, path: &Path<'_>, mistakes: &mut Mistakes) {
    let mut missing = |name: &'static str, why: &'static str| {
        mistakes.note(&path.key(name), codes::MISSING_FIELD, || why.to_owned());
    };
    let is_impression = event.kind == EventKind::Impression;
    if event.user.is_none() && event.session.is_none() && event.request_id.is_none() {
        missing("user", "an event needs a user, a session or a request_id");
    }
    if event.item.is_none()
        && !matches!(event.kind, EventKind::Custom(_))
        && !(is_impression && event.request_id.is_some())
    {
        missing("item", "an event of this type needs an item");
    }
    if event.kind == EventKind::Rating && event.value.is_none() {
        missing("value", "a rating needs a value");
    }
    if !event.positions.is_empty() && event.request_id.is_none() {
        missing(
            "request_id",
            "positions need the request_id of the answer that they count in",
        );
    }
}

fn id<T>(
    entries: &[Entry<'_>],
    name: &str,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
    new: fn(&str) -> Result<T, IdError>,
) -> Option<T> {
    mistakes.id_node(get(entries, name)?, &path.key(name), new)
}

fn read_kind(entries: &[Entry<'_>], path: &Path<'_>, mistakes: &mut Mistakes) -> Option<EventKind> {
    let path = path.key("type");
    let Some(node) = get(entries, "type") else {
        mistakes.note(&path, codes::MISSING_FIELD, || "type is missing".to_owned());
        return None;
    };
    let kind = EventKind::parse(mistakes.text(node, &path)?);
    if kind.is_none() {
        mistakes.must(
            &path,
            codes::EVENT_TYPE_INVALID,
            "a type of event: 1 to 64 characters of a-z, 0-9, '_', '-', '.'",
        );
    }
    kind
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "values are kept as f32"
)]
fn read_value(entries: &[Entry<'_>], path: &Path<'_>, mistakes: &mut Mistakes) -> Option<f32> {
    let node = get(entries, "value")?;
    let path = path.key("value");
    let value = match node {
        Node::Int(int) => *int as f32,
        Node::Float(float) => *float as f32,
        other => {
            mistakes.wrong_type(&path, "a number", other);
            return None;
        }
    };
    if value.abs() > 1e9 {
        mistakes.must(&path, codes::OUT_OF_RANGE, "a number from -1e9 to 1e9");
        return None;
    }
    Some(value)
}

fn read_at(
    entries: &[Entry<'_>],
    path: &Path<'_>,
    now: Millis,
    mistakes: &mut Mistakes,
) -> Option<Millis> {
    let path = path.key("at");
    let at = read_time(get(entries, "at")?, &path, mistakes)?;
    if at > now.saturating_add(EVENT_AHEAD_MS_MAX) {
        mistakes.must(&path, codes::TIME_AHEAD, "at most a day ahead of our clock");
        return None;
    }
    Some(at)
}

fn read_positions(entries: &[Entry<'_>], path: &Path<'_>, mistakes: &mut Mistakes) -> Vec<u16> {
    let path = path.key("positions");
    let list =
        get(entries, "positions").and_then(|node| mistakes.list(node, &path, 0..=POSITIONS_MAX));
    let mut positions = Vec::new();
    for (at, node) in list.unwrap_or_default().iter().enumerate() {
        let position = mistakes.whole(node, &path.index(at), 0..=9_999);
        positions.extend(position.and_then(|position| u16::try_from(position).ok()));
    }
    positions
}
