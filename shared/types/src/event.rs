//! Events: what users did, as apps report it and as it is stored.

use crate::ids::{EventId, ItemId, SessionId, Surface, TenantId, Uid, UserId};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Ratings from this value on are positive.
pub const RATING_POSITIVE: f32 = 4.0;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    View,
    Click,
    Like,
    Dislike,
    AddToCart,
    Purchase,
    Rating,
    Impression,
    /// A deployment's own: stored and counted, never a sign of taste until configured.
    Custom(Arc<str>),
}

/// What an event says about the user's taste for the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taste {
    Positive,
    Negative,
    /// Seen or used, without a verdict.
    Neutral,
}

impl EventKind {
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::View => "view",
            Self::Click => "click",
            Self::Like => "like",
            Self::Dislike => "dislike",
            Self::AddToCart => "add_to_cart",
            Self::Purchase => "purchase",
            Self::Rating => "rating",
            Self::Impression => "impression",
            Self::Custom(name) => name,
        }
    }

    /// Reads a name; custom names are 1 to 64 characters of `a-z`, `0-9`, `_`, `-`, `.`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "view" => Self::View,
            "click" => Self::Click,
            "like" => Self::Like,
            "dislike" => Self::Dislike,
            "add_to_cart" => Self::AddToCart,
            "purchase" => Self::Purchase,
            "rating" => Self::Rating,
            "impression" => Self::Impression,
            custom => {
                let ok = |b: u8| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.')
                };
                if !(1..=64).contains(&custom.len()) || !custom.bytes().all(ok) {
                    return None;
                }
                Self::Custom(Arc::from(custom))
            }
        })
    }

    /// What an event of this kind with this `value` says about taste.
    #[must_use]
    pub fn taste(&self, value: Option<f32>) -> Taste {
        match self {
            Self::Like | Self::AddToCart | Self::Purchase | Self::Click => Taste::Positive,
            Self::Dislike => Taste::Negative,
            Self::Rating => match value {
                Some(value) if value >= RATING_POSITIVE => Taste::Positive,
                Some(value) if value <= 2.0 => Taste::Negative,
                _ => Taste::Neutral,
            },
            Self::View | Self::Impression | Self::Custom(_) => Taste::Neutral,
        }
    }

    /// Whether the item is not recommended to the user from now on.
    #[must_use]
    pub fn hides(&self) -> bool {
        matches!(
            self,
            Self::Rating | Self::Like | Self::Dislike | Self::AddToCart | Self::Purchase
        )
    }

    /// Whether answers made before this event are not worth keeping.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        self.hides()
    }

    /// Whether the event belongs into the user's recent history (impressions do not: they are
    /// what was shown, not what was done).
    #[must_use]
    pub fn is_history(&self) -> bool {
        !matches!(self, Self::Impression | Self::Custom(_))
    }
}

/// A hybrid logical clock: milliseconds, and a counter within one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Hlc {
    pub ms: Millis,
    pub count: u32,
}

/// An accepted event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub tenant: TenantId,
    pub id: EventId,
    pub kind: EventKind,
    pub user: Option<UserId>,
    pub session: Option<SessionId>,
    pub item: Option<ItemId>,
    pub value: Option<f32>,
    /// When it happened, by the client.
    pub at_ms: Millis,
    /// When the PoP (or the import) accepted it: what lag and age count from.
    pub accepted_ms: Millis,
    pub surface: Option<Surface>,
    /// The answer that it came from.
    pub request_id: Option<Uid>,
    /// For an impression: which positions of that answer were seen.
    pub positions: Vec<u16>,
    pub hlc: Hlc,
    pub region: Arc<str>,
    pub pop: Arc<str>,
}

impl Event {
    /// Whose history it belongs to: `u:` and the user, else `s:` and the session.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        crate::ids::subject(self.user.as_ref(), self.session.as_ref())
    }
}
