//! Keeps the user index as the events are: what changed is written again a little later, and all of it
//! when a new model brings a new space.
//!
//! Invariants: nothing that changed is forgotten (too much at once makes it write all again; a
//! process that ended goes on where it was); it takes a bounded share of one core, a start and a new
//! model apart.

use super::{UserIndex, record, record_id};
use crate::Error;
use crate::hub::Hub;
use crate::service::Service;
use parking_lot::{Condvar, Mutex};
use skerry_origin_core::history;
use skerry_origin_events::{Consumer, Reader, Stored};
use skerry_types::TenantId;
use skerry_vector_index::Write;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Users that may wait to be written again.
const CHANGED_MAX: usize = 100_000;
/// Users of one write.
const WRITE_USERS: usize = 500;
/// Between looks, in milliseconds: what changes meanwhile is written once.
const LOOK_MS: u64 = 1_000;
/// After a write that failed, in milliseconds.
const RETRY_MS: u64 = 2_000;
/// It rests so many times as long as it worked.
const REST_TIMES: u32 = 4;
/// Longest rest, in milliseconds.
const REST_MS_MAX: u64 = 10_000;
/// Events read from the log at once.
const REPLAY_EVENTS: usize = 10_000;
/// Name in the state of what the index holds: the model's number, and the position of the log.
const HELD: &str = "user_index";

/// Users whose events changed.
#[derive(Default)]
pub struct Changed {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    subjects: HashSet<Box<str>>,
    /// There were too many: all are written again.
    all: bool,
    stop: bool,
}

impl Changed {
    fn add(&self, subject: &str) {
        let mut waiting = self.waiting.lock();
        if waiting.subjects.len() >= CHANGED_MAX {
            waiting.subjects.clear();
            waiting.all = true;
        }
        if !waiting.all && !waiting.subjects.contains(subject) {
            waiting.subjects.insert(subject.into());
        }
    }

    pub fn add_all(&self) {
        self.waiting.lock().all = true;
    }

    fn take(&self, most: usize) -> Vec<Box<str>> {
        let mut waiting = self.waiting.lock();
        let some: Vec<Box<str>> = waiting.subjects.iter().take(most).cloned().collect();
        for subject in &some {
            waiting.subjects.remove(subject);
        }
        some
    }

    /// Users that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.lock().subjects.len()
    }

    fn is_stopped(&self) -> bool {
        self.waiting.lock().stop
    }

    /// Ends [`run`].
    fn stop(&self) {
        self.waiting.lock().stop = true;
        self.bell.notify_all();
    }

    /// Waits; false at the end.
    fn rest(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut waiting = self.waiting.lock();
        while !waiting.stop {
            if self.bell.wait_until(&mut waiting, until).timed_out() {
                return true;
            }
        }
        false
    }
}

/// Hears of events.
pub struct Follow(pub TenantId, pub Arc<UserIndex>);

impl Consumer for Follow {
    fn apply(&self, _: &Reader, batch: &[Stored]) {
        for stored in batch {
            let old = stored.replaced.as_deref();
            for event in std::iter::once(&stored.event).chain(old) {
                if let Some(user) = &event.user
                    && event.tenant == self.0
                    && event.kind.is_history()
                {
                    self.1.changed.add(&format!("u:{user}"));
                }
            }
        }
    }

    /// What it derives is in the index, with a position of its own.
    fn flush(&self, _: u64) {}
}

/// What the index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Held {
    model: u64,
    seq: u64,
}

impl Held {
    fn read(hub: &Hub) -> Result<Self, Error> {
        let bytes = hub.state.get(HELD)?;
        let number = |at: usize| -> Option<u64> {
            let bytes = bytes.as_ref()?.get(at..at + 8)?;
            Some(u64::from_be_bytes(bytes.try_into().ok()?))
        };
        Ok(Self {
            model: number(0).unwrap_or(0),
            seq: number(8).unwrap_or(0),
        })
    }

    fn write(self, hub: &Hub) -> Result<(), Error> {
        let bytes = [self.model.to_be_bytes(), self.seq.to_be_bytes()].concat();
        hub.state.put(HELD, &bytes)
    }
}

/// Stops the work when it is dropped: with the origin, however that ends.
pub struct Ending(pub Arc<UserIndex>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.changed.stop();
    }
}

/// Works until [`Changed::stop`]. Blocking.
pub fn run(hub: &Hub) {
    let changed = &hub.similar.changed;
    let mut caught_up = false;
    let mut pause = Duration::ZERO;
    while changed.rest(pause) {
        let began = Instant::now();
        let done = step(hub, &mut caught_up);
        let worked = began.elapsed() * REST_TIMES;
        let longest = Duration::from_millis(REST_MS_MAX);
        pause = match done {
            Ok(()) => worked.clamp(Duration::from_millis(LOOK_MS), longest),
            Err(error) => {
                tracing::warn!(%error, "the user index is behind");
                Duration::from_millis(RETRY_MS)
            }
        };
    }
}

fn step(hub: &Hub, caught_up: &mut bool) -> Result<(), Error> {
    let Some(service) = hub.service.load_full() else {
        return Ok(());
    };
    let held = Held::read(hub)?;
    let all = hub.similar.changed.waiting.lock().all;
    if held.model != service.about.number || all {
        return write_all(hub, &service);
    }
    if !*caught_up {
        replay(hub, held.seq)?;
        *caught_up = true;
    }
    // Read first: what is appended from here on waits in `changed`, or comes after the position.
    let seq = hub.log.reader().last_seq()?;
    loop {
        let some = hub.similar.changed.take(WRITE_USERS);
        if some.is_empty() {
            break;
        }
        write(hub, &service, &some)?;
        if hub.similar.changed.is_stopped() {
            // The position stays: what is left is found again from there.
            return Ok(());
        }
    }
    if seq > held.seq {
        let model = held.model;
        Held { model, seq }.write(hub)?;
    }
    Ok(())
}

/// Every user of whom there is a context.
fn write_all(hub: &Hub, service: &Service) -> Result<(), Error> {
    let began = Instant::now();
    hub.similar.changed.waiting.lock().all = false;
    let seq = hub.log.reader().last_seq()?;
    let mut after: Option<String> = None;
    let mut count = 0;
    loop {
        let page = hub
            .features
            .subjects(&hub.tenant, after.as_deref(), WRITE_USERS)?;
        let Some(last) = page.last() else {
            break;
        };
        after = Some(last.clone());
        let users = page.iter().filter(|subject| subject.starts_with("u:"));
        let users: Vec<Box<str>> = users.map(|subject| subject.as_str().into()).collect();
        count += users.len();
        let written = write(hub, service, &users);
        // A newer model writes all again.
        let stop = hub.similar.changed.is_stopped();
        let newer = |now: &Arc<Service>| now.about.number != service.about.number;
        if written.is_err() || stop || hub.service.load().as_ref().is_some_and(newer) {
            return written;
        }
    }
    let model = service.about.number;
    Held { model, seq }.write(hub)?;
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(users = count, ms, model = %service.model.version(), "the user index is of this model");
    Ok(())
}

/// Notes the users of events after a position: those that a process before this one had not written.
fn replay(hub: &Hub, mut after: u64) -> Result<(), Error> {
    loop {
        let each = &mut |_, event: skerry_types::Event| {
            if let Some(user) = &event.user
                && event.kind.is_history()
            {
                hub.similar.changed.add(&format!("u:{user}"));
            }
        };
        let (_, last) = hub
            .log
            .reader()
            .replay(&hub.tenant, after, REPLAY_EVENTS, each)?;
        if last == after {
            return Ok(());
        }
        after = last;
    }
}

/// Writes users as their events are now; those without a taste are taken out. What fails waits again.
fn write(hub: &Hub, service: &Service, subjects: &[Box<str>]) -> Result<(), Error> {
    // An erasure comes before what is read here, or after what is written.
    let _one_at_a_time = hub.similar.writing.lock();
    let result = writes(hub, service, subjects).and_then(|writes| hub.similar.write(writes));
    if result.is_err() {
        let again = subjects.iter();
        again.for_each(|subject| hub.similar.changed.add(subject));
    }
    result
}

fn writes(hub: &Hub, service: &Service, subjects: &[Box<str>]) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::with_capacity(subjects.len());
    for subject in subjects {
        let Some(user) = subject.strip_prefix("u:") else {
            continue;
        };
        let context = hub.features.context(&hub.tenant, subject)?;
        let vector =
            context.and_then(|context| service.model.vector_of(&history(service, &context)));
        let nonzero = vector.filter(|vector| vector.iter().any(|value| *value != 0.0));
        writes.push(match nonzero {
            Some(vector) => record(&hub.tenant, user, service.about.number, &vector),
            None => Write::Delete(record_id(&hub.tenant, user).into()),
        });
    }
    Ok(writes)
}
