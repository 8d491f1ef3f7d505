//! The QUIC front: PoPs with a certificate of ours connect, ask, deliver events and are pushed to.
//!
//! Invariants: a peer without a valid `pop` certificate gets nothing; connections, streams,
//! questions at once, frames and the time for one are bounded; what breaks the protocol closes its
//! stream (a question) or its connection (control) with a code, is counted, and never panics; an
//! acknowledged event is durable; a drain finishes what is in flight.

mod connection;
pub mod frames;
mod push;

use crate::counters::Counters;
use crate::hub::{Hub, News};
use crate::tls::{Keys, Peer, peer_of};
use crate::{Error, Limits};
use quinn::{
    Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls_pki_types::CertificateDer;
use skerry_wire::frame::SOCKET_BYTES;
use socket2::SockRef;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why we close a connection or stop a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    Drained = 0,
    Garbage = 1,
    TooLarge = 2,
    TooSlow = 3,
    Forbidden = 4,
    Version = 5,
    Store = 6,
    Crowded = 7,
}

impl Close {
    pub fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    fn of(error: &frames::FrameError) -> Self {
        match error {
            frames::FrameError::Large(_) => Self::TooLarge,
            frames::FrameError::Slow => Self::TooSlow,
            _ => Self::Garbage,
        }
    }

    pub fn reason(self) -> &'static [u8] {
        match self {
            Self::Drained => b"drained",
            Self::Garbage => b"not a frame",
            Self::TooLarge => b"a frame is too large",
            Self::TooSlow => b"a frame was not finished in time",
            Self::Forbidden => b"the certificate does not say pop",
            Self::Version => b"no common protocol version",
            Self::Store => b"events cannot be stored",
            Self::Crowded => b"too many connections",
        }
    }
}

/// Binds the endpoint.
pub fn listen(addr: SocketAddr, keys: &Keys, limits: &Limits) -> Result<Endpoint, Error> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams_max))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(limits.stream_window_bytes))
        .receive_window(VarInt::from_u32(limits.connection_window_bytes))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(VarInt::from_u32(limits.idle_ms).into()));
    let mut config = ServerConfig::with_crypto(Arc::new(keys.server()?));
    config
        .transport_config(Arc::new(transport))
        .max_incoming(limits.connections_max);
    let bound = UdpSocket::bind(addr).and_then(|socket| {
        // As much as the kernel gives: less costs datagrams in a burst, and nothing else.
        let _ = SockRef::from(&socket).set_recv_buffer_size(SOCKET_BYTES);
        let runtime = Arc::new(TokioRuntime);
        Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)
    });
    bound.map_err(|error| Error::Listen {
        addr,
        reason: error.to_string(),
    })
}

/// Accepts connections until `drain`; then finishes, within the limit, and closes.
pub async fn serve(hub: Arc<Hub>, endpoint: Endpoint, drain: CancellationToken) {
    let tasks = TaskTracker::new();
    let asks = Arc::new(Semaphore::new(hub.options.limits.asks_max));
    let connections = Arc::new(Semaphore::new(hub.options.limits.connections_max));
    let stop = CancellationToken::new();
    loop {
        let incoming = tokio::select! {
            () = drain.cancelled() => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            hub.counters
                .connections_refused
                .fetch_add(1, Ordering::Relaxed);
            incoming.refuse();
            continue;
        };
        let (hub, asks, stop) = (Arc::clone(&hub), Arc::clone(&asks), stop.clone());
        tasks.spawn(async move {
            accept(hub, incoming, asks, stop).await;
            drop(permit);
        });
    }
    hub.draining.store(true, Ordering::Relaxed);
    let _ = hub.news.send(News::Drain);
    let patience = Duration::from_millis(hub.options.limits.drain_ms);
    let all = u32::try_from(hub.options.limits.asks_max).unwrap_or(u32::MAX);
    // Every permit back means that no question is in flight.
    if tokio::time::timeout(patience, asks.acquire_many(all))
        .await
        .is_err()
    {
        tracing::warn!("questions were still in flight at the end of the drain");
    }
    // What was received but not yet acknowledged: the log first, then the acknowledgements.
    let log = hub.log.clone();
    let _ = tokio::task::spawn_blocking(move || log.flush()).await;
    tokio::time::sleep(Duration::from_millis(hub.options.limits.linger_ms)).await;
    stop.cancel();
    endpoint.close(Close::Drained.code(), Close::Drained.reason());
    tasks.close();
    let _ = tokio::time::timeout(patience, tasks.wait()).await;
    let _ = tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
}

async fn accept(hub: Arc<Hub>, incoming: Incoming, asks: Arc<Semaphore>, stop: CancellationToken) {
    let limit = Duration::from_millis(hub.options.limits.frame_ms);
    let addr = incoming.remote_address();
    let connection = match tokio::time::timeout(limit, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            hub.counters
                .connections_refused
                .fetch_add(1, Ordering::Relaxed);
            tracing::info!(%addr, %error, "a handshake failed");
            return;
        }
        Err(_) => {
            hub.counters
                .connections_refused
                .fetch_add(1, Ordering::Relaxed);
            return;
        }
    };
    let Some(peer) = identity(&connection).filter(|peer| peer.role == "pop") else {
        hub.counters
            .connections_refused
            .fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%addr, "a peer whose certificate does not say pop was refused");
        connection.close(Close::Forbidden.code(), Close::Forbidden.reason());
        return;
    };
    Counters::add(&hub.counters.connections, 1);
    connection::run(hub, connection, peer, asks, stop).await;
}

fn identity(connection: &quinn::Connection) -> Option<Peer> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast_ref::<Vec<CertificateDer<'static>>>()?;
    peer_of(chain.first()?)
}
