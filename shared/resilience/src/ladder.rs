//! The ladder: which rung an answer may reach now, and whether the origin is worth asking.
//!
//! State is a vector of capabilities, each lost and regained on its own; the rung is derived from
//! it, because a scalar level would turn the LLM off when the stream lags. Three scopes are joined,
//! the worst wins: the region's frame, the PoP's own observation, the request.
//!
//! Invariants: a plan never promises more than what is measured allows; what is not configured is
//! never missed; at most one capability is regained per [`RISE_MS_MIN`], the lowest rung's first;
//! an outage (no connection, breaker not closed) leaves no trace in the slowness of the origin, so
//! that only the breaker's ramp governs the way back from it.

use crate::breaker::Admit;
use crate::frame::RegionFrame;
use crate::hysteresis::{Change, Hysteresis, HysteresisConfig, Reading, Threshold};
use crate::latency::{OriginHealth, SAMPLES_MIN};
use serde::{Deserialize, Serialize};
use skerry_types::{Cause, Rung, Tick};

/// Least time between two capabilities regained.
pub const RISE_MS_MIN: u64 = 5_000;

const LLM_P95_MS: Threshold = Threshold {
    enter_above: 300.0,
    leave_below: 200.0,
};
const LLM_QUEUE: Threshold = Threshold {
    enter_above: 100.0,
    leave_below: 50.0,
};
const STREAM_LAG_MS: Threshold = Threshold {
    enter_above: 60_000.0,
    leave_below: 15_000.0,
};
const ORIGIN_P95_MS: Threshold = Threshold {
    enter_above: 200.0,
    leave_below: 120.0,
};
const ORIGIN_SHARE: Threshold = Threshold {
    enter_above: 0.05,
    leave_below: 0.025,
};

/// Something that a better rung needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// Explanations worded by the LLM.
    Llm,
    /// Embeddings that follow events.
    Realtime,
    /// The origin's ranking, in time.
    Rank,
    /// The origin's features.
    Features,
    /// An origin that can be reached.
    Origin,
}

impl Capability {
    /// From the top rung's down.
    pub const ALL: [Self; 5] = [
        Self::Llm,
        Self::Realtime,
        Self::Rank,
        Self::Features,
        Self::Origin,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Realtime => "realtime",
            Self::Rank => "rank",
            Self::Features => "features",
            Self::Origin => "origin",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of capabilities, one bit each from [`Capability::Llm`] up. Unknown bits of newer peers are
/// carried and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capabilities(pub u8);

impl Capabilities {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(0b1_1111);
    /// Without an LLM and without a stream: the top rung is `full` all the same.
    pub const PLAIN: Self = Self::ALL
        .without(Capability::Llm)
        .without(Capability::Realtime);

    #[must_use]
    pub const fn has(self, one: Capability) -> bool {
        self.0 & one.bit() != 0
    }

    #[must_use]
    pub const fn with(self, one: Capability) -> Self {
        Self(self.0 | one.bit())
    }

    #[must_use]
    pub const fn without(self, one: Capability) -> Self {
        Self(self.0 & !one.bit())
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What the PoP measures, for [`Ladder::observe`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    pub llm_p95_ms: Option<f64>,
    pub llm_queue: Option<f64>,
    /// p99, counted from acceptance.
    pub stream_lag_ms: Option<f64>,
    pub origin: OriginHealth,
    /// The origin says that it has no features at all.
    pub features_gone: bool,
    /// No live connection, or the breaker is not closed.
    pub outage: bool,
}

/// What is known when one request is planned. Plain values, so that it can cross to a worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Health {
    /// Stable hash of the user (or session): decides in every ramp.
    pub user_hash: u64,
    pub connected: bool,
    /// What the breaker says for this user.
    pub admit: Admit,
    /// The adaptive throttle refuses this call.
    pub throttled: bool,
    /// The region frame does not take this user ([`RegionFrame::admits`]).
    pub turned_away: bool,
    /// Typical duration of an origin's answer, where known.
    pub origin_p50_ms: Option<f64>,
    /// The last verdict on the origin's slowness was overload, not latency.
    pub shedding: bool,
    /// This PoP holds an item pool.
    pub pool: bool,
    /// Something is known of the user or session here.
    pub context: bool,
}

/// What to try. `Rung` is what the answer may reach, never a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub ask_origin: bool,
    pub best: Rung,
    /// The first capability lost, from the top.
    pub cause: Option<Cause>,
    /// What else is lost, from the top: for the warnings.
    pub further: Vec<Cause>,
}

/// Derives the plan from the capabilities that are there for this user.
#[must_use]
pub fn plan(
    configured: Capabilities,
    present: Capabilities,
    health: &Health,
    budget_left_ms: u32,
) -> Plan {
    let lost = |one: Capability| configured.has(one) && !present.has(one);
    let too_late = health
        .origin_p50_ms
        .is_some_and(|p50| f64::from(budget_left_ms) <= p50)
        || budget_left_ms == 0;
    // From the top of the ladder down: (rung that is left, why).
    let checks = [
        (lost(Capability::Llm), Rung::Template, Cause::LlmSlow),
        (lost(Capability::Realtime), Rung::Batch, Cause::StreamLag),
        (
            !health.connected || health.admit != Admit::Go || lost(Capability::Origin),
            Rung::Edge,
            Cause::OriginDown,
        ),
        (
            health.throttled || health.turned_away,
            Rung::Edge,
            Cause::OriginOverloaded,
        ),
        (
            lost(Capability::Rank),
            Rung::Edge,
            if health.shedding {
                Cause::OriginOverloaded
            } else {
                Cause::OriginTimeout
            },
        ),
        (lost(Capability::Features), Rung::Edge, Cause::OriginError),
        (too_late, Rung::Edge, Cause::Deadline),
    ];
    let mut best = Rung::Full;
    let mut causes: Vec<Cause> = Vec::new();
    for (failed, left, cause) in checks {
        if failed {
            best = best.max(left);
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
    }
    let ask_origin = best < Rung::Edge;
    let edge_can = health.pool && health.context;
    if !ask_origin && !edge_can {
        best = Rung::Cached;
        causes.extend(
            [
                (!health.context, Cause::NoContext),
                (!health.pool, Cause::NoPool),
            ]
            .iter()
            .filter_map(|(no, c)| no.then_some(*c)),
        );
    }
    let mut causes = causes.into_iter();
    Plan {
        ask_origin,
        best,
        cause: causes.next(),
        further: causes.collect(),
    }
}

/// The capabilities as one PoP sees them over time.
#[derive(Debug, Clone)]
pub struct Ladder {
    configured: Capabilities,
    llm: Hysteresis,
    realtime: Hysteresis,
    rank: Hysteresis,
    features: Hysteresis,
    frame: Capabilities,
    shedding: bool,
    last_rise: Option<Tick>,
}

impl Ladder {
    #[must_use]
    pub const fn new(configured: Capabilities) -> Self {
        Self {
            configured,
            llm: Hysteresis::new(HysteresisConfig {
                bad_windows: 2,
                ..HysteresisConfig::holding(10_000)
            }),
            realtime: Hysteresis::new(HysteresisConfig::holding(30_000)),
            rank: Hysteresis::new(HysteresisConfig::holding(10_000)),
            features: Hysteresis::new(HysteresisConfig::holding(10_000)),
            frame: Capabilities::ALL,
            shedding: false,
            last_rise: None,
        }
    }

    #[must_use]
    pub const fn configured(&self) -> Capabilities {
        self.configured
    }

    /// Takes measurements in; call it with each, or every 100 to 500 ms. Says what changed.
    pub fn observe(&mut self, measured: &Measured, now: Tick) -> Vec<(Capability, Change)> {
        if measured.outage {
            self.rank.reset();
            self.features.reset();
        }
        let origin = if measured.outage {
            OriginHealth::default()
        } else {
            measured.origin
        };
        let judged = origin.samples >= SAMPLES_MIN;
        let if_judged = |value: f64| judged.then_some(value);
        let shed = ORIGIN_SHARE.read(if_judged(origin.shed_share));
        let slow = ORIGIN_P95_MS
            .read(origin.p95_ms.filter(|_| judged))
            .max(ORIGIN_SHARE.read(if_judged(origin.timeout_share)));
        let llm = LLM_P95_MS
            .read(measured.llm_p95_ms)
            .max(LLM_QUEUE.read(measured.llm_queue));
        let features_gone = measured.features_gone && !measured.outage;
        let features = if features_gone {
            Reading::Bad
        } else {
            Reading::Good
        };
        if slow.max(shed) == Reading::Bad {
            self.shedding = slow != Reading::Bad;
        }

        let mut changes = Vec::new();
        // The lowest rung's first: one rung up at a time.
        let steps = [
            (Capability::Rank, &mut self.rank, slow.max(shed)),
            (Capability::Features, &mut self.features, features),
            (
                Capability::Realtime,
                &mut self.realtime,
                STREAM_LAG_MS.read(measured.stream_lag_ms),
            ),
            (Capability::Llm, &mut self.llm, llm),
        ];
        let mut lower_lost = false;
        for (capability, hysteresis, reading) in steps {
            let rested = self
                .last_rise
                .is_none_or(|rise| now.since_ms(rise) >= RISE_MS_MIN);
            let change = hysteresis.observe(reading, rested && !lower_lost, now);
            if change == Some(Change::Regained) {
                self.last_rise = Some(now);
            }
            lower_lost |= self.configured.has(capability) && hysteresis.is_lost();
            changes.extend(
                change
                    .filter(|_| self.configured.has(capability))
                    .map(|change| (capability, change)),
            );
        }
        changes
    }

    /// What the region says of itself; none when its frame is too old to go by.
    pub fn heed(&mut self, frame: Option<&RegionFrame>) {
        self.frame = frame.map_or(Capabilities::ALL, |frame| frame.capabilities);
    }

    /// The capabilities that are there for this user.
    #[must_use]
    pub fn present(&self, user_hash: u64, now: Tick) -> Capabilities {
        let own = [
            (Capability::Llm, &self.llm),
            (Capability::Realtime, &self.realtime),
            (Capability::Rank, &self.rank),
            (Capability::Features, &self.features),
        ];
        let own = own
            .into_iter()
            .fold(Capabilities::ALL, |all, (capability, hysteresis)| {
                if hysteresis.admits(user_hash, now) {
                    all
                } else {
                    all.without(capability)
                }
            });
        own.and(self.frame)
    }

    /// Whether the origin was last found slow because it sheds.
    #[must_use]
    pub const fn shedding(&self) -> bool {
        self.shedding
    }

    #[must_use]
    pub fn plan(&self, health: &Health, budget_left_ms: u32, now: Tick) -> Plan {
        plan(
            self.configured,
            self.present(health.user_hash, now),
            health,
            budget_left_ms,
        )
    }
}

#[cfg(test)]
mod tests;
