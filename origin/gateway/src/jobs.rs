//! Imports: at the start and on request, one at a time, each with its progress and errors.

use crate::hub::Hub;
use crate::imports::{self, Sink, Stamp, Summary};
use crate::{Data, Error, Progress, Step};
use parking_lot::Mutex;
use skerry_origin_events::{IMPORTED, Mode};
use skerry_types::{Event, Item, Millis, Uid};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Jobs remembered.
const JOBS_MAX: usize = 100;

/// Where an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    Running,
    Done,
    Failed,
}

impl JobState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// One import.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: Uid,
    pub path: PathBuf,
    pub state: JobState,
    pub started_ms: Millis,
    pub ended_ms: Option<Millis>,
    pub rows: u64,
    pub summary: Option<Summary>,
    pub changed: Changed,
    pub failure: Option<String>,
}

/// What an import changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    pub items_new: u64,
    pub items_changed: u64,
    pub events_new: u64,
    pub events_replaced: u64,
    pub events_duplicate: u64,
}

impl Changed {
    pub fn anything(&self) -> bool {
        self.items_new + self.items_changed + self.events_new + self.events_replaced > 0
    }
}

/// The jobs of this process.
#[derive(Default)]
pub struct Jobs {
    jobs: Mutex<VecDeque<Job>>,
    running: Mutex<()>,
}

impl Jobs {
    pub fn get(&self, id: Uid) -> Option<Job> {
        self.jobs.lock().iter().find(|job| job.id == id).cloned()
    }

    /// Notes an import that is about to run. `None` where [`JOBS_MAX`] are running.
    pub fn add(&self, hub: &Hub, path: PathBuf) -> Option<Uid> {
        let mut jobs = self.jobs.lock();
        if jobs.len() >= JOBS_MAX {
            let ended = jobs.iter().position(|job| job.state != JobState::Running)?;
            jobs.remove(ended);
        }
        let id = hub.fresh_id();
        jobs.push_back(Job {
            id,
            path,
            state: JobState::Running,
            started_ms: hub.now(),
            ended_ms: None,
            rows: 0,
            summary: None,
            changed: Changed::default(),
            failure: None,
        });
        Some(id)
    }

    /// Runs an import that was added. Blocking.
    pub fn run(&self, hub: &Hub, id: Uid) {
        let Some(job) = self.get(id) else { return };
        let progress: Progress = Arc::new(|_| {});
        let update = |change: &mut dyn FnMut(&mut Job)| {
            if let Some(job) = self.jobs.lock().iter_mut().find(|job| job.id == id) {
                change(job);
            }
        };
        let result = {
            let _one_at_a_time = self.running.lock();
            let rows = |rows| update(&mut |job| job.rows = rows);
            import(hub, &Data::Path(job.path), &progress, &rows)
        };
        let now = hub.now();
        update(&mut |job| {
            job.ended_ms = Some(now);
            match &result {
                Ok((summary, changed)) => {
                    job.rows = summary.rows;
                    (job.summary, job.changed, job.state) =
                        (Some(summary.clone()), *changed, JobState::Done);
                }
                Err(error) => {
                    (job.failure, job.state) = (Some(error.to_string()), JobState::Failed)
                }
            }
        });
    }
}

struct Store<'a> {
    hub: &'a Hub,
    progress: &'a Progress,
    rows: &'a dyn Fn(u64),
    counts: [AtomicU64; 5],
}

impl Store<'_> {
    fn add(&self, at: usize, by: usize) {
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(by as u64, Ordering::Relaxed);
        }
    }

    fn changed(&self) -> Changed {
        let [
            items_new,
            items_changed,
            events_new,
            events_replaced,
            events_duplicate,
        ] = std::array::from_fn(|at| {
            self.counts
                .get(at)
                .map_or(0, |count| count.load(Ordering::Relaxed))
        });
        Changed {
            items_new,
            items_changed,
            events_new,
            events_replaced,
            events_duplicate,
        }
    }
}

impl Sink for Store<'_> {
    fn items(&self, items: Vec<Item>) -> Result<(), Error> {
        let written = self.hub.catalog.put(items)?;
        self.add(0, written.new);
        self.add(1, written.changed);
        Ok(())
    }

    fn events(&self, events: Vec<Event>) -> Result<(), Error> {
        let appended = self.hub.log.append(events, Mode::Upsert, self.hub.now())?;
        self.add(2, appended.new);
        self.add(3, appended.replaced);
        self.add(4, appended.duplicate);
        Ok(())
    }

    fn progress(&self, rows: u64) {
        (self.rows)(rows);
        (self.progress)(Step::Import { rows });
    }
}

/// Imports `data`: what is new is added, what differs is replaced, nothing is deleted. Blocking.
pub fn import(
    hub: &Hub,
    data: &Data,
    progress: &Progress,
    rows: &dyn Fn(u64),
) -> Result<(Summary, Changed), Error> {
    let store = Store {
        hub,
        progress,
        rows,
        counts: Default::default(),
    };
    let summary = match data {
        Data::Path(path) => {
            let stamp = Stamp {
                tenant: hub.tenant.clone(),
                now: hub.now(),
                region: Arc::clone(&hub.options.region),
            };
            imports::read(path, &stamp, &store)?
        }
        Data::Made { items, events, .. } => {
            for chunk in items.chunks(imports::ROWS_AT_ONCE) {
                store.items(chunk.to_vec())?;
            }
            let mut summary = Summary {
                items: items.len() as u64,
                ..Summary::default()
            };
            for chunk in events.chunks(imports::ROWS_AT_ONCE) {
                let mut chunk = chunk.to_vec();
                for event in &mut chunk {
                    event.pop = Arc::from(IMPORTED);
                }
                summary.events += chunk.len() as u64;
                store.events(chunk)?;
                summary.rows = summary.items + summary.events;
                store.progress(summary.rows);
            }
            summary
        }
    };
    let changed = store.changed();
    for error in summary.errors.iter().take(10) {
        tracing::warn!(file = %error.file, line = error.line, column = error.column.as_deref().unwrap_or_default(), code = error.code, detail = %error.detail, "a row was not imported");
    }
    if summary.errors_total > 10 {
        tracing::warn!(rows = summary.errors_total, "rows were not imported");
    }
    Ok((summary, changed))
}
