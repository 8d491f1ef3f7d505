//! Losing a capability is quick, regaining it slow: thresholds apart, a dwell that doubles, and a ramp
//! by a stable hash of the user.
//!
//! Invariants: once lost, a capability stays lost for at least its dwell and until its readings were
//! good for `hold_ms` without a break; the dwell doubles when it is lost again soon, to
//! `dwell_ms_max`; a user admitted in a ramp stays admitted while it rises.

use crate::ramp_position;
use skerry_types::Tick;

/// The ramp after regaining: percent of users, and from how many milliseconds on.
pub const RAMP: [(u64, u8); 3] = [(0, 10), (3_000, 50), (6_000, 100)];

/// A measurement, judged. Ordered: the worst of several is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    Good,
    /// Between the thresholds: no reason to enter, none to leave.
    Between,
    Bad,
}

/// Two thresholds on one measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    pub enter_above: f64,
    pub leave_below: f64,
}

impl Threshold {
    /// Nothing measured is good: without calls nobody suffers, and the ramp tests the return.
    #[must_use]
    pub fn read(self, value: Option<f64>) -> Reading {
        match value {
            Some(value) if value > self.enter_above => Reading::Bad,
            Some(value) if value >= self.leave_below => Reading::Between,
            _ => Reading::Good,
        }
    }
}

/// How quickly a capability is lost and regained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HysteresisConfig {
    /// Lost when this many of the last three windows of `window_ms` had a bad reading; 1 is at once.
    pub bad_windows: u32,
    pub window_ms: u64,
    /// How long readings must be good without a break.
    pub hold_ms: u64,
    pub dwell_ms: u64,
    pub dwell_ms_max: u64,
}

impl HysteresisConfig {
    /// Lost at once, regained after `hold_ms`; dwell 5 s, doubling to 60 s.
    #[must_use]
    pub const fn holding(hold_ms: u64) -> Self {
        Self {
            bad_windows: 1,
            window_ms: 500,
            hold_ms,
            dwell_ms: 5_000,
            dwell_ms_max: 60_000,
        }
    }
}

/// What an observation changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Lost,
    Regained,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Held {
        since: Option<Tick>,
    },
    Lost {
        since: Tick,
        good_since: Option<Tick>,
    },
}

/// One capability.
#[derive(Debug, Clone)]
pub struct Hysteresis {
    config: HysteresisConfig,
    state: State,
    dwell_ms: u64,
    /// One bit a window with a bad reading, newest lowest.
    windows: u32,
    window: u64,
}

impl Hysteresis {
    /// Starts held, for all users.
    #[must_use]
    pub const fn new(config: HysteresisConfig) -> Self {
        Self {
            config,
            state: State::Held { since: None },
            dwell_ms: config.dwell_ms,
            windows: 0,
            window: 0,
        }
    }

    /// `may_leave` is the caller's own condition for regaining it (one rung at a time).
    pub fn observe(&mut self, reading: Reading, may_leave: bool, now: Tick) -> Option<Change> {
        let window = now.0 / 1_000 / self.config.window_ms.max(1);
        let passed = u32::try_from(window.saturating_sub(self.window)).unwrap_or(u32::MAX);
        self.windows = self.windows.checked_shl(passed).unwrap_or(0) & 0b111;
        self.window = self.window.max(window);
        self.windows |= u32::from(reading == Reading::Bad);
        match self.state {
            State::Held { since } => self.held(since, now),
            State::Lost { since, good_since } => {
                let good_since = (reading == Reading::Good).then(|| good_since.unwrap_or(now));
                self.state = State::Lost { since, good_since };
                let held_ms = good_since.map(|from| now.since_ms(from));
                let ready = held_ms.is_some_and(|ms| ms >= self.config.hold_ms);
                if !(ready && may_leave && now.since_ms(since) >= self.dwell_ms) {
                    return None;
                }
                self.state = State::Held { since: Some(now) };
                self.windows = 0;
                Some(Change::Regained)
            }
        }
    }

    fn held(&mut self, since: Option<Tick>, now: Tick) -> Option<Change> {
        let longest = self.config.dwell_ms_max;
        if self.windows.count_ones() < self.config.bad_windows {
            if since.is_some_and(|since| now.since_ms(since) >= longest) {
                self.dwell_ms = self.config.dwell_ms;
                self.state = State::Held { since: None };
            }
            return None;
        }
        if since.is_some_and(|since| now.since_ms(since) < longest) {
            self.dwell_ms = (self.dwell_ms * 2).min(longest);
        }
        self.state = State::Lost {
            since: now,
            good_since: None,
        };
        Some(Change::Lost)
    }

    /// Percent of users for whom the capability is there.
    #[must_use]
    pub fn share_percent(&self, now: Tick) -> u8 {
        match self.state {
            State::Held { since: None } => 100,
            State::Held { since: Some(since) } => {
                let passed = now.since_ms(since);
                RAMP.iter()
                    .rev()
                    .find(|(from, _)| passed >= *from)
                    .map_or(0, |(_, percent)| *percent)
            }
            State::Lost { .. } => 0,
        }
    }

    #[must_use]
    pub fn admits(&self, user_hash: u64, now: Tick) -> bool {
        ramp_position(user_hash) < self.share_percent(now)
    }

    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost { .. })
    }

    /// Back to held for all: what was observed turned out to belong to something else (an outage).
    pub fn reset(&mut self) {
        *self = Self::new(self.config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(config: HysteresisConfig, readings: &[(u64, Reading)]) -> Vec<(u64, Change)> {
        let mut one = Hysteresis::new(config);
        readings
            .iter()
            .filter_map(|(ms, r)| one.observe(*r, true, Tick::from_ms(*ms)).map(|c| (*ms, c)))
            .collect()
    }

    #[test]
    fn two_of_three_windows_lose_it() {
        let llm = HysteresisConfig {
            bad_windows: 2,
            ..HysteresisConfig::holding(10_000)
        };
        use Reading::{Bad, Good};
        assert_eq!(
            run(llm, &[(0, Bad), (100, Bad), (400, Bad)]),
            vec![],
            "one window is not enough"
        );
        assert_eq!(run(llm, &[(0, Bad), (500, Bad)]), vec![(500, Change::Lost)]);
        assert_eq!(
            run(llm, &[(0, Bad), (500, Good), (1_000, Bad)]),
            vec![(1_000, Change::Lost)]
        );
        assert_eq!(
            run(llm, &[(0, Bad), (500, Good), (1_000, Good), (1_500, Bad)]),
            vec![]
        );
    }

    #[test]
    fn the_dwell_doubles_on_reentry_and_calms_down() {
        let config = HysteresisConfig::holding(1_000);
        let mut one = Hysteresis::new(config);
        let mut now = 0;
        let mut lost_for = Vec::new();
        for quiet_ms in [0, 100, 100, 100, 100, 100, 61_000] {
            now += quiet_ms;
            for at in (now - quiet_ms..now).step_by(100) {
                one.observe(Reading::Good, true, Tick::from_ms(at));
            }
            assert_eq!(
                one.observe(Reading::Bad, true, Tick::from_ms(now)),
                Some(Change::Lost)
            );
            let lost_at = now;
            while one
                .observe(Reading::Good, true, Tick::from_ms(now))
                .is_none()
            {
                assert_eq!(one.share_percent(Tick::from_ms(now)), 0);
                now += 100;
            }
            lost_for.push(now - lost_at);
        }
        assert_eq!(
            lost_for,
            [5_000, 10_000, 20_000, 40_000, 60_000, 60_000, 5_000]
        );
    }

    #[test]
    fn between_the_thresholds_nothing_moves() {
        let threshold = Threshold {
            enter_above: 200.0,
            leave_below: 120.0,
        };
        let cases = [
            (None, Reading::Good),
            (Some(119.9), Reading::Good),
            (Some(120.0), Reading::Between),
        ];
        for (value, want) in cases
            .into_iter()
            .chain([(Some(200.0), Reading::Between), (Some(200.1), Reading::Bad)])
        {
            assert_eq!(threshold.read(value), want, "{value:?}");
        }
        let mut one = Hysteresis::new(HysteresisConfig::holding(1_000));
        one.observe(Reading::Bad, true, Tick(0));
        for ms in (0..60_000).step_by(500) {
            assert_eq!(one.observe(Reading::Between, true, Tick::from_ms(ms)), None);
        }
        assert!(one.is_lost());
    }

    proptest! {
        #[test]
        fn lost_lasts_at_least_the_dwell(steps in proptest::collection::vec((0u8..3, 0u64..4_000), 1..300)) {
            let mut one = Hysteresis::new(HysteresisConfig::holding(2_000));
            let (mut now, mut lost_at, mut last_not_good) = (Tick(0), None, Tick(0));
            for (reading, wait) in steps {
                now = now.plus_ms(wait);
                let reading = [Reading::Good, Reading::Between, Reading::Bad][reading as usize];
                match one.observe(reading, true, now) {
                    Some(Change::Lost) => lost_at = Some(now),
                    Some(Change::Regained) => {
                        prop_assert!(now.since_ms(lost_at.unwrap()) >= 5_000);
                        prop_assert!(now.since_ms(last_not_good) >= 2_000);
                        prop_assert_eq!(one.share_percent(now), 10);
                    }
                    None => {}
                }
                if reading != Reading::Good {
                    last_not_good = now;
                }
            }
        }

        #[test]
        fn a_ramp_never_sends_anybody_back(user: u64, a in 0u64..9_000, b in 0u64..9_000) {
            let mut one = Hysteresis::new(HysteresisConfig::holding(0));
            one.observe(Reading::Bad, true, Tick(0));
            one.observe(Reading::Good, true, Tick::from_ms(5_000));
            let at = |ms| Tick::from_ms(5_000 + ms);
            if one.admits(user, at(a.min(b))) {
                prop_assert!(one.admits(user, at(a.max(b))));
            }
        }
    }
}
