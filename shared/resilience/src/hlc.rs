//! A hybrid logical clock (Kulkarni et al. 2014): time stamps that order causally related writes
//! although wall clocks differ.
//!
//! Invariants: stamps of one clock strictly increase, whatever its wall clock does; a peer whose
//! clock runs more than [`DRIFT_MS_MAX`] ahead is refused, so that one wrong clock cannot push all
//! others into the future.

use crate::ResilienceError;
use skerry_types::{Hlc, Millis};

/// How far ahead of the own wall clock a peer's stamp may be.
pub const DRIFT_MS_MAX: u64 = 500;

/// The clock of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// Goes on from `last`, the newest stamp that was stored.
    #[must_use]
    pub const fn after(last: Hlc) -> Self {
        Self { last }
    }

    /// A stamp for something that happens here, now.
    pub fn stamp(&mut self, wall_ms: Millis) -> Hlc {
        self.last = next(self.last, wall_ms);
        self.last
    }

    /// A stamp for the receipt of something stamped `remote`: later than both.
    pub fn receive(&mut self, remote: Hlc, wall_ms: Millis) -> Result<Hlc, ResilienceError> {
        let ahead_ms = remote.ms.saturating_sub(wall_ms);
        if ahead_ms > DRIFT_MS_MAX {
            return Err(ResilienceError::ClockDrift { ahead_ms });
        }
        self.last = next(self.last.max(remote), wall_ms);
        Ok(self.last)
    }
}

fn next(last: Hlc, wall_ms: Millis) -> Hlc {
    if wall_ms > last.ms {
        return Hlc {
            ms: wall_ms,
            count: 0,
        };
    }
    match last.count.checked_add(1) {
        Some(count) => Hlc { ms: last.ms, count },
        None => Hlc {
            ms: last.ms.saturating_add(1),
            count: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn five_minutes_ahead_is_refused_and_changes_nothing() {
        let mut clock = HlcClock::default();
        let before = clock.stamp(1_000_000);
        let remote = Hlc {
            ms: 1_300_000,
            count: 0,
        };
        let refused = clock.receive(remote, 1_000_000);
        assert_eq!(
            refused,
            Err(ResilienceError::ClockDrift { ahead_ms: 300_000 })
        );
        assert_eq!(
            clock.stamp(1_000_000),
            Hlc {
                ms: before.ms,
                count: before.count + 1
            }
        );
        assert!(
            clock
                .receive(
                    Hlc {
                        ms: 1_000_500,
                        count: 3
                    },
                    1_000_000
                )
                .is_ok(),
            "the bound itself is fine"
        );
    }

    proptest! {
        #[test]
        fn stamps_strictly_increase(steps in proptest::collection::vec((any::<bool>(), 0u64..2_000, 0u64..2_600, any::<u32>()), 1..200)) {
            let mut clock = HlcClock::default();
            let mut last = Hlc::default();
            for (local, wall, remote_ms, count) in steps {
                let remote = Hlc { ms: remote_ms, count };
                let got = if local { Ok(clock.stamp(wall)) } else { clock.receive(remote, wall) };
                match got {
                    Ok(stamp) => {
                        prop_assert!(stamp > last && stamp.ms >= wall);
                        prop_assert!(local || stamp > remote);
                        last = stamp;
                    }
                    Err(_) => prop_assert!(remote_ms > wall + DRIFT_MS_MAX),
                }
            }
        }
    }
}
