//! From events to the bandit's statistics: an impression is an exposure of what was seen, a positive
//! event (click, like, add to cart, purchase, or as configured) is a reward, both attributed through the answer's `request_id`.
//!
//! Works behind the log, from a bounded queue: under a flood of events rewards are dropped (and
//! counted), events never are. The ledger counts each exposure and reward once, so that a replay
//! changes nothing.

use crate::kinds::Kinds;
use skerry_origin_bandit::{Exposure, Ledger, Recorded, Reward};
use skerry_origin_events::{Answers, Consumer, IMPORTED, Lag, Reader, Stored};
use skerry_types::{Event, EventKind, ItemId, Source, Surface, Taste, Uid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

/// Events that may wait.
const QUEUE_EVENTS_MAX: usize = 8_192;

/// The consumer.
pub struct Rewards {
    queue: SyncSender<Event>,
    kinds: Kinds,
    dropped: AtomicU64,
    lag: Arc<Lag>,
}

/// What was shown for a request.
struct Shown {
    decision: Uid,
    surface: Surface,
    items: Vec<(ItemId, Source)>,
}

impl Rewards {
    /// Starts the worker; `changed` is set whenever the ledger counted something.
    pub fn start(
        ledger: Arc<Ledger>,
        answers: Arc<Answers>,
        changed: Arc<AtomicBool>,
        kinds: Kinds,
    ) -> std::io::Result<Self> {
        let (queue, events) = sync_channel::<Event>(QUEUE_EVENTS_MAX);
        let lag: Arc<Lag> = Arc::default();
        let done = Arc::clone(&lag);
        std::thread::Builder::new()
            .name("rewards".to_owned())
            .spawn(move || {
                while let Ok(event) = events.recv() {
                    if record(&ledger, &answers, &event) {
                        changed.store(true, Ordering::Relaxed);
                    }
                    done.done(1, event.accepted_ms);
                }
            })?;
        Ok(Self {
            queue,
            kinds,
            dropped: AtomicU64::new(0),
            lag,
        })
    }

    /// Rewards that were not counted because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How far the ledger is behind the log.
    pub fn lag(&self) -> &Lag {
        &self.lag
    }
}

impl Consumer for Rewards {
    fn apply(&self, _: &Reader, batch: &[Stored]) {
        for stored in batch {
            let event = &stored.event;
            let matters =
                event.kind == EventKind::Impression || self.kinds.taste(event) == Taste::Positive;
            if !matters || event.request_id.is_none() || &*event.pop == IMPORTED {
                continue;
            }
            self.lag.given(1, event.accepted_ms, event.accepted_ms);
            if self.queue.try_send(event.clone()).is_err() {
                self.lag.done(1, 0);
                if self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!("rewards fall behind events: some are not counted");
                }
            }
        }
    }

    fn flush(&self, _: u64) {}
}

/// Whether the ledger counted anything.
fn record(ledger: &Ledger, answers: &Answers, event: &Event) -> bool {
    let Some(shown) = event
        .request_id
        .and_then(|request| shown(answers, event, request))
    else {
        return false;
    };
    let seen: Vec<&(ItemId, Source)> = match (&event.kind, &event.item, event.positions.as_slice())
    {
        (EventKind::Impression, None, []) => shown.items.iter().collect(),
        (EventKind::Impression, None, positions) => positions
            .iter()
            .filter_map(|at| shown.items.get(usize::from(*at)))
            .collect(),
        (_, Some(item), _) => shown.items.iter().filter(|(id, _)| id == item).collect(),
        _ => Vec::new(),
    };
    let mut counted = false;
    for (item, _) in seen
        .into_iter()
        .filter(|(_, source)| *source == Source::Explore)
    {
        // What was clicked was seen, whether or not an impression says so.
        let exposure = Exposure {
            tenant: event.tenant.clone(),
            surface: shown.surface.clone(),
            decision: shown.decision,
            arm: item.clone(),
            at_ms: event.accepted_ms,
        };
        counted |= note(ledger.record_exposure(&exposure));
        if event.kind != EventKind::Impression {
            let reward = Reward {
                tenant: event.tenant.clone(),
                decision: shown.decision,
                arm: item.clone(),
                reward: 1.0,
                at_ms: event.accepted_ms,
            };
            counted |= note(ledger.record_reward(&reward));
        }
    }
    counted
}

fn note(recorded: Result<Recorded, skerry_origin_bandit::Error>) -> bool {
    match recorded {
        Ok(recorded) => recorded == Recorded::Counted,
        Err(error) => {
            tracing::error!(%error, "a reward was not counted");
            false
        }
    }
}

/// What the PoP says it showed, or else what this origin answered.
fn shown(answers: &Answers, event: &Event, request: Uid) -> Option<Shown> {
    let explained = answers.explain(&event.tenant, request);
    if let Some(exposure) = explained.exposure {
        let shown = exposure.shown;
        let items = shown
            .items
            .into_iter()
            .map(|item| (item.id, item.source))
            .collect();
        return Some(Shown {
            decision: shown.decision_id,
            surface: shown.surface,
            items,
        });
    }
    let answered = explained.answered?;
    let decision = answered.decision;
    let count = answered.ask.ask.n.get();
    let items = decision
        .candidates
        .into_iter()
        .take(count)
        .map(|one| (one.id, one.source))
        .collect();
    Some(Shown {
        decision: decision.id,
        surface: answered.ask.ask.surface,
        items,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::world;
    use skerry_origin_events::Log;

    #[test]
    fn a_flood_is_dropped_and_counted_and_lag_is_the_time_that_waits() {
        let dir = tempfile::tempdir().unwrap();
        let state = crate::state::State::open(dir.path(), false).unwrap();
        let reader = Log::reader_of(&state.db).unwrap();
        // No worker: what is given waits.
        let (queue, waiting) = sync_channel(2);
        let rewards = Rewards {
            queue,
            kinds: Kinds::default(),
            dropped: AtomicU64::new(0),
            lag: Arc::default(),
        };
        let stored = |seq: u64, change: &dyn Fn(&mut Event)| {
            let mut event = world::event(&format!("e{seq}"), "u", "i", 1_000 * seq);
            event.request_id = Some(Uid::v7(1, 1));
            change(&mut event);
            Stored {
                seq,
                event,
                replaced: None,
            }
        };
        let cases: [(&str, Stored, u64, u64, u64); 7] = [
            (
                "no request",
                stored(1, &|event| event.request_id = None),
                0,
                0,
                0,
            ),
            (
                "imported",
                stored(2, &|event| event.pop = IMPORTED.into()),
                0,
                0,
                0,
            ),
            (
                "no reward",
                stored(3, &|event| event.kind = EventKind::View),
                0,
                0,
                0,
            ),
            ("a like", stored(4, &|_| {}), 1, 0, 0),
            (
                "seen",
                stored(6, &|event| event.kind = EventKind::Impression),
                2,
                2_000,
                0,
            ),
            ("one too many", stored(9, &|_| {}), 2, 5_000, 1),
            ("another", stored(9, &|_| {}), 2, 5_000, 2),
        ];
        for (name, stored, queued, lag_ms, dropped) in cases {
            rewards.apply(&reader, &[stored]);
            let found = (rewards.lag.waiting(), rewards.lag.ms(), rewards.dropped());
            assert_eq!(found, (queued, lag_ms, dropped), "{name}");
        }
        for event in waiting.try_iter() {
            rewards.lag.done(1, event.accepted_ms);
        }
        assert_eq!((rewards.lag.waiting(), rewards.lag.ms()), (0, 0));
    }
}
