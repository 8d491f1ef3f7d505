//! Rate limits by GCRA (the virtual scheduling form of ATM Forum TM 4.0): one time stamp per key.
//!
//! Invariant: within any `t` seconds a key gets at most `burst + rate x t` calls; the table of keys
//! is bounded by [`KEYS_MAX`].

use skerry_types::Tick;
use std::collections::HashMap;

/// Keys that a limiter remembers.
pub const KEYS_MAX: usize = 65_536;

/// A rate and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    /// Microseconds that one call takes of the rate.
    interval_us: u64,
    burst: u32,
}

/// What a limit says of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed; so many more could follow at once.
    Allow {
        remaining: u32,
    },
    Deny {
        retry_after_ms: u64,
    },
}

impl Gcra {
    /// `rate_per_s` from 1 to 1,000,000 and `burst` from 1; smaller and larger are clamped.
    #[must_use]
    pub fn new(rate_per_s: u32, burst: u32) -> Self {
        Self {
            interval_us: 1_000_000 / u64::from(rate_per_s.clamp(1, 1_000_000)),
            burst: burst.max(1),
        }
    }

    /// `next` is the key's state: when its rate is used up to (`Tick(0)` for a new key).
    pub fn check(self, next: &mut Tick, now: Tick) -> Verdict {
        let from = (*next).max(now);
        let after = Tick(from.0.saturating_add(self.interval_us));
        let room_us = self.interval_us.saturating_mul(u64::from(self.burst));
        let used_us = after.since_us(now);
        if used_us > room_us {
            return Verdict::Deny {
                retry_after_ms: (used_us - room_us).div_ceil(1_000),
            };
        }
        *next = after;
        let remaining = (room_us - used_us) / self.interval_us;
        Verdict::Allow {
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        }
    }
}

/// One limit for many keys, by hash.
#[derive(Debug)]
pub struct Limiter {
    gcra: Gcra,
    keys: HashMap<u64, Tick>,
}

impl Limiter {
    #[must_use]
    pub fn new(gcra: Gcra) -> Self {
        Self {
            gcra,
            keys: HashMap::new(),
        }
    }

    pub fn check(&mut self, key: u64, now: Tick) -> Verdict {
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(&key) {
            // Keys at rest lose nothing by being forgotten. If none rests, this is an attack with
            // many keys: all start afresh, which costs each one burst.
            self.keys.retain(|_, next| *next > now);
            if self.keys.len() >= KEYS_MAX {
                self.keys.clear();
            }
        }
        self.gcra.check(self.keys.entry(key).or_default(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut limiter = Limiter::new(Gcra::new(10, 3));
        let got: Vec<Verdict> = (0..4).map(|_| limiter.check(1, Tick(0))).collect();
        let allow = |remaining| Verdict::Allow { remaining };
        assert_eq!(
            got,
            [
                allow(2),
                allow(1),
                allow(0),
                Verdict::Deny {
                    retry_after_ms: 100
                }
            ]
        );
        assert_eq!(limiter.check(2, Tick(0)), allow(2), "keys do not share");
        assert_eq!(
            limiter.check(1, Tick::from_ms(99)),
            Verdict::Deny { retry_after_ms: 1 }
        );
        assert_eq!(limiter.check(1, Tick::from_ms(100)), allow(0));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut limiter = Limiter::new(Gcra::new(1, 1));
        for key in 0..KEYS_MAX as u64 * 2 {
            limiter.check(key, Tick(key));
            assert!(limiter.keys.len() <= KEYS_MAX);
        }
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(
            rate in 1u32..1_000, burst in 1u32..50, waits in proptest::collection::vec(0u64..50_000, 1..300),
        ) {
            let gcra = Gcra::new(rate, burst);
            let (mut next, mut now, mut allowed) = (Tick(0), Tick(0), 0u64);
            for wait in waits {
                now = Tick(now.0 + wait);
                match gcra.check(&mut next, now) {
                    Verdict::Allow { .. } => allowed += 1,
                    Verdict::Deny { retry_after_ms } => {
                        let mut later = next;
                        let allowed = matches!(gcra.check(&mut later, now.plus_ms(retry_after_ms)), Verdict::Allow { .. });
                        prop_assert!(allowed, "retry-after must be honest");
                    }
                }
                prop_assert!(allowed <= u64::from(burst) + now.0 / (1_000_000 / u64::from(rate)));
            }
        }
    }
}
