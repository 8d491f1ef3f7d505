//! The words of the domain, shared by every crate: ids, items, users, events, asks, decisions, rungs.
//!
//! Invariants: no I/O, no async, no clock and no randomness (time and chance are arguments); the
//! tenant comes first in every composed key; times on wires are `u64` milliseconds since the Unix
//! epoch, budgets are measured in monotonic [`time::Tick`]s. A value of a type here has been
//! validated once, at the border, and need not be checked again.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod ask;
pub mod context;
pub mod decision;
pub mod event;
pub mod filter;
pub mod ids;
pub mod item;
pub mod rung;
pub mod time;
pub mod value;

pub use ask::{Ask, Count, RequestContext, Route};
pub use context::{RecentEvent, UserContext};
pub use decision::{
    Candidate, Decision, ItemRef, Reason, ReasonKind, Source, Warning, WarningCode,
};
pub use event::{Event, EventKind, Hlc, Taste};
pub use filter::{Filter, Test};
pub use ids::{
    EventId, IdError, ItemHash, ItemId, SessionId, Slot, Surface, TenantId, Uid, UserId,
    context_key, subject,
};
pub use item::{Attributes, Country, Item, Metadata, Rights, Window};
pub use rung::{Cause, Rung};
pub use time::{Budget, Millis, Tick};
pub use value::Value;
