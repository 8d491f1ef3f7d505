//! The connection to the origin: made again whenever it is lost, one control stream on it, pushes
//! beside it.
//!
//! Invariants: at most one session, and lines (`line.rs`) while it lasts only; a peer that breaks the
//! protocol loses it and is counted; events go out in order and again from the last acknowledged one on
//! a new connection; nothing here ends the PoP.

use super::endpoint::Endpoints;
use super::frames::{self, FrameError};
use super::health::OBSERVE_MS;
use super::{BROKEN, Inner, Session, push};
use crate::shared::Shared;
use quinn::{ClientConfig, RecvStream, SendStream};
use skerry_types::Tick;
use skerry_wire::frame::{Control, EVENTS_MAX, Hello, PROTOCOL};
use skerry_wire::value::ExposureBytes;
use skerry_wire::{CodecError, decode, encode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Between attempts to connect, in milliseconds: the first wait, doubled up to the longest.
const BACKOFF_MS: (u64, u64) = (50, 1_000);
/// A session that lasted longer ended for reasons of its own: the waits begin anew, in milliseconds.
const LASTED_MS: u64 = 2_000;
/// The origin's greeting must come within this, in milliseconds.
const WELCOME_MS_MAX: u64 = 5_000;
/// Events on their way and not acknowledged, at most.
const UNACKNOWLEDGED_MAX: u64 = 8 * EVENTS_MAX as u64;
/// Bytes of events or exposures in one frame, at most: far below a frame's bound.
const BATCH_BYTES_MAX: u64 = 512 << 10;
/// Exposures go out this often, in milliseconds, and so many at a time: at most 5,000 a second. They
/// are samples for learning; a burst must not take the time of those who serve it.
const EXPOSURES_MS: u64 = 50;
const EXPOSURES_BATCH_MAX: usize = 250;
/// A probe without an answer has failed after this, in milliseconds.
const PROBE_MS_MAX: u64 = 1_000;
/// After being away for longer, what is cached may have missed an invalidation, in milliseconds.
const AWAY_MS_MAX: u64 = 10_000;

/// Why a session with the origin ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("no address for {0}")]
    Address(String),
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the peer speaks protocol {0}")]
    Protocol(u16),
    #[error("a frame that does not belong here")]
    Unexpected,
    #[error("the origin drains")]
    Drained,
}

impl Ended {
    /// The peer's fault, not the network's.
    fn breach(&self) -> Option<&'static str> {
        match self {
            Self::Frame(FrameError::Lost) | Self::Address(_) | Self::Connect(_) | Self::Drained => {
                None
            }
            Self::Frame(error) => Some(error.code()),
            Self::Codec(error) => Some(error.code()),
            Self::Protocol(_) => Some("protocol_version"),
            Self::Unexpected => Some("frame_unexpected"),
        }
    }
}

/// Who we are and whom we call.
pub struct Peer {
    pub origin: String,
    pub tls: ClientConfig,
    pub pop: Arc<str>,
    pub region: Arc<str>,
}

/// What outlives one connection.
struct Link {
    shared: Arc<Shared>,
    inner: Arc<Inner>,
    peer: Peer,
    outbox: mpsc::Receiver<ExposureBytes>,
    /// Last sequence of the invalidation log.
    invalidated: Arc<AtomicU64>,
    left_at: Option<Tick>,
}

/// Keeps the connection up for as long as the future is polled.
pub async fn run(shared: Arc<Shared>, peer: Peer) {
    let inner = shared.origin.inner.clone();
    let Some(outbox) = inner.outbox.lock().take() else {
        return;
    };
    let invalidated = Arc::new(AtomicU64::new(0));
    let mut link = Link {
        shared,
        inner,
        peer,
        outbox,
        invalidated,
        left_at: None,
    };
    let observer = observe(link.inner.clone());
    let connect = async {
        let mut endpoints = Endpoints::default();
        let mut wait_ms = BACKOFF_MS.0;
        loop {
            let started = link.inner.clock.tick();
            let ended = link.session(&mut endpoints).await;
            link.inner.session.send_replace(None);
            let now = link.inner.clock.tick();
            if let Some(code) = ended.breach() {
                link.inner.meter.protocol_error(code);
            }
            let lasted = now.since_ms(started) > LASTED_MS;
            if lasted {
                wait_ms = BACKOFF_MS.0;
                link.left_at = Some(now);
                tracing::warn!(reason = %ended, "the origin is gone");
            } else {
                tracing::debug!(reason = %ended, wait_ms, "no session with the origin");
            }
            // Up to a quarter less, so that PoPs do not come back together.
            let jitter = (link.shared.origin.roll() * 0.25 * wait_ms as f64) as u64;
            tokio::time::sleep(Duration::from_millis(wait_ms - jitter)).await;
            wait_ms = (wait_ms * 2).min(BACKOFF_MS.1);
        }
    };
    tokio::join!(observer, connect);
}

/// Lets the ladder look at the measurements, and sends out probes.
async fn observe(inner: Arc<Inner>) {
    let mut every = tokio::time::interval(Duration::from_millis(OBSERVE_MS));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let connected = inner.is_connected();
        let probe = inner.health.lock().observe(connected, inner.clock.tick());
        if probe {
            inner.ping.notify_one();
        }
        inner
            .meter
            .breaker(inner.health.lock().breaker_state(inner.clock.tick()));
    }
}

impl Link {
    async fn session(&mut self, endpoints: &mut Endpoints) -> Ended {
        let connection = match self.connect(endpoints).await {
            Ok(connection) => connection,
            Err(ended) => return ended,
        };
        let ended = self
            .converse(&connection)
            .await
            .err()
            .unwrap_or(Ended::Unexpected);
        let code = if ended.breach().is_some() {
            BROKEN
        } else {
            super::CANCELLED
        };
        connection.close(code, ended.breach().unwrap_or_default().as_bytes());
        ended
    }

    async fn connect(&self, endpoints: &mut Endpoints) -> Result<quinn::Connection, Ended> {
        let unknown = || Ended::Address(self.peer.origin.clone());
        let mut found = tokio::net::lookup_host(&self.peer.origin)
            .await
            .map_err(|_| unknown())?;
        let addr = found.next().ok_or_else(unknown)?;
        let connecting = endpoints.connect(addr, self.peer.tls.clone());
        connecting.await.map_err(Ended::Connect)
    }

    async fn converse(&mut self, connection: &quinn::Connection) -> Result<(), Ended> {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|_| FrameError::Lost)?;
        let hello = Hello {
            protocol: PROTOCOL,
            pop: self.peer.pop.clone(),
            region: self.peer.region.clone(),
            held: self.shared.held.inventory(),
            invalidated: self.invalidated.load(Ordering::Relaxed),
        };
        frames::write(&mut send, &encode(&Control::Hello(hello))?).await?;
        let wait = Duration::from_millis(WELCOME_MS_MAX);
        let welcome = tokio::time::timeout(wait, frames::read(&mut recv))
            .await
            .map_err(|_| FrameError::Slow)??;
        let Control::Welcome(welcome) = decode(&welcome)? else {
            return Err(Ended::Unexpected);
        };
        if !(PROTOCOL.0..=PROTOCOL.1).contains(&welcome.protocol) {
            return Err(Ended::Protocol(welcome.protocol));
        }
        let now = self.inner.clock.tick();
        if self
            .left_at
            .take()
            .is_some_and(|left| now.since_ms(left) > AWAY_MS_MAX)
        {
            self.shared.cache.soft_purge_all();
        }
        self.inner.health.lock().connected(&welcome.region, now);
        self.inner.session.send_replace(Some(Session {
            connection: connection.clone(),
            tls: self.peer.tls.clone(),
            pop: self.peer.pop.clone(),
        }));
        tracing::info!(region = %welcome.region, addr = %connection.remote_address(), "connected to the origin");
        let (pongs_in, pongs) = mpsc::channel(8);
        let listener = listen(
            self.shared.clone(),
            self.inner.clone(),
            self.invalidated.clone(),
            recv,
            pongs_in,
        );
        let pushes = receive_pushes(self.shared.clone(), connection.clone());
        tokio::select! {
            ended = listener => ended,
            ended = self.speak(send, pongs) => ended,
            () = pushes => Err(FrameError::Lost.into()),
        }
    }

    /// Our side of the control stream.
    async fn speak(
        &mut self,
        mut send: SendStream,
        mut pongs: mpsc::Receiver<u64>,
    ) -> Result<(), Ended> {
        let mut sent = self.shared.spool.acked();
        // Nonce of the ping under way, and when it went out.
        let mut probe: Option<(u64, Tick)> = None;
        let mut nonce = 0;
        let mut every = tokio::time::interval(Duration::from_millis(EXPOSURES_MS));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let acked = self.shared.spool.acked();
            sent = sent.max(acked);
            if sent - acked < UNACKNOWLEDGED_MAX
                && let Some((seq, events)) =
                    self.shared.spool.after(sent, EVENTS_MAX, BATCH_BYTES_MAX)
            {
                let events = events.iter().map(|event| event.as_ref().clone()).collect();
                frames::write(&mut send, &encode(&Control::Events { seq, events })?).await?;
                sent = seq;
                continue;
            }
            let expires =
                probe.map(|(_, at)| at.plus_ms(PROBE_MS_MAX).since_ms(self.inner.clock.tick()));
            tokio::select! {
                () = self.shared.spool.changed() => {}
                _ = every.tick() => self.send_exposures(&mut send).await?,
                () = self.inner.ping.notified(), if probe.is_none() => {
                    nonce += 1;
                    frames::write(&mut send, &encode(&Control::Ping { nonce })?).await?;
                    probe = Some((nonce, self.inner.clock.tick()));
                }
                Some(pong) = pongs.recv() => {
                    if probe.is_some_and(|(nonce, _)| nonce == pong) {
                        probe = None;
                        self.inner.health.lock().probed(true, self.inner.clock.tick());
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(expires.unwrap_or(0))), if expires.is_some() => {
                    probe = None;
                    self.inner.health.lock().probed(false, self.inner.clock.tick());
                }
            }
        }
    }

    /// Sends what is queued, one frame of it.
    async fn send_exposures(&mut self, send: &mut SendStream) -> Result<(), Ended> {
        let mut bytes = 0;
        let mut exposures = Vec::new();
        while exposures.len() < EXPOSURES_BATCH_MAX
            && bytes < BATCH_BYTES_MAX
            && let Ok(one) = self.outbox.try_recv()
        {
            bytes += one.0.len() as u64;
            exposures.push(one);
        }
        if exposures.is_empty() {
            return Ok(());
        }
        Ok(frames::write(send, &encode(&Control::Exposures { exposures })?).await?)
    }
}

/// The origin's side of the control stream.
async fn listen(
    shared: Arc<Shared>,
    inner: Arc<Inner>,
    invalidated: Arc<AtomicU64>,
    mut recv: RecvStream,
    pongs: mpsc::Sender<u64>,
) -> Result<(), Ended> {
    loop {
        match decode(&frames::read(&mut recv).await?)? {
            Control::Ack { seq } => shared.spool.ack(seq),
            // A full queue means that nobody waits for it any more.
            Control::Pong { nonce } => drop(pongs.try_send(nonce)),
            Control::Region(state) => inner.health.lock().heed(&state, inner.clock.tick()),
            Control::Invalidate { seq, tags } => {
                let last = invalidated.load(Ordering::Relaxed);
                // What was seen before comes again after a reconnection.
                if seq > last {
                    if seq > last + 1 && last > 0 {
                        shared.cache.soft_purge_all();
                    }
                    tags.iter().for_each(|tag| shared.cache.purge(tag));
                    invalidated.store(seq, Ordering::Relaxed);
                }
            }
            Control::Drain { within_ms } => {
                // What is in flight may end; new questions find no connection.
                inner.session.send_replace(None);
                tracing::info!(within_ms, "the origin drains");
                tokio::time::sleep(Duration::from_millis(u64::from(within_ms.min(10_000)))).await;
                return Err(Ended::Drained);
            }
            Control::Hello(_)
            | Control::Welcome(_)
            | Control::Events { .. }
            | Control::Exposures { .. }
            | Control::Ping { .. }
            | Control::Line(_) => return Err(Ended::Unexpected),
        }
    }
}

/// Takes pushes until the connection is lost; QUIC bounds how many come at once.
async fn receive_pushes(shared: Arc<Shared>, connection: quinn::Connection) {
    let mut running = tokio::task::JoinSet::new();
    while let Ok(stream) = connection.accept_uni().await {
        while running.try_join_next().is_some() {}
        let shared = shared.clone();
        running.spawn(async move {
            match push::receive(&shared, stream).await {
                Ok(header) => {
                    tracing::info!(
                        kind = header.kind.as_str(),
                        epoch = header.epoch,
                        bytes = header.bytes,
                        "push"
                    );
                    shared.meter.pushed(header.kind.as_str(), "used");
                }
                Err(error) => {
                    tracing::warn!(code = error.code(), %error, "a push is refused");
                    shared.meter.pushed("refused", error.code());
                }
            }
        });
    }
}
