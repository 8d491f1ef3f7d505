//! Label values that code knows.

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident => $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($variant,)+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    )+};
}

labels! {
    /// What was asked of the edge.
    RouteLabel {
        Recommend => "recommend",
        Similar => "similar",
        Rank => "rank",
        Popular => "popular",
        Events => "events",
        Admin => "admin",
        Unknown => "unknown",
    }

    /// Which cache was asked.
    Cache {
        Response => "response",
        Kv => "kv",
        Worker => "worker",
        Gateway => "gateway",
    }

    /// What it said.
    CacheResult {
        Hit => "hit",
        Stale => "stale",
        Miss => "miss",
        Coalesced => "coalesced",
        Error => "error",
    }

    /// How a call to an origin ended.
    OriginOutcome {
        Answered => "answered",
        Timeout => "timeout",
        Error => "error",
        Overload => "overload",
        Cancelled => "cancelled",
    }

    /// What became of an event.
    EventResult {
        Accepted => "accepted",
        Duplicate => "duplicate",
        Rejected => "rejected",
        Spooled => "spooled",
        Delivered => "delivered",
        Dropped => "dropped",
    }

    /// A step on the way of an answer, at the edge or at the origin.
    Stage {
        Parse => "parse",
        Cache => "cache",
        Context => "context",
        Plan => "plan",
        Origin => "origin",
        Edge => "edge",
        Render => "render",
        Features => "features",
        Candidates => "candidates",
        Rank => "rank",
        Explore => "explore",
        Rules => "rules",
        Reasons => "reasons",
    }

    /// What a shard node was asked for.
    VectorOp {
        Search => "search",
        Get => "get",
        Write => "write",
    }

    /// How it answered.
    VectorOutcome {
        Ok => "ok",
        Shed => "shed",
        Late => "late",
        Elsewhere => "elsewhere",
        Behind => "behind",
        Unconfirmed => "unconfirmed",
        Refused => "refused",
        Failed => "failed",
    }

    /// What a replica is to its shard.
    ReplicaRole {
        Leading => "leading",
        Following => "following",
        Starting => "starting",
    }

    /// What a collection does in the background.
    UpkeepTask {
        Sealing => "sealing",
        Compaction => "compaction",
    }
}
