//! From events to the bandit's statistics: an impression is an exposure of what was seen, a positive
//! event (click, like, add to cart, purchase, or as configured) is a reward, both attributed through the answer's `request_id`.
//!
//! Works behind the log, from a bounded queue: under a flood of events rewards are dropped (and
//! counted), events never are. The ledger counts each exposure and reward once, so that a replay
//! changes nothing.

use crate::kinds::Kinds;
use skerry_origin_bandit::{Exposure, Ledger, Recorded, Reward};
use skerry_origin_events::{Answers, Consumer, IMPORTED, Reader, Stored};
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
        std::thread::Builder::new()
            .name("rewards".to_owned())
            .spawn(move || {
                while let Ok(event) = events.recv() {
                    if record(&ledger, &answers, &event) {
                        changed.store(true, Ordering::Relaxed);
                    }
                }
            })?;
        Ok(Self {
            queue,
            kinds,
            dropped: AtomicU64::new(0),
        })
    }
}

impl Consumer for Rewards {
    fn apply(&self, _: &Reader, batch: &[Stored]) {
        for stored in batch {
            let event = &stored.event;
            let matters =
                event.kind == EventKind::Impression || self.kinds.taste(event) == Taste::Positive;
            if matters
                && event.request_id.is_some()
                && &*event.pop != IMPORTED
                && self.queue.try_send(event.clone()).is_err()
                && self.dropped.fetch_add(1, Ordering::Relaxed) == 0
            {
                tracing::warn!("rewards fall behind events: some are not counted");
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
    let decision = answered.answer.outcome.ok()?.decision;
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
