//! The way to the origin: whether to ask it, the asking, and what is sent off the user's path.
//!
//! Invariants: a question never waits past its deadline and costs nothing where there is no live
//! connection or the breaker is not closed for its user; concurrent questions with one key are one
//! question; overload feeds the throttle, never the breaker; probes are pings, never users.

mod endpoint;
mod flight;
mod frames;
mod health;
mod line;
mod link;
pub mod push;
#[cfg(test)]
mod testing;
mod tls;

pub use line::Line;
pub use link::{Peer, run};
pub use tls::client_config;

use crate::clock::Clock;
use crate::meter::Meter;
use bytes::Bytes;
use flight::Flights;
use health::Health;
use parking_lot::Mutex;
use skerry_resilience::latency::JUDGED_DEADLINE_MS_MIN;
use skerry_resilience::{Call, CallEnd, Outcome, Plan};
use skerry_types::Tick;
use skerry_wire::decode;
use skerry_wire::frame::{AnswerFrame, RefusalCode};
use skerry_wire::value::ExposureBytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

/// Exposures that wait to be sent, at most; beyond them they are dropped and counted.
const EXPOSURES_MAX: usize = 8_192;
/// Application error codes on QUIC streams and connections.
const CANCELLED: quinn::VarInt = quinn::VarInt::from_u32(1);
const BROKEN: quinn::VarInt = quinn::VarInt::from_u32(2);

/// Why the origin gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("no live connection")]
    Down,
    #[error("no answer in time")]
    Timeout,
    #[error("the origin is overloaded")]
    Overloaded,
    #[error("the origin failed")]
    Failed,
    #[error("the origin refused the question")]
    Refused,
}

impl AskError {
    pub const ALL: [Self; 5] = [
        Self::Down,
        Self::Timeout,
        Self::Overloaded,
        Self::Failed,
        Self::Refused,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// The origin, as the request path sees it. Cheap to clone.
#[derive(Clone)]
pub struct Origin {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    meter: Meter,
    /// The session with the origin, while there is one that takes questions.
    session: watch::Sender<Option<Session>>,
    health: Mutex<Health>,
    flights: Flights,
    exposures: mpsc::Sender<ExposureBytes>,
    /// Taken by the link when it starts.
    outbox: Mutex<Option<mpsc::Receiver<ExposureBytes>>>,
    /// Something for the control stream: a ping is due.
    ping: Notify,
    rolls: AtomicU64,
    /// Carries the session.
    runtime: Handle,
}

/// A connection whose greeting is over, and what further ones to the same origin take.
#[derive(Clone)]
struct Session {
    connection: quinn::Connection,
    tls: quinn::ClientConfig,
    pop: Arc<str>,
}

impl Origin {
    /// Not connected yet; call inside the runtime that shall carry the connection.
    #[must_use]
    pub fn new(clock: Clock, meter: Meter, seed: u64) -> Self {
        let (exposures, outbox) = mpsc::channel(EXPOSURES_MAX);
        let inner = Inner {
            clock,
            meter,
            session: watch::Sender::new(None),
            health: Mutex::new(Health::new(seed)),
            flights: Flights::default(),
            exposures,
            outbox: Mutex::new(Some(outbox)),
            ping: Notify::new(),
            rolls: AtomicU64::new(seed),
            runtime: Handle::current(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Where the ladder stands for a subject.
    #[must_use]
    pub fn plan(&self, subject_hash: u64, left_ms: u32, pool: bool) -> Plan {
        let inner = &self.inner;
        let connected = inner.is_connected();
        inner.health.lock().plan(
            subject_hash,
            left_ms,
            connected,
            pool,
            self.roll(),
            inner.clock.tick(),
        )
    }

    /// Uniform in [0, 1).
    fn roll(&self) -> f64 {
        let count = self.inner.rolls.fetch_add(1, Ordering::Relaxed);
        let hash = xxhash_rust::xxh3::xxh3_64(&count.to_le_bytes());
        (hash >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One question, or a share in the one that is under way with the same key. It goes over the
    /// caller's line, where that is up.
    pub async fn ask(
        &self,
        line: &Line,
        key: Vec<u8>,
        question: Bytes,
        left_ms: u32,
    ) -> Result<Bytes, AskError> {
        let shared = self.inner.connection().ok_or(AskError::Down)?;
        let (connection, runtime) = match line.connection() {
            Some(own) => (own, Handle::current()),
            None => (shared, self.inner.runtime.clone()),
        };
        let inner = self.inner.clone();
        let ask = move || async move { inner.exchange(&connection, &question, left_ms).await };
        let answer = self.inner.flights.join(&runtime, key, ask);
        let answered =
            tokio::time::timeout(Duration::from_millis(u64::from(left_ms)), answer).await;
        answered.unwrap_or(Err(AskError::Timeout))
    }

    /// Queues what was shown, where anything was; drops it where the queue is full.
    pub fn expose(&self, exposure: Vec<u8>) {
        if exposure.is_empty() {
            return;
        }
        if self
            .inner
            .exposures
            .try_send(ExposureBytes(exposure))
            .is_err()
        {
            self.inner.meter.exposure_dropped();
        }
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }

    /// State of the breaker, for metrics and the curious.
    #[must_use]
    pub fn breaker(&self) -> &'static str {
        self.inner
            .health
            .lock()
            .breaker_state(self.inner.clock.tick())
            .as_str()
    }
}

impl Inner {
    fn is_connected(&self) -> bool {
        self.session.borrow().is_some()
    }

    /// The session's own.
    fn connection(&self) -> Option<quinn::Connection> {
        let session = self.session.borrow();
        session.as_ref().map(|session| session.connection.clone())
    }

    /// Asks over the wire and tells the state machines how it went.
    async fn exchange(
        &self,
        connection: &quinn::Connection,
        question: &[u8],
        left_ms: u32,
    ) -> Result<Bytes, AskError> {
        let started = self.clock.tick();
        let wait = Duration::from_millis(u64::from(left_ms));
        let result = self.call(connection, question, wait).await;
        let took_us = self.clock.tick().since_us(started);
        self.meter.asked(took_us, result.as_ref().err().copied());
        self.report(&result, took_us, left_ms, self.clock.tick());
        result
    }

    async fn call(
        &self,
        connection: &quinn::Connection,
        question: &[u8],
        wait: Duration,
    ) -> Result<Bytes, AskError> {
        let deadline = tokio::time::Instant::now() + wait;
        let opened = tokio::time::timeout_at(deadline, connection.open_bi()).await;
        let (mut send, mut recv) = opened
            .map_err(|_| AskError::Timeout)?
            .map_err(|_| AskError::Down)?;
        let exchange = async {
            frames::write(&mut send, question)
                .await
                .map_err(|_| AskError::Failed)?;
            let _ = send.finish();
            frames::read_only(&mut recv)
                .await
                .map_err(|error| match error {
                    frames::FrameError::Lost => AskError::Down,
                    error => {
                        self.meter.protocol_error(error.code());
                        AskError::Failed
                    }
                })
        };
        match tokio::time::timeout_at(deadline, exchange).await {
            Ok(answer) => judge(answer?),
            Err(_) => {
                // The origin need not go on.
                let _ = send.reset(CANCELLED);
                let _ = recv.stop(CANCELLED);
                Err(AskError::Timeout)
            }
        }
    }

    fn report(&self, result: &Result<Bytes, AskError>, took_us: u64, left_ms: u32, now: Tick) {
        let (outcome, end) = match result {
            Ok(_) | Err(AskError::Refused) => (Some(Outcome::Ok), CallEnd::Answered),
            Err(AskError::Overloaded) => (Some(Outcome::Overload), CallEnd::Shed),
            // A caller in a hurry says nothing of the origin.
            Err(AskError::Timeout) if left_ms < JUDGED_DEADLINE_MS_MIN => (None, CallEnd::Cut),
            Err(AskError::Timeout | AskError::Down | AskError::Failed) => {
                (Some(Outcome::Failure), CallEnd::Cut)
            }
        };
        let call = Call {
            end,
            took_us,
            deadline_ms: left_ms,
        };
        if let Some(opened) = self.health.lock().report(outcome, call, now) {
            tracing::warn!(breaker = opened, "the origin's breaker changed");
        }
    }
}

/// An answer goes to the worker as it is; a refusal is for the state machines.
fn judge(answer: Vec<u8>) -> Result<Bytes, AskError> {
    if !skerry_wire::frame::is_refusal(&answer) {
        return Ok(answer.into());
    }
    let frame: AnswerFrame = decode(&answer).map_err(|_| AskError::Failed)?;
    match frame.outcome.err().map(|refusal| refusal.code) {
        None => Ok(answer.into()),
        Some(RefusalCode::Overloaded) => Err(AskError::Overloaded),
        Some(RefusalCode::Deadline) => Err(AskError::Timeout),
        Some(RefusalCode::Draining | RefusalCode::NotReady) => Err(AskError::Overloaded),
        Some(RefusalCode::Bad) => Err(AskError::Refused),
        Some(RefusalCode::Internal) => Err(AskError::Failed),
    }
}
