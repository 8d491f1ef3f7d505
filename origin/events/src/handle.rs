//! What everybody holds of the log: appends go into the writer's queue, reads go past it.

use crate::Error;
use crate::commit::{Appended, Command, Consumer, Done, Mode, Writer};
use crate::lag::Lag;
use crate::log::Reader;
use fjall::Database;
use parking_lot::Mutex;
use skerry_types::{Event, Millis, TenantId};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

/// Appends that may wait, in batches.
pub const QUEUE_BATCHES_MAX: usize = 256;

/// The log. Clones share it; the writer ends, flushed, with the last clone.
#[derive(Clone)]
pub struct Log {
    reader: Reader,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Option<SyncSender<Command>>>,
    lag: Arc<Lag>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        close(self);
    }
}

fn close(shared: &Shared) {
    shared.queue.lock().take();
    if let Some(writer) = shared.writer.lock().take() {
        let _ = writer.join();
    }
}

impl Log {
    /// Opens the log in a database. `consumers` are told of each new event; bring them up to date
    /// with [`Reader::replay`] first (`Log::reader_of` gives one).
    pub fn open(db: &Database, consumers: Vec<Arc<dyn Consumer>>) -> Result<Self, Error> {
        let reader = Reader::open(db)?;
        let (queue, commands) = sync_channel(QUEUE_BATCHES_MAX);
        let mut writer = Writer::open(db.clone(), reader.clone(), consumers)?;
        let thread = std::thread::Builder::new()
            .name("event-log".to_owned())
            .spawn(move || writer.run(&commands))
            .map_err(|error| Error::Store(error.to_string()))?;
        let shared = Shared {
            queue: Mutex::new(Some(queue)),
            lag: Arc::default(),
            writer: Mutex::new(Some(thread)),
        };
        Ok(Self {
            reader,
            shared: Arc::new(shared),
        })
    }

    /// A reader before the log is open.
    pub fn reader_of(db: &Database) -> Result<Reader, Error> {
        Reader::open(db)
    }

    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// How far the consumers that an acknowledgement waits for are behind what was submitted.
    #[must_use]
    pub fn lag(&self) -> &Lag {
        &self.shared.lag
    }

    /// Appends without waiting; `done` is called by the writer once the events are durable and the
    /// consumers have them. Gives the events back with [`Error::Busy`] where [`QUEUE_BATCHES_MAX`]
    /// wait already.
    pub fn submit(
        &self,
        events: Vec<Event>,
        mode: Mode,
        now: Millis,
        done: impl FnOnce(Result<Appended, Error>) + Send + 'static,
    ) -> Result<(), (Error, Vec<Event>)> {
        let accepted = || events.iter().map(|event| event.accepted_ms);
        let count = events.len() as u64;
        let (oldest, newest) = (accepted().min().unwrap_or(0), accepted().max().unwrap_or(0));
        let lag = Arc::clone(&self.shared.lag);
        let command = Command::Append {
            events,
            mode,
            now,
            done: Box::new(move |result| {
                lag.done(count, newest);
                done(result);
            }),
        };
        let lag = &self.shared.lag;
        lag.given(count, oldest, newest);
        let queue = self.shared.queue.lock();
        let sent = match queue.as_ref() {
            Some(queue) => queue.try_send(command),
            None => Err(TrySendError::Disconnected(command)),
        };
        match sent {
            Ok(()) => Ok(()),
            Err(refused) => {
                lag.done(count, 0);
                Err(match refused {
                    TrySendError::Full(command) => (Error::Busy, command.into_events()),
                    TrySendError::Disconnected(command) => (Error::Closed, command.into_events()),
                })
            }
        }
    }

    /// Appends and waits.
    pub fn append(&self, events: Vec<Event>, mode: Mode, now: Millis) -> Result<Appended, Error> {
        self.wait(|done| Command::Append {
            events,
            mode,
            now,
            done,
        })
    }

    /// Removes a user's events, and refuses for ever those accepted before `now`. The count of
    /// removed events comes back as `erased`.
    pub fn erase(&self, tenant: &TenantId, subject: &str, now: Millis) -> Result<Appended, Error> {
        let (tenant, subject) = (tenant.clone(), Box::from(subject));
        self.wait(|done| Command::Erase {
            tenant,
            subject,
            now,
            done,
        })
    }

    /// Makes the consumers write what they derived.
    pub fn flush(&self) -> Result<(), Error> {
        self.wait(|done| Command::Flush { done }).map(|_| ())
    }

    /// Finishes what waits, flushes and stops. Later calls are answered [`Error::Closed`].
    pub fn close(&self) {
        close(&self.shared);
    }

    fn wait(&self, command: impl FnOnce(Done) -> Command) -> Result<Appended, Error> {
        let (sender, receiver) = sync_channel(1);
        let done: Done = Box::new(move |result| {
            let _ = sender.send(result);
        });
        let queue = self.shared.queue.lock().clone().ok_or(Error::Closed)?;
        queue.send(command(done)).map_err(|_| Error::Closed)?;
        drop(queue);
        receiver.recv().map_err(|_| Error::Closed)?
    }
}
