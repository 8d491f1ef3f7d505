//! One breaker per target: stops asking a target that fails, probes it off the users' path, and
//! leads users back in a ramp.
//!
//! Invariants: at most [`PROBES_MAX`] probes in flight; no trip on a rate below the minimum volume;
//! a user who is admitted in a ramp stays admitted while it rises; overload replies change nothing;
//! it is never open for longer than `open_ms_max` at a time.

use crate::{Outcome, ramp_position, splitmix};
use skerry_types::Tick;
use std::collections::VecDeque;

/// Probes in flight while half-open, and successes that close it.
pub const PROBES_MAX: usize = 5;
/// A probe without a result for this long has failed, so that a lost one cannot wedge the breaker.
pub const PROBE_WAIT_MS_MAX: u64 = 1_000;
/// The ramp: percent of users admitted, and from how many milliseconds after closing.
pub const RAMP: [(u64, u8); 3] = [(0, 10), (2_000, 50), (4_000, 100)];
/// The failure rate is counted over this many slices.
const SLICES: usize = 8;

/// The limits of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    pub window_ms: u64,
    /// Below this many calls in the window the rate does not trip.
    pub volume_min: u32,
    pub failure_percent: u32,
    /// This many failures in a row trip it, whatever the volume.
    pub consecutive_max: u32,
    /// How long the first opening lasts; it doubles with each that follows without full recovery.
    pub open_ms: u64,
    pub open_ms_max: u64,
    /// Up to this share of an opening is cut off, by the seed, so that PoPs do not probe together.
    pub jitter_percent: u64,
}

impl BreakerConfig {
    /// For origins: 50 % of at least 10 in 2 s, or 5 in a row; open 1, 2, 4 s (a cap of 32 s kept
    /// freshness at 66-70 % for 20 s after healing).
    pub const ORIGIN: Self = Self {
        window_ms: 2_000,
        volume_min: 10,
        failure_percent: 50,
        consecutive_max: 5,
        open_ms: 1_000,
        open_ms_max: 4_000,
        jitter_percent: 20,
    };
    /// For third parties and the LLM: open 30 s.
    pub const THIRD_PARTY: Self = Self {
        open_ms: 30_000,
        open_ms_max: 30_000,
        ..Self::ORIGIN
    };
}

/// What to do with a user's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admit {
    /// Call, and report by [`Breaker::on`].
    Go,
    /// Answer the user without the target. A copy of the call (or a ping) may go out off the user's
    /// path; it holds a probe's place and must be reported by [`Breaker::probe_done`].
    Probe,
    /// Answer without the target.
    No,
}

/// For gauges and logs, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    Closed,
    Ramping,
    HalfOpen,
    Open,
}

impl BreakerState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Ramping => "ramping",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// A step worth logging once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    Opened {
        until: Tick,
    },
    /// The probes succeeded; users return by the ramp, without further messages.
    Closed,
}

#[derive(Debug, Clone)]
enum State {
    Closed,
    Open { until: Tick },
    HalfOpen { successes: usize },
    Ramp { since: Tick },
}

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    epoch: u64,
    calls: u32,
    failures: u32,
}

/// The breaker of one target.
#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    slices: [Slice; SLICES],
    consecutive: u32,
    /// Openings since the last full recovery.
    openings: u32,
    /// When each probe in flight went out, oldest first.
    probes: VecDeque<Tick>,
    seed: u64,
}

impl Breaker {
    /// `seed` makes the jitter: different for each (PoP, target), fixed in tests.
    #[must_use]
    pub fn new(config: BreakerConfig, seed: u64) -> Self {
        Self {
            config,
            state: State::Closed,
            slices: [Slice::default(); SLICES],
            consecutive: 0,
            openings: 0,
            probes: VecDeque::with_capacity(PROBES_MAX),
            seed,
        }
    }

    /// Whether this user's call may go to the target.
    pub fn admits(&mut self, now: Tick, user_hash: u64) -> Admit {
        self.advance(now);
        match self.state {
            State::Closed => Admit::Go,
            State::Ramp { since } if ramp_position(user_hash) < ramp_percent(since, now) => {
                Admit::Go
            }
            State::Ramp { .. } | State::Open { .. } => Admit::No,
            State::HalfOpen { .. } => match self.wants_probe(now) {
                true => Admit::Probe,
                false => Admit::No,
            },
        }
    }

    /// The same for a reader that must not take a probe's place: closed, or admitted by the ramp.
    #[must_use]
    pub fn open_to(&self, now: Tick, user_hash: u64) -> bool {
        match self.state {
            State::Closed => true,
            State::Ramp { since } => ramp_position(user_hash) < ramp_percent(since, now),
            State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    /// Reports a user's call that [`Admit::Go`] let out. While open or half-open it changes nothing:
    /// such a call went out before, and only probes speak for the present.
    pub fn on(&mut self, outcome: Outcome, now: Tick) -> Option<Transition> {
        self.advance(now);
        if outcome == Outcome::Overload
            || matches!(self.state, State::Open { .. } | State::HalfOpen { .. })
        {
            return None;
        }
        let failed = outcome == Outcome::Failure;
        self.count(failed, now);
        self.consecutive = if failed {
            self.consecutive.saturating_add(1)
        } else {
            0
        };
        (failed && self.trips(now)).then(|| self.open(now))
    }

    /// Whether a probe should go out now; true takes its place, to be given back by
    /// [`Breaker::probe_done`].
    pub fn wants_probe(&mut self, now: Tick) -> bool {
        self.advance(now);
        let State::HalfOpen { successes } = self.state else {
            return false;
        };
        // No more in flight than successes are still missing: a sixth could tell nothing new.
        if self.probes.len() + successes >= PROBES_MAX {
            return false;
        }
        self.probes.push_back(now);
        true
    }

    /// Reports a probe. A result that comes after its probe was given up changes nothing.
    pub fn probe_done(&mut self, ok: bool, now: Tick) -> Option<Transition> {
        self.advance(now);
        self.probes.pop_front()?;
        let State::HalfOpen { successes } = self.state else {
            return None;
        };
        if !ok {
            return Some(self.open(now));
        }
        if successes + 1 < PROBES_MAX {
            self.state = State::HalfOpen {
                successes: successes + 1,
            };
            return None;
        }
        self.state = State::Ramp { since: now };
        self.slices = [Slice::default(); SLICES];
        self.consecutive = 0;
        self.probes.clear();
        Some(Transition::Closed)
    }

    #[must_use]
    pub fn state(&self, now: Tick) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
            State::Ramp { since } if ramp_percent(since, now) < 100 => BreakerState::Ramping,
            State::Ramp { .. } => BreakerState::Closed,
        }
    }

    #[must_use]
    pub fn probes_in_flight(&self) -> usize {
        self.probes.len()
    }

    /// Steps that time alone takes.
    fn advance(&mut self, now: Tick) {
        match self.state {
            State::Open { until } if now >= until => {
                self.probes.clear();
                self.state = State::HalfOpen { successes: 0 };
            }
            State::HalfOpen { .. } => {
                let lost = |sent: &Tick| now.since_ms(*sent) >= PROBE_WAIT_MS_MAX;
                if self.probes.front().is_some_and(lost) {
                    self.open(now);
                }
            }
            State::Ramp { since } if ramp_percent(since, now) >= 100 => {
                self.state = State::Closed;
                self.openings = 0;
            }
            _ => {}
        }
    }

    fn open(&mut self, now: Tick) -> Transition {
        let config = self.config;
        let whole = config
            .open_ms
            .saturating_mul(1 << self.openings.min(16))
            .min(config.open_ms_max);
        self.openings = self.openings.saturating_add(1);
        self.seed = splitmix(self.seed);
        let cut = whole.saturating_mul(config.jitter_percent.min(100)) / 100;
        let cut = if cut == 0 { 0 } else { self.seed % (cut + 1) };
        let until = now.plus_ms(whole - cut);
        self.state = State::Open { until };
        self.probes.clear();
        Transition::Opened { until }
    }

    fn count(&mut self, failed: bool, now: Tick) {
        let epoch = self.epoch(now);
        if let Some(slice) = self.slices.get_mut((epoch % SLICES as u64) as usize) {
            if slice.epoch != epoch {
                *slice = Slice {
                    epoch,
                    calls: 0,
                    failures: 0,
                };
            }
            slice.calls = slice.calls.saturating_add(1);
            slice.failures = slice.failures.saturating_add(u32::from(failed));
        }
    }

    fn trips(&self, now: Tick) -> bool {
        if self.consecutive >= self.config.consecutive_max {
            return true;
        }
        let epoch = self.epoch(now);
        let live = self
            .slices
            .iter()
            .filter(|slice| slice.epoch + SLICES as u64 > epoch);
        let (calls, failures) = live.fold((0u64, 0u64), |(c, f), slice| {
            (c + u64::from(slice.calls), f + u64::from(slice.failures))
        });
        calls >= u64::from(self.config.volume_min)
            && failures * 100 >= calls * u64::from(self.config.failure_percent)
    }

    fn epoch(&self, now: Tick) -> u64 {
        now.0 / 1000 / (self.config.window_ms / SLICES as u64).max(1)
    }
}

fn ramp_percent(since: Tick, now: Tick) -> u8 {
    let passed = now.since_ms(since);
    RAMP.iter()
        .rev()
        .find(|(from, _)| passed >= *from)
        .map_or(0, |(_, percent)| *percent)
}

#[cfg(test)]
mod tests;
