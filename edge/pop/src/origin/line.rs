//! A serving thread's own connection to the origin, for its questions alone: asking and being answered
//! then wake no other thread.
//!
//! Invariants: a line belongs to one session: it is opened after the session's greeting, to the same
//! address, and no question goes over it once the session has ended; a thread without a line asks over
//! the session's own connection.

use super::endpoint::Endpoints;
use super::{CANCELLED, Origin, Session, frames};
use arc_swap::ArcSwapOption;
use quinn::Connection;
use skerry_wire::encode;
use skerry_wire::frame::{Control, Line as Greeting, PROTOCOL};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A line that cannot be opened, or breaks while its session lasts, is tried again after this, in
/// milliseconds.
const AGAIN_MS: u64 = 1_000;
/// A line that ends says so to the origin within this, in milliseconds.
const FAREWELL_MS_MAX: u64 = 100;

/// The place of one thread's line. Cheap to clone.
#[derive(Clone, Default)]
pub struct Line {
    connection: Arc<ArcSwapOption<Connection>>,
}

impl Line {
    /// The connection, while it lives.
    pub(super) fn connection(&self) -> Option<Connection> {
        let connection = self.connection.load();
        let connection = connection.as_deref()?;
        connection
            .close_reason()
            .is_none()
            .then(|| connection.clone())
    }

    /// Keeps the line up until `end`, on the runtime that polls it.
    pub async fn keep(self, origin: Origin, end: CancellationToken) {
        let mut endpoints = Endpoints::default();
        let open = async {
            let mut sessions = origin.inner.session.subscribe();
            loop {
                let session = sessions.borrow_and_update().clone();
                let opened = async {
                    match session {
                        Some(session) => self.open(&mut endpoints, session).await,
                        None => std::future::pending().await,
                    }
                };
                let changed = tokio::select! {
                    () = opened => {
                        let again = Duration::from_millis(AGAIN_MS);
                        tokio::time::timeout(again, sessions.changed()).await.unwrap_or(Ok(()))
                    }
                    changed = sessions.changed() => changed,
                };
                // Who still waits for an answer holds the connection until it has come.
                self.connection.store(None);
                if changed.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = open => {}
            () = end.cancelled() => {}
        }
        if let Some(connection) = self.connection.swap(None) {
            connection.close(CANCELLED, b"");
            let farewell = Duration::from_millis(FAREWELL_MS_MAX);
            let _ = tokio::time::timeout(farewell, endpoints.wait_idle()).await;
        }
    }

    /// Opens the line and returns when it is lost.
    async fn open(&self, endpoints: &mut Endpoints, session: Session) {
        let addr = session.connection.remote_address();
        let connection = match endpoints.connect(addr, session.tls).await {
            Ok(connection) => connection,
            Err(reason) => return tracing::debug!(reason, "no line to the origin"),
        };
        let greeting = Control::Line(Greeting {
            protocol: PROTOCOL,
            pop: session.pop,
        });
        let Ok(greeting) = encode(&greeting) else {
            return;
        };
        let Ok((mut send, _recv)) = connection.open_bi().await else {
            return;
        };
        if frames::write(&mut send, &greeting).await.is_err() {
            return;
        }
        self.connection.store(Some(Arc::new(connection.clone())));
        let reason = connection.closed().await;
        tracing::debug!(%reason, "a line to the origin is lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::meter::Meter;
    use crate::origin::testing::server;
    use bytes::Bytes;
    use quinn::Endpoint;
    use skerry_wire::decode;

    /// Takes a connection and what it begins with.
    async fn accept(server: &Endpoint) -> (Connection, Control) {
        let connection = server.accept().await.unwrap().await.unwrap();
        let (_send, mut recv) = connection.accept_bi().await.unwrap();
        let first = frames::read(&mut recv).await.unwrap();
        (connection, decode(&first).unwrap())
    }

    async fn until(what: &str, done: impl Fn() -> bool) {
        let wait = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
        assert!(waited.is_ok(), "{what}");
    }

    #[tokio::test]
    async fn a_line_comes_and_goes_with_its_session() {
        let (server, tls) = server();
        let origin = Origin::new(Clock::start(), Meter::new("local"), 1);
        let (line, end) = (Line::default(), CancellationToken::new());
        let keeping = tokio::spawn(line.clone().keep(origin.clone(), end.clone()));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(line.connection().is_none(), "no session, no line");

        let addr = server.local_addr().unwrap();
        let connecting = async {
            let mut endpoints = Endpoints::default();
            let connection = endpoints.connect(addr, tls.clone()).await.unwrap();
            (endpoints, connection)
        };
        let accepting = async { server.accept().await.unwrap().await.unwrap() };
        let ((_endpoints, connection), _theirs) = tokio::join!(connecting, accepting);
        let session = Session {
            connection,
            tls,
            pop: "p".into(),
        };
        origin.inner.session.send_replace(Some(session.clone()));
        let (theirs, first) = accept(&server).await;
        let greeting = Greeting {
            protocol: PROTOCOL,
            pop: "p".into(),
        };
        assert_eq!(first, Control::Line(greeting));
        until("up", || line.connection().is_some()).await;

        // A question goes over it.
        let answering = async {
            let (mut send, mut recv) = theirs.accept_bi().await.unwrap();
            assert_eq!(frames::read_only(&mut recv).await.unwrap(), b"question");
            frames::write(&mut send, b"some answer").await.unwrap();
            send.finish().unwrap();
        };
        let question = Bytes::from_static(b"question");
        let asking = origin.ask(&line, b"key".to_vec(), question, 5_000);
        let (answer, ()) = tokio::join!(asking, answering);
        assert_eq!(answer.unwrap(), &b"some answer"[..]);

        // Lost while the session lasts: opened again.
        theirs.close(0u32.into(), b"");
        until("lost", || line.connection().is_none()).await;
        let (again, _) = accept(&server).await;
        until("up again", || line.connection().is_some()).await;

        // The session's end is the line's: nobody asks over it any more, and it is closed.
        origin.inner.session.send_replace(None);
        until("ended", || line.connection().is_none()).await;
        again.closed().await;
        let (question, key) = (Bytes::from_static(b"question"), b"key".to_vec());
        let refused = origin.ask(&line, key, question, 5_000).await;
        assert_eq!(refused, Err(crate::origin::AskError::Down));

        // The thread's end, too.
        origin.inner.session.send_replace(Some(session));
        let (last, _) = accept(&server).await;
        until("up", || line.connection().is_some()).await;
        end.cancel();
        keeping.await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(1), last.closed()).await;
        assert!(closed.is_ok(), "the origin hears of it");
    }
}
