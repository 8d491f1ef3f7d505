//! Rungs and causes: how good an answer is, and why it is not better.

use serde::{Deserialize, Serialize};

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on wires, in headers and metric labels.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use named_enum;

named_enum! {
    /// What an answer really is, best first: `Rung::Full < Rung::Popular` in this order.
    Rung {
        /// Ranked by the origin on real-time embeddings, explanations as configured.
        Full => "full",
        /// The same, explanations from templates although wording by an LLM is configured.
        Template => "template",
        /// The same, on batch embeddings.
        Batch => "batch",
        /// Ranked fresh in the PoP's worker, without the origin.
        Edge => "edge",
        /// An expired personal response, at most 24 h old.
        Cached => "cached",
        /// The trending list.
        Popular => "popular",
    }
}

impl Rung {
    /// Whether an answer on this rung satisfies a caller who accepts nothing below `lowest`.
    #[must_use]
    pub fn at_least(self, lowest: Rung) -> bool {
        self <= lowest
    }
}

named_enum! {
    /// The first capability lost, from the top of the ladder. Each has a page under `docs/errors/`.
    Cause {
        LlmSlow => "llm_slow",
        StreamLag => "stream_lag",
        /// The origin did not answer within the budget.
        OriginTimeout => "origin_timeout",
        /// No live connection, or the breaker is open.
        OriginDown => "origin_down",
        /// The origin refused for load.
        OriginOverloaded => "origin_overloaded",
        /// The origin answered with an error.
        OriginError => "origin_error",
        /// The caller's budget was too small for a better rung.
        Deadline => "deadline",
        /// Nothing is known of this user here.
        NoContext => "no_context",
        /// No item pool in this PoP.
        NoPool => "no_pool",
        /// This PoP has not yet received anything.
        ColdPop => "cold_pop",
        /// The worker failed; the host answered in its place.
        WorkerFailed => "worker_failed",
        /// An edge store failed or did not answer in time.
        EdgeStore => "edge_store",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_order_is_best_first() {
        for rung in Rung::ALL {
            assert_eq!(Rung::parse(rung.as_str()), Some(*rung));
        }
        for cause in Cause::ALL {
            assert_eq!(Cause::parse(cause.as_str()), Some(*cause));
        }
        assert!(Rung::Full.at_least(Rung::Cached) && !Rung::Popular.at_least(Rung::Cached));
        assert!(Rung::Cached.at_least(Rung::Cached));
    }
}
