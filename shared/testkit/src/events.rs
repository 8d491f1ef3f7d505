//! One event, for tests that say what differs.

use skerry_types::{Event, EventId, EventKind, Hlc, IdError, ItemId, Millis, TenantId, UserId};

/// A like by a user, accepted when it happened.
///
/// # Panics
/// Where a text is no id.
#[must_use]
pub fn like(id: &str, user: &str, item: &str, at_ms: Millis) -> Event {
    let made = || -> Result<Event, IdError> {
        Ok(Event {
            tenant: TenantId::default(),
            id: EventId::new(id)?,
            kind: EventKind::Like,
            user: Some(UserId::new(user)?),
            session: None,
            item: Some(ItemId::new(item)?),
            value: None,
            at_ms,
            accepted_ms: at_ms,
            surface: None,
            request_id: None,
            positions: Vec::new(),
            hlc: Hlc::default(),
            region: "here".into(),
            pop: "pop1".into(),
        })
    };
    made().unwrap_or_else(|error| panic!("{id:?}, {user:?}, {item:?}: {error}"))
}
