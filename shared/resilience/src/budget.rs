//! What retries and hedges may cost: 10 % of the calls, plus one a second, for a whole PoP.
//!
//! Invariant: over any stretch, spent <= [`TOKENS_MAX`] + calls / 10 + seconds. Spent at the edge
//! only, on idempotent requests or such with an event id.

use skerry_types::Tick;

/// Retries that a quiet PoP may save up.
pub const TOKENS_MAX: u64 = 10;
/// What a call earns, in thousandths of a retry.
const PER_CALL_MILLI: u64 = 100;
/// What a retry costs, in thousandths; a millisecond earns one thousandth, which makes 1/s.
const COST_MILLI: u64 = 1_000;

/// What a call earns of a hedge between shards: 5 %, and nothing by time.
const HEDGE_PER_CALL_MILLI: u64 = 50;

/// A token bucket in thousandths of a retry.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    milli: u64,
    at: Tick,
    per_call_milli: u64,
    by_time: bool,
}

impl RetryBudget {
    /// Starts with one retry.
    #[must_use]
    pub const fn new(now: Tick) -> Self {
        Self {
            milli: COST_MILLI,
            at: now,
            per_call_milli: PER_CALL_MILLI,
            by_time: true,
        }
    }

    /// For hedges inside a region: at most 5 % of the calls, however slow they come. Starts empty.
    #[must_use]
    pub const fn hedging(now: Tick) -> Self {
        Self {
            milli: 0,
            at: now,
            per_call_milli: HEDGE_PER_CALL_MILLI,
            by_time: false,
        }
    }

    /// Each first try earns a tenth of a retry. Retries and hedges earn nothing.
    pub fn on_call(&mut self, now: Tick) {
        self.earn(now);
        self.milli = (self.milli + self.per_call_milli).min(TOKENS_MAX * COST_MILLI);
    }

    /// Takes one retry or hedge, if there is one.
    pub fn try_spend(&mut self, now: Tick) -> bool {
        self.earn(now);
        match self.milli.checked_sub(COST_MILLI) {
            Some(left) => {
                self.milli = left;
                true
            }
            None => false,
        }
    }

    fn earn(&mut self, now: Tick) {
        if !self.by_time {
            return;
        }
        let passed_ms = now.since_ms(self.at);
        self.milli = self
            .milli
            .saturating_add(passed_ms)
            .min(TOKENS_MAX * COST_MILLI);
        // The rest below a millisecond stays for the next time.
        self.at = self.at.plus_ms(passed_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_never_amplifies_beyond_its_share(steps in proptest::collection::vec((any::<bool>(), 0u64..300_000), 0..400)) {
            let mut budget = RetryBudget::new(Tick(0));
            let (mut now, mut calls, mut spent) = (Tick(0), 0u64, 0u64);
            for (call, wait_us) in steps {
                now = Tick(now.0 + wait_us);
                if call {
                    budget.on_call(now);
                    calls += 1;
                }
                spent += u64::from(budget.try_spend(now));
                prop_assert!(spent * 1_000 <= 1_000 + calls * 100 + now.0 / 1_000);
            }
        }
    }

    #[test]
    fn hedges_are_at_most_one_call_in_twenty() {
        let mut budget = RetryBudget::hedging(Tick(0));
        let mut hedges = 0;
        for call in 0..10_000u64 {
            let now = Tick::from_ms(call * 1_000);
            budget.on_call(now);
            hedges += u64::from(budget.try_spend(now));
            assert!(hedges * 20 <= call + 1, "{hedges} of {}", call + 1);
        }
        assert_eq!(hedges, 500);
    }

    #[test]
    fn it_earns_by_calls_and_by_time_up_to_its_bound() {
        let mut budget = RetryBudget::new(Tick(0));
        assert!(budget.try_spend(Tick(0)) && !budget.try_spend(Tick(0)));
        assert!(!budget.try_spend(Tick(999_999)) && budget.try_spend(Tick(1_000_000)));
        let spend_all =
            |budget: &mut RetryBudget, now| (0..1_000).filter(|_| budget.try_spend(now)).count();
        let now = Tick(1_000_000);
        (0..50).for_each(|_| budget.on_call(now));
        assert_eq!(spend_all(&mut budget, now), 5);
        assert_eq!(
            spend_all(&mut budget, Tick::from_ms(3_600_000)),
            10,
            "a quiet hour saves no storm"
        );
    }
}
