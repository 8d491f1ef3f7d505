//! Time as data. Nothing here reads a clock.

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
pub type Millis = u64;

/// A point on a monotonic clock, in microseconds from an arbitrary start. Budgets and state
/// machines use it; it never leaves the process.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Tick(pub u64);

impl Tick {
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms * 1000)
    }

    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// Microseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub const fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Milliseconds from `earlier` to `self`, rounded down; 0 when `earlier` is later.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.since_us(earlier) / 1000
    }
}

/// What is left of a request's time. One budget is spent by all steps; timeouts are never stacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    deadline: Tick,
}

impl Budget {
    /// Milliseconds for a request whose caller names no budget.
    pub const DEFAULT_MS: u32 = 150;
    /// The least and the most that a caller may ask for, in milliseconds.
    pub const RANGE_MS: std::ops::RangeInclusive<u32> = 5..=5000;

    #[must_use]
    pub const fn starting(now: Tick, ms: u32) -> Self {
        Self {
            deadline: now.plus_ms(ms as u64),
        }
    }

    #[must_use]
    pub const fn deadline(self) -> Tick {
        self.deadline
    }

    /// Whole milliseconds left at `now`.
    #[must_use]
    pub fn left_ms(self, now: Tick) -> u32 {
        u32::try_from(self.deadline.since_ms(now)).unwrap_or(u32::MAX)
    }

    /// The same deadline, `ms` earlier: what remains after a later step has had its share.
    #[must_use]
    pub const fn minus_ms(self, ms: u32) -> Self {
        Self {
            deadline: Tick(self.deadline.0.saturating_sub(ms as u64 * 1000)),
        }
    }

    #[must_use]
    pub const fn spent(self, now: Tick) -> bool {
        now.0 >= self.deadline.0
    }
}
