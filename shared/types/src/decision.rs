//! A decision: the ordered candidates of one draw. Answers are made from it; it is not an answer.

use crate::ids::{ItemId, Uid};
use crate::item::Metadata;
use crate::rung::{Cause, Rung, named_enum};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

named_enum! {
    /// Which step brought a candidate.
    Source {
        Vector => "vector",
        Recent => "recent",
        Trending => "trending",
        Explore => "explore",
        Popular => "popular",
        Pinned => "pinned",
    }
}

named_enum! {
    /// What a reason says.
    ReasonKind {
        BecauseLiked => "because_liked",
        BecauseWatched => "because_recent",
        GenreAffinity => "genre",
        SimilarTo => "similar",
        Explore => "explore",
        Popular => "popular",
    }
}

/// An item by id and title: what a reason's text needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemRef {
    pub id: ItemId,
    pub title: Arc<str>,
}

/// Why an item is in the list, before it is put into words.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    pub kind: ReasonKind,
    pub item: Option<ItemRef>,
    /// What the kind's template needs beside the item: a genre's name, say.
    pub detail: Option<Arc<str>>,
}

/// One item of a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub id: ItemId,
    /// Comparable within one decision only, 0 to 1.
    pub score: f32,
    pub source: Source,
    /// The probability with which the policy put this item in this slot; 1 where deterministic.
    pub propensity: f32,
    pub reason: Reason,
    pub fields: Metadata,
}

named_enum! {
    /// What a caller should know of an answer beside its rung and cause.
    WarningCode {
        Underfilled => "underfilled",
        PartialResult => "partial_result",
        StageFallback => "stage_fallback",
        FurtherCause => "further_cause",
        StaleInputs => "stale_inputs",
        UnknownItems => "unknown_items",
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Warning {
    pub code: WarningCode,
    pub detail: Box<str>,
}

/// The ordered candidates of one draw, with what is needed to explain and replay it. It travels as a
/// `skerry_wire::value::StoredDecision`.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub id: Uid,
    pub rung: Rung,
    pub cause: Option<Cause>,
    pub made_ms: Millis,
    /// The oldest input, counted from acceptance.
    pub as_of_ms: Millis,
    pub model: Arc<str>,
    pub region: Arc<str>,
    /// Seed of the draw, and the epoch of the bandit parameters drawn from.
    pub seed: u64,
    pub snapshot: u64,
    /// Best first, in slot order: exploration is already placed.
    pub candidates: Vec<Candidate>,
    pub warnings: Vec<Warning>,
}
