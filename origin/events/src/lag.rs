//! How far something that takes events is behind what it was given, in time of acceptance: a pure
//! count, without a clock.

use skerry_types::Millis;
use std::sync::atomic::{AtomicU64, Ordering};

/// The lag of one taker. Written by both sides, read by anybody.
#[derive(Debug, Default)]
pub struct Lag {
    waiting: AtomicU64,
    /// Acceptance of the newest event that was given.
    given_ms: AtomicU64,
    /// Acceptance of the newest event that was taken, or where the first that waits began.
    done_ms: AtomicU64,
}

impl Lag {
    /// Events are about to be given: their count, and the oldest and newest acceptance.
    pub fn given(&self, count: u64, oldest: Millis, newest: Millis) {
        if self.waiting.fetch_add(count, Ordering::Relaxed) == 0 {
            self.done_ms.fetch_max(oldest, Ordering::Relaxed);
        }
        self.given_ms.fetch_max(newest, Ordering::Relaxed);
    }

    /// Events were taken, or will never be.
    pub fn done(&self, count: u64, newest: Millis) {
        self.done_ms.fetch_max(newest, Ordering::Relaxed);
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }

    /// Events that wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// From the newest taken event to the newest given one, in milliseconds; 0 where none waits.
    #[must_use]
    pub fn ms(&self) -> u64 {
        if self.waiting() == 0 {
            return 0;
        }
        let given = self.given_ms.load(Ordering::Relaxed);
        given.saturating_sub(self.done_ms.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_time_between_the_newest_taken_and_the_newest_given() {
        let lag = Lag::default();
        let steps: [(&str, &dyn Fn(), u64, u64); 8] = [
            ("nothing yet", &|| {}, 0, 0),
            ("one waits", &|| lag.given(1, 5_000, 5_000), 1, 0),
            ("a later one", &|| lag.given(2, 6_000, 9_000), 3, 4_000),
            ("the first is taken", &|| lag.done(1, 5_000), 2, 4_000),
            ("an older one", &|| lag.given(1, 100, 100), 3, 4_000),
            ("those of 9,000", &|| lag.done(2, 9_000), 1, 0),
            ("all", &|| lag.done(1, 100), 0, 0),
            ("after a pause", &|| lag.given(1, 90_000, 90_000), 1, 0),
        ];
        for (name, step, waiting, ms) in steps {
            step();
            assert_eq!((lag.waiting(), lag.ms()), (waiting, ms), "{name}");
        }
    }
}
