//! The state machines that keep an answer coming: ladder, breaker, throttle, budgets, frames, limits,
//! hybrid clocks. They decide; adapters act on what they decide.
//!
//! Invariants: no I/O, no clock, no randomness (time is a [`skerry_types::Tick`] argument, chance a
//! roll or a seed); every structure has a named bound; nothing panics whatever a peer sends.
//!
//! The figures are those of the product's reliability design: enter fast, leave slowly; an overload
//! reply feeds the [`throttle`], never the [`breaker`]; after an outage only the breaker's ramp
//! governs the way back, while the [`hysteresis`] governs slowness and lag.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod breaker;
pub mod budget;
pub mod frame;
pub mod hlc;
pub mod hysteresis;
pub mod ladder;
pub mod latency;
pub mod limiter;
pub mod throttle;

pub use breaker::{Admit, Breaker, BreakerConfig, BreakerState, Transition};
pub use budget::RetryBudget;
pub use frame::{FrameStep, FrameView, Freshness, RegionFrame};
pub use hlc::HlcClock;
pub use hysteresis::{Change, Hysteresis, HysteresisConfig, Reading, Threshold};
pub use ladder::{Capabilities, Capability, Health, Ladder, Measured, Plan, plan};
pub use latency::{Call, CallEnd, LatencyWindow, OriginHealth, OriginStats};
pub use limiter::{Gcra, Limiter, Verdict};
pub use throttle::Throttle;

/// How a call to a target ended, as far as state machines care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Ok,
    /// An error, a lost connection, or a call cut at its deadline.
    Failure,
    /// The target answered that it is overloaded: it lives. Feeds the throttle, never the breaker.
    Overload,
}

/// Why something from a peer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResilienceError {
    #[error(
        "the peer's clock is {ahead_ms} ms ahead, more than {} ms",
        hlc::DRIFT_MS_MAX
    )]
    ClockDrift { ahead_ms: u64 },
    #[error("a region frame of another region")]
    FrameRegion,
    #[error("a region frame admits {0} %, more than 100")]
    FrameAdmit(u8),
}

impl ResilienceError {
    /// The stable code; its page is `docs/errors/CODE.md`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::ClockDrift { .. } => "clock_drift",
            Self::FrameRegion => "frame_region",
            Self::FrameAdmit(_) => "frame_admit",
        }
    }
}

/// Where a user stands in every ramp, 0 to 99: spread independently of slots and shards, and the
/// same at 10, 50 and 100 %, so that nobody flaps.
#[must_use]
pub const fn ramp_position(user_hash: u64) -> u8 {
    ((splitmix(user_hash) as u128 * 100) >> 64) as u8
}

/// SplitMix64's finalizer (Steele, Lea, Flood 2014).
pub(crate) const fn splitmix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
