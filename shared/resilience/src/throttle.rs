//! The adaptive throttle of Google's SRE book ("Handling Overload"): a caller refuses its own calls
//! in proportion to what the target refuses, so that an overloaded target is not asked in vain.
//!
//! Invariants: the probability is within [0, 1), and 0 while the target accepts at least 1/K of the
//! calls. A call counts when it has ended: one that is under way has not been refused, and a burst after
//! a quiet time is no overload. Only overload replies lower `accepts`: errors and timeouts are the
//! breaker's business.

use crate::Outcome;
use skerry_types::Tick;

/// Calls sent per accepted one that are still fine.
pub const K: f64 = 1.5;
/// Counts fade with this time constant, in milliseconds.
pub const DECAY_MS: f64 = 2_000.0;

/// The throttle of one target.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    requests: f64,
    accepts: f64,
    at: Tick,
}

impl Throttle {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `max(0, (requests - K x accepts) / (requests + 1))`.
    #[must_use]
    pub fn reject_probability(&self, now: Tick) -> f64 {
        let fade = self.fade(now);
        let (requests, accepts) = (self.requests * fade, self.accepts * fade);
        ((requests - K * accepts) / (requests + 1.0)).max(0.0)
    }

    /// Whether to make a call. `roll` is uniform in [0, 1). A call that is refused here counts as one
    /// that was wanted: that is what lets the throttle close further.
    pub fn admits(&mut self, now: Tick, roll: f64) -> bool {
        let admitted = roll >= self.reject_probability(now);
        if !admitted {
            self.decay(now);
            self.requests += 1.0;
        }
        admitted
    }

    /// Reports each call that was made, when it has ended.
    pub fn on(&mut self, outcome: Outcome, now: Tick) {
        self.decay(now);
        self.requests += 1.0;
        if outcome != Outcome::Overload {
            self.accepts += 1.0;
        }
    }

    fn fade(&self, now: Tick) -> f64 {
        (-(now.since_us(self.at) as f64) / 1_000.0 / DECAY_MS).exp()
    }

    fn decay(&mut self, now: Tick) {
        let fade = self.fade(now);
        self.requests *= fade;
        self.accepts *= fade;
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Share of calls let through in the last second of `seconds`, at 1,000 calls/s, when the target
    /// accepts `capacity` of 10.
    fn passed(capacity: u64, seconds: u64) -> f64 {
        let mut throttle = Throttle::new();
        let (mut sent, mut credit) = (0, 0);
        for step in 0..seconds * 1_000 {
            let now = Tick::from_ms(step);
            // The target can do `capacity` tenths of a call in each millisecond.
            credit = (credit + capacity).min(20);
            if throttle.admits(
                now,
                (crate::splitmix(step) >> 11) as f64 / (1u64 << 53) as f64,
            ) {
                sent += u64::from(step >= (seconds - 1) * 1_000);
                let accepted = credit >= 10;
                credit -= if accepted { 10 } else { 0 };
                throttle.on(
                    if accepted {
                        Outcome::Ok
                    } else {
                        Outcome::Overload
                    },
                    now,
                );
            }
        }
        sent as f64 / 1_000.0
    }

    #[test]
    fn it_sends_about_k_times_what_is_accepted() {
        for (capacity, least, most) in [
            (10, 0.999, 1.0),
            (7, 0.97, 1.0),
            (4, 0.5, 0.68),
            (2, 0.25, 0.36),
            (0, 0.0, 0.02),
        ] {
            let got = passed(capacity, 8);
            assert!((least..=most).contains(&got), "{capacity}: {got}");
        }
    }

    #[test]
    fn a_burst_after_a_quiet_time_is_no_overload() {
        let mut throttle = Throttle::new();
        for round in 0..3 {
            let now = Tick::from_ms(round * 60_000);
            // All at once, none has ended yet.
            for call in 0..500 {
                assert!(throttle.admits(now, 0.0), "round {round}, call {call}");
            }
            (0..500).for_each(|_| throttle.on(Outcome::Ok, now.plus_ms(20)));
        }
    }

    #[test]
    fn failures_are_not_overload_and_time_heals() {
        let mut throttle = Throttle::new();
        for step in 0..100 {
            throttle.admits(Tick::from_ms(step), 0.99);
            throttle.on(Outcome::Failure, Tick::from_ms(step));
        }
        assert_eq!(throttle.reject_probability(Tick::from_ms(100)), 0.0);
        for step in 100..200 {
            throttle.admits(Tick::from_ms(step), 0.99);
            throttle.on(Outcome::Overload, Tick::from_ms(step));
        }
        assert!(throttle.reject_probability(Tick::from_ms(200)) > 0.2);
        assert!(throttle.reject_probability(Tick::from_ms(20_000)) < 0.01);
    }

    proptest! {
        #[test]
        fn the_probability_is_bounded(steps in proptest::collection::vec((0u8..4, 0u64..500, 0.0f64..1.0), 0..200)) {
            let mut throttle = Throttle::new();
            let mut now = Tick(0);
            for (step, wait, roll) in steps {
                now = now.plus_ms(wait);
                match step {
                    0 => { throttle.admits(now, roll); }
                    1 => throttle.on(Outcome::Ok, now),
                    2 => throttle.on(Outcome::Overload, now),
                    _ => throttle.on(Outcome::Failure, now),
                }
                let p = throttle.reject_probability(now);
                prop_assert!((0.0..1.0).contains(&p), "{p}");
            }
        }
    }
}
