//! Region frames: what a region says of itself, pushed to every PoP each 250 ms and riding on answers.
//!
//! Invariants: a lower epoch, or a lower sequence in the same epoch, never replaces what is known (a
//! fenced region cannot talk itself back); a repeated frame does not prolong its own life; a frame is
//! suspect after 1 s of silence and forgotten after its TTL, 3 s at most.

use crate::ladder::Capabilities;
use crate::{ResilienceError, ramp_position};
use serde::{Deserialize, Serialize};
use skerry_types::Tick;
use std::sync::Arc;

/// How often a region sends its frame.
pub const PERIOD_MS: u64 = 250;
/// Silence after which a frame is suspect, and the longest life of a frame.
pub const SUSPECT_MS: u64 = 1_000;
pub const TTL_MS_MAX: u64 = 3_000;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionFrame {
    pub region: Arc<str>,
    pub epoch: u64,
    pub seq: u64,
    pub capabilities: Capabilities,
    /// Percent of users that the region takes.
    pub admit_percent: u8,
    pub event_lag_ms: u32,
    pub ttl_ms: u32,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameStep {
    Taken,
    /// Older than, or the same as, what is known: counted, not used.
    Stale,
}

/// How much the last frame can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    Live,
    /// Silent for a second: still used, and a reason to look for another region.
    Suspect,
}

/// The last frame of one region, as one PoP sees it.
#[derive(Debug, Clone, Default)]
pub struct FrameView {
    last: Option<(RegionFrame, Tick)>,
}

impl FrameView {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a frame in. The first one binds the view to its region.
    pub fn accept(&mut self, frame: RegionFrame, now: Tick) -> Result<FrameStep, ResilienceError> {
        if frame.admit_percent > 100 {
            return Err(ResilienceError::FrameAdmit(frame.admit_percent));
        }
        if let Some((last, _)) = &self.last {
            if last.region != frame.region {
                return Err(ResilienceError::FrameRegion);
            }
            if (frame.epoch, frame.seq) <= (last.epoch, last.seq) {
                return Ok(FrameStep::Stale);
            }
        }
        self.last = Some((frame, now));
        Ok(FrameStep::Taken)
    }

    /// The frame to go by; none when the PoP must rely on its own view.
    #[must_use]
    pub fn current(&self, now: Tick) -> Option<(&RegionFrame, Freshness)> {
        let (frame, at) = self.last.as_ref()?;
        let silent_ms = now.since_ms(*at);
        if silent_ms >= u64::from(frame.ttl_ms).min(TTL_MS_MAX) {
            return None;
        }
        Some((
            frame,
            if silent_ms >= SUSPECT_MS {
                Freshness::Suspect
            } else {
                Freshness::Live
            },
        ))
    }
}

impl RegionFrame {
    /// Whether the region takes this user.
    #[must_use]
    pub fn admits(&self, user_hash: u64) -> bool {
        ramp_position(user_hash) < self.admit_percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(epoch: u64, seq: u64) -> RegionFrame {
        RegionFrame {
            region: Arc::from("us-west"),
            epoch,
            seq,
            capabilities: Capabilities::ALL,
            admit_percent: 100,
            event_lag_ms: 0,
            ttl_ms: 3_000,
        }
    }

    #[test]
    fn silence_makes_suspect_then_ignored() {
        let mut view = FrameView::new();
        assert_eq!(view.current(Tick(0)), None);
        view.accept(frame(1, 1), Tick(0)).unwrap();
        let cases = [
            (999, Some(Freshness::Live)),
            (1_000, Some(Freshness::Suspect)),
            (2_999, Some(Freshness::Suspect)),
        ];
        for (ms, want) in cases.into_iter().chain([(3_000, None)]) {
            assert_eq!(
                view.current(Tick::from_ms(ms)).map(|(_, fresh)| fresh),
                want,
                "{ms}"
            );
        }
        assert_eq!(
            view.accept(frame(1, 1), Tick::from_ms(2_500)),
            Ok(FrameStep::Stale)
        );
        assert_eq!(
            view.current(Tick::from_ms(3_000)),
            None,
            "a replay does not prolong it"
        );
        let long = RegionFrame {
            ttl_ms: u32::MAX,
            ..frame(1, 2)
        };
        view.accept(long, Tick::from_ms(4_000)).unwrap();
        assert_eq!(
            view.current(Tick::from_ms(7_000)),
            None,
            "no TTL beyond the bound"
        );
    }

    #[test]
    fn what_is_refused() {
        let mut view = FrameView::new();
        view.accept(frame(5, 5), Tick(0)).unwrap();
        let cases = [
            (
                "older epoch, higher sequence",
                frame(4, 99),
                Ok(FrameStep::Stale),
            ),
            ("older sequence", frame(5, 4), Ok(FrameStep::Stale)),
            (
                "admits 101 %",
                RegionFrame {
                    admit_percent: 101,
                    ..frame(6, 0)
                },
                Err(ResilienceError::FrameAdmit(101)),
            ),
            (
                "another region",
                RegionFrame {
                    region: "eu".into(),
                    ..frame(6, 0)
                },
                Err(ResilienceError::FrameRegion),
            ),
            (
                "newer epoch starts its sequence afresh",
                frame(6, 0),
                Ok(FrameStep::Taken),
            ),
        ];
        for (name, frame, want) in cases {
            assert_eq!(view.accept(frame, Tick(0)), want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_known_only_moves_forward(frames in proptest::collection::vec((0u64..5, 0u64..5), 1..60)) {
            let mut view = FrameView::new();
            let mut best = None;
            for (epoch, seq) in frames {
                view.accept(frame(epoch, seq), Tick(0)).unwrap();
                best = best.max(Some((epoch, seq)));
                prop_assert_eq!(view.current(Tick(0)).map(|(f, _)| (f.epoch, f.seq)), best);
            }
        }
    }
}
