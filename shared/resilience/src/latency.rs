//! How an origin does, seen from here: quantiles, timeouts and sheds of the last five seconds.
//!
//! Invariants: memory is fixed (10 slices of 304 counters); a quantile is exact to 1/16 (its bucket's
//! upper end, so never too good); what is older than [`WINDOW_MS`] no longer counts.

use skerry_types::Tick;

/// How far back calls count.
pub const WINDOW_MS: u64 = 5_000;
/// Below this many calls an origin is not judged.
pub const SAMPLES_MIN: u32 = 20;
/// A call with less time than this that is cut speaks of its caller, not of the origin: it counts for
/// the latency (as twice its deadline), not as a timeout. Otherwise one client with a tiny budget
/// would take the origin away from all.
pub const JUDGED_DEADLINE_MS_MIN: u32 = 50;

const SLICES: usize = 10;
const SLICE_MS: u64 = WINDOW_MS / SLICES as u64;
/// 16 buckets for each power of two of microseconds, up to 2^22 us (4.2 s), and one for the rest.
const BUCKETS: usize = 16 * 19 + 1;

fn bucket_of(us: u64) -> usize {
    let us = us.clamp(16, 1 << 40);
    let power = us.ilog2();
    let within = (us >> (power - 4)) & 0xf;
    (((power - 4) as u64 * 16 + within) as usize).min(BUCKETS - 1)
}

fn upper_us(bucket: usize) -> u64 {
    let (power, within) = (bucket / 16 + 4, bucket as u64 % 16);
    (16 + within + 1) << (power - 4)
}

/// A sliding histogram of durations.
#[derive(Debug, Clone)]
pub struct LatencyWindow {
    /// The sum of all live slices.
    total: Vec<u32>,
    slices: Vec<Vec<u32>>,
    samples: u32,
    /// Number of the slice that is being filled.
    epoch: u64,
}

impl Default for LatencyWindow {
    fn default() -> Self {
        Self {
            total: vec![0; BUCKETS],
            slices: vec![vec![0; BUCKETS]; SLICES],
            samples: 0,
            epoch: 0,
        }
    }
}

impl LatencyWindow {
    pub fn record(&mut self, us: u64, now: Tick) {
        self.advance(now);
        let (bucket, slice) = (bucket_of(us), (self.epoch % SLICES as u64) as usize);
        let cell = self
            .slices
            .get_mut(slice)
            .and_then(|slice| slice.get_mut(bucket));
        if let (Some(total), Some(cell)) = (self.total.get_mut(bucket), cell) {
            *total += 1;
            *cell += 1;
            self.samples += 1;
        }
    }

    /// The duration in microseconds that a `share` of the calls did not exceed; none without calls.
    #[must_use]
    pub fn quantile_us(&mut self, share: f64, now: Tick) -> Option<u64> {
        self.advance(now);
        if self.samples == 0 {
            return None;
        }
        let rank =
            ((f64::from(self.samples) * share).ceil() as u64).clamp(1, u64::from(self.samples));
        let mut seen = 0u64;
        let at = self.total.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        at.map(upper_us)
    }

    #[must_use]
    pub fn samples(&mut self, now: Tick) -> u32 {
        self.advance(now);
        self.samples
    }

    fn advance(&mut self, now: Tick) {
        let epoch = now.0 / 1_000 / SLICE_MS;
        for gone in (self.epoch + 1..=epoch).take(SLICES) {
            let Some(slice) = self.slices.get_mut((gone % SLICES as u64) as usize) else {
                continue;
            };
            for (total, cell) in self.total.iter_mut().zip(slice.iter_mut()) {
                *total -= *cell;
                self.samples -= *cell;
                *cell = 0;
            }
        }
        self.epoch = self.epoch.max(epoch);
    }
}

/// How a call to an origin ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    Answered,
    /// Cut at its deadline, or failed: an error counts as a timeout, otherwise an origin that fails
    /// fast would look good.
    Cut,
    /// Refused for load.
    Shed,
}

/// One call, as the adapter saw it.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub end: CallEnd,
    pub took_us: u64,
    pub deadline_ms: u32,
}

/// What the ladder needs to know of an origin's calls.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct OriginHealth {
    pub samples: u32,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub timeout_share: f64,
    pub shed_share: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    epoch: u64,
    judged: u32,
    cut: u32,
    shed: u32,
}

/// The calls to one origin.
#[derive(Debug, Clone, Default)]
pub struct OriginStats {
    latency: LatencyWindow,
    ends: [Ends; SLICES],
}

impl OriginStats {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn on(&mut self, call: Call, now: Tick) {
        let deadline_us = u64::from(call.deadline_ms) * 1_000;
        match call.end {
            CallEnd::Answered => self.latency.record(call.took_us, now),
            CallEnd::Cut => self.latency.record(call.took_us.max(deadline_us * 2), now),
            // A refusal is quick and says nothing of how long an answer takes.
            CallEnd::Shed => {}
        }
        let cut = call.end == CallEnd::Cut;
        if cut && call.deadline_ms < JUDGED_DEADLINE_MS_MIN {
            return;
        }
        let epoch = now.0 / 1_000 / SLICE_MS;
        if let Some(ends) = self.ends.get_mut((epoch % SLICES as u64) as usize) {
            if ends.epoch != epoch {
                *ends = Ends {
                    epoch,
                    ..Ends::default()
                };
            }
            ends.judged += 1;
            ends.cut += u32::from(cut);
            ends.shed += u32::from(call.end == CallEnd::Shed);
        }
    }

    #[must_use]
    pub fn health(&mut self, now: Tick) -> OriginHealth {
        let epoch = now.0 / 1_000 / SLICE_MS;
        let live = self
            .ends
            .iter()
            .filter(|ends| ends.epoch + SLICES as u64 > epoch);
        let (judged, cut, shed) = live.fold((0, 0, 0), |(j, c, s), e| {
            (j + e.judged, c + e.cut, s + e.shed)
        });
        let share = |part: u32| {
            if judged == 0 {
                0.0
            } else {
                f64::from(part) / f64::from(judged)
            }
        };
        let quantile = |latency: &mut LatencyWindow, q| {
            latency.quantile_us(q, now).map(|us| us as f64 / 1_000.0)
        };
        OriginHealth {
            samples: judged.max(self.latency.samples(now)),
            p50_ms: quantile(&mut self.latency, 0.5),
            p95_ms: quantile(&mut self.latency, 0.95),
            timeout_share: share(cut),
            shed_share: share(shed),
        }
    }

    /// Forgets all: after an outage, what was counted during it says nothing of the origin that came
    /// back.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_never_too_good_and_close(
            mut samples in proptest::collection::vec(20u64..4_000_000, 1..400), share in 0.01f64..1.0,
        ) {
            let mut window = LatencyWindow::default();
            for us in &samples {
                window.record(*us, Tick(1_000));
            }
            samples.sort_unstable();
            let rank = ((samples.len() as f64 * share).ceil() as usize).clamp(1, samples.len());
            let (exact, got) = (samples[rank - 1], window.quantile_us(share, Tick(2_000)).unwrap());
            prop_assert!(got >= exact && got as f64 <= exact as f64 * 1.0626 + 1.0, "{got} for {exact}");
        }

        #[test]
        fn old_calls_do_not_count(steps in proptest::collection::vec((0u64..2_000, 1u64..100_000), 1..200)) {
            let mut window = LatencyWindow::default();
            let mut now = Tick(0);
            let mut log = Vec::new();
            for (wait, us) in steps {
                now = now.plus_ms(wait);
                window.record(us, now);
                log.push(now.0 / 1_000 / SLICE_MS);
                let newest = now.0 / 1_000 / SLICE_MS;
                let live = log.iter().filter(|epoch| **epoch + SLICES as u64 > newest).count();
                prop_assert_eq!(window.samples(now) as usize, live);
            }
            prop_assert_eq!(window.samples(now.plus_ms(WINDOW_MS)), 0);
        }
    }

    #[test]
    fn what_counts_as_what() {
        let mut stats = OriginStats::new();
        let call = |end, took_ms: u64, deadline_ms| Call {
            end,
            took_us: took_ms * 1_000,
            deadline_ms,
        };
        for _ in 0..90 {
            stats.on(call(CallEnd::Answered, 10, 150), Tick(0));
        }
        for _ in 0..6 {
            stats.on(call(CallEnd::Cut, 150, 150), Tick(0));
        }
        for _ in 0..4 {
            stats.on(call(CallEnd::Shed, 1, 150), Tick(0));
        }
        let health = stats.health(Tick(1_000));
        assert_eq!(health.samples, 100);
        assert!(
            (health.timeout_share - 0.06).abs() < 1e-6 && (health.shed_share - 0.04).abs() < 1e-6
        );
        assert!(
            health
                .p95_ms
                .is_some_and(|p95| (300.0..=320.0).contains(&p95)),
            "{health:?}: twice the deadline"
        );
        assert!(
            health
                .p50_ms
                .is_some_and(|p50| (10.0..=10.7).contains(&p50)),
            "{health:?}"
        );

        let mut hasty = OriginStats::new();
        for _ in 0..100 {
            hasty.on(call(CallEnd::Cut, 10, 10), Tick(0));
        }
        let health = hasty.health(Tick(1_000));
        assert_eq!(
            health.timeout_share, 0.0,
            "a tiny budget is the caller's fault"
        );
        assert!(
            health.p50_ms.is_some_and(|p50| p50 >= 20.0),
            "but says that the origin needs more than that"
        );
    }
}
