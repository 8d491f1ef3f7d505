//! What is known of a user where an answer is made: the last events in order, and what to leave out.

use crate::event::{Event, EventKind, Taste};
use crate::ids::{EventId, ItemHash, ItemId};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Events of a user that a context keeps, newest last.
pub const RECENT_MAX: usize = 50;
/// Items that a context remembers as not to be shown again. Beyond it the smallest hashes go first,
/// that is, arbitrary ones.
pub const SEEN_MAX: usize = 20_000;

/// One of a user's last events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecentEvent {
    pub id: EventId,
    pub item: ItemId,
    pub kind: EventKind,
    pub value: Option<f32>,
    pub at_ms: Millis,
    pub accepted_ms: Millis,
}

impl RecentEvent {
    #[must_use]
    pub fn taste(&self) -> Taste {
        self.kind.taste(self.value)
    }
}

/// A user's (or session's) context. The origin's is complete; a PoP's is the origin's last one with
/// the events since then applied.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct UserContext {
    /// Hashes of items not to be shown again, ascending. First, so that they can be read alone.
    pub seen: Vec<ItemHash>,
    /// Oldest first, at most [`RECENT_MAX`], ordered by (`at_ms`, acceptance).
    pub recent: Vec<RecentEvent>,
    /// The user's vector in the item space of the model, where there is one.
    pub vector: Vec<f32>,
    /// Acceptance of the newest event that this context contains; 0 for none.
    pub as_of_ms: Millis,
}

impl UserContext {
    /// Whether there is anything to personalise on.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.recent.is_empty()
    }

    #[must_use]
    pub fn has_seen(&self, item: ItemHash) -> bool {
        self.seen.binary_search(&item).is_ok()
    }

    /// A fingerprint of the events and of what is seen: two copies with the same mark need not be
    /// exchanged. Never 0, which stands for a copy that nobody else has. Made for every question: an
    /// event counts by what lies in it, not by its id, whose text lies elsewhere.
    #[must_use]
    pub fn mark(&self) -> u64 {
        let lengths = [self.recent.len() as u64, self.seen.len() as u64];
        let of_event = |event: &RecentEvent| {
            let value = event
                .value
                .map_or(u64::MAX, |value| u64::from(value.to_bits()));
            let (item, taste) = (event.item.hash().0, event.taste() as u64);
            [item, taste, value, event.at_ms, event.accepted_ms]
        };
        let all = [self.as_of_ms].into_iter().chain(lengths);
        let all = all.chain(self.recent.iter().flat_map(of_event));
        let mut bytes = Vec::with_capacity(8 * (3 + 5 * self.recent.len()));
        all.for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        xxh3_64(&bytes).max(1)
    }

    /// Applies an event, once: an id already among the recent events changes nothing. Returns
    /// whether anything changed.
    pub fn apply(&mut self, event: &Event) -> bool {
        let Some(item) = &event.item else {
            return false;
        };
        if self.recent.iter().any(|known| known.id == event.id) {
            return false;
        }
        let mut changed = false;
        if event.kind.hides() {
            changed |= self.hide(item.hash());
        }
        if event.kind.is_history() {
            let recent = RecentEvent {
                id: event.id.clone(),
                item: item.clone(),
                kind: event.kind.clone(),
                value: event.value,
                at_ms: event.at_ms,
                accepted_ms: event.accepted_ms,
            };
            let at = self
                .recent
                .partition_point(|known| known.at_ms <= recent.at_ms);
            self.recent.insert(at, recent);
            if self.recent.len() > RECENT_MAX {
                self.recent.remove(0);
            }
            changed = true;
        }
        self.as_of_ms = self.as_of_ms.max(event.accepted_ms);
        changed
    }

    /// Adds to the seen set; false where it was there.
    pub fn hide(&mut self, item: ItemHash) -> bool {
        match self.seen.binary_search(&item) {
            Ok(_) => false,
            Err(at) => {
                self.seen.insert(at, item);
                if self.seen.len() > SEEN_MAX {
                    self.seen.remove(0);
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut UserContext);

    #[test]
    fn what_changes_a_mark_and_what_does_not() {
        let event = |item: &str, at_ms| RecentEvent {
            id: EventId::new(&format!("e{item}{at_ms}")).unwrap(),
            item: ItemId::new(item).unwrap(),
            kind: EventKind::Like,
            value: None,
            at_ms,
            accepted_ms: at_ms + 5,
        };
        let context = UserContext {
            seen: vec![ItemHash(1), ItemHash(2)],
            recent: vec![event("a", 1), event("b", 2)],
            vector: Vec::new(),
            as_of_ms: 7,
        };
        let cases: [(&str, Change, bool); 9] = [
            ("nothing", |_| {}, false),
            ("a vector", |c| c.vector.push(1.0), false),
            (
                "an item",
                |c| c.recent[0].item = ItemId::new("c").unwrap(),
                true,
            ),
            ("a kind", |c| c.recent[0].kind = EventKind::Dislike, true),
            ("a value", |c| c.recent[1].value = Some(0.0), true),
            ("a time", |c| c.recent[1].at_ms += 1, true),
            ("the order", |c| c.recent.swap(0, 1), true),
            ("one less", |c| drop(c.recent.remove(0)), true),
            ("an item seen", |c| c.seen.push(ItemHash(3)), true),
        ];
        for (name, change, is_other) in cases {
            let mut changed = context.clone();
            change(&mut changed);
            assert_eq!(changed.mark() != context.mark(), is_other, "{name}");
        }
        assert_ne!(UserContext::default().mark(), 0);
    }
}
