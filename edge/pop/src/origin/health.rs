//! The state machines about one origin, fed by calls, pings and region frames. Pure: time is an
//! argument.

use skerry_resilience::{
    Admit, Breaker, BreakerConfig, BreakerState, Call, Capabilities, FrameView, Ladder, Measured,
    OriginHealth, OriginStats, Outcome, Plan, RegionFrame, Throttle, Transition, ladder,
};
use skerry_types::Tick;
use skerry_wire::frame::RegionState;

/// How often the ladder looks at the measurements, in milliseconds.
pub const OBSERVE_MS: u64 = 100;

pub struct Health {
    breaker: Breaker,
    ladder: Ladder,
    stats: OriginStats,
    throttle: Throttle,
    frames: FrameView,
    /// As of the last observation.
    measured: OriginHealth,
}

impl Health {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            breaker: Breaker::new(BreakerConfig::ORIGIN, seed),
            ladder: Ladder::new(Capabilities::PLAIN),
            stats: OriginStats::new(),
            throttle: Throttle::new(),
            frames: FrameView::new(),
            measured: OriginHealth::default(),
        }
    }

    pub fn plan(
        &mut self,
        user_hash: u64,
        left_ms: u32,
        connected: bool,
        pool: bool,
        roll: f64,
        now: Tick,
    ) -> Plan {
        let admit = if connected && self.breaker.open_to(now, user_hash) {
            Admit::Go
        } else {
            Admit::No
        };
        let mut health = ladder::Health {
            user_hash,
            connected,
            admit,
            throttled: false,
            turned_away: self
                .frames
                .current(now)
                .is_some_and(|(frame, _)| !frame.admits(user_hash)),
            origin_p50_ms: self.measured.p50_ms,
            shedding: self.ladder.shedding(),
            pool,
            // What is known of the user is the worker's to find out.
            context: true,
        };
        let plan = self.ladder.plan(&health, left_ms, now);
        // Only a call that would be made else is throttled, and only then counts as one that was
        // wanted: what is turned away for other reasons, or shares another's call, is no demand. An
        // origin that took nobody while it started would be throttled long after.
        if !plan.ask_origin || self.throttle.admits(now, roll) {
            return plan;
        }
        health.throttled = true;
        self.ladder.plan(&health, left_ms, now)
    }

    /// Takes a call's end in; the breaker's new state where it changed.
    pub fn report(
        &mut self,
        outcome: Option<Outcome>,
        call: Call,
        now: Tick,
    ) -> Option<&'static str> {
        self.stats.on(call, now);
        let outcome = outcome?;
        self.throttle.on(outcome, now);
        self.breaker.on(outcome, now).map(name)
    }

    /// Looks at the measurements; true where a probe shall go out.
    pub fn observe(&mut self, connected: bool, now: Tick) -> bool {
        self.measured = self.stats.health(now);
        let outage = !connected || self.breaker.state(now) != BreakerState::Closed;
        let frame = self.frames.current(now).map(|(frame, _)| frame);
        let lag = frame.filter(|_| {
            self.ladder
                .configured()
                .has(skerry_resilience::Capability::Realtime)
        });
        let measured = Measured {
            stream_lag_ms: lag.map(|frame| f64::from(frame.event_lag_ms)),
            origin: self.measured,
            outage,
            ..Measured::default()
        };
        self.ladder.heed(frame);
        for (capability, change) in self.ladder.observe(&measured, now) {
            tracing::warn!(
                capability = capability.as_str(),
                ?change,
                "the ladder changed"
            );
        }
        connected && self.breaker.wants_probe(now)
    }

    pub fn probed(&mut self, ok: bool, now: Tick) {
        if let Some(change) = self.breaker.probe_done(ok, now) {
            tracing::warn!(breaker = name(change), "the origin's breaker changed");
        }
    }

    /// What a region says of itself.
    pub fn heed(&mut self, state: &RegionState, now: Tick) {
        let bits = |bits: u32| Capabilities(bits as u8).and(Capabilities::ALL);
        let configured = bits(state.configured);
        if configured != self.ladder.configured() {
            self.ladder = Ladder::new(configured);
        }
        let frame = RegionFrame {
            region: state.region.clone(),
            epoch: state.epoch,
            seq: state.seq,
            capabilities: bits(state.capabilities),
            admit_percent: state.admit_pct,
            event_lag_ms: state.event_lag_ms,
            ttl_ms: state.ttl_ms,
        };
        if let Err(error) = self.frames.accept(frame, now) {
            tracing::warn!(code = error.code(), %error, "a region frame is refused");
        }
    }

    /// A connection stands: what was measured before the outage says nothing of what is there now.
    pub fn connected(&mut self, region: &str, now: Tick) {
        self.stats.reset();
        self.measured = OriginHealth::default();
        if self
            .frames
            .current(now)
            .is_some_and(|(frame, _)| &*frame.region != region)
        {
            self.frames = FrameView::new();
        }
    }

    pub fn breaker_state(&self, now: Tick) -> BreakerState {
        self.breaker.state(now)
    }
}

const fn name(change: Transition) -> &'static str {
    match change {
        Transition::Opened { .. } => "open",
        Transition::Closed => "ramping",
    }
}
