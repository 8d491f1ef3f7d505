//! A connection of a PoP: the control stream and the questions, or questions alone.

use super::Close;
use super::frames::{FrameError, Frames, write, write_bytes};
use super::push::Pusher;
use crate::asks;
use crate::counters::Counters;
use crate::hub::{Hub, News};
use crate::tls::Peer;
use quinn::{Connection, SendStream};
use skerry_origin_events::{Appended, Error, Mode};
use skerry_types::{Event, Millis};
use skerry_wire::frame::{Control, EVENTS_MAX, Hello, Line, PROTOCOL, Welcome};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Control frames that may wait to be written.
const OUT_FRAMES_MAX: usize = 256;
/// Batches of events of one PoP that may wait for the disk.
const BATCHES_MAX: usize = 32;
/// How often the region speaks, in milliseconds.
const REGION_MS: u64 = 250;
/// Longest name of a PoP, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// A client's clock may be ahead by this much, in milliseconds; what is later is taken as now.
const AHEAD_MS_MAX: Millis = 24 * 3600 * 1000;

/// Runs until the peer goes, breaks the protocol, or `stop`.
pub async fn run(
    hub: Arc<Hub>,
    connection: Connection,
    peer: Peer,
    asks: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let ended = tokio::select! {
        () = stop.cancelled() => Err(Close::Drained),
        ended = converse(&hub, &connection, &peer, asks) => ended,
    };
    if let Err(close) = ended {
        connection.close(close.code(), close.reason());
    }
    let greeted = hub
        .connected
        .lock()
        .remove(&(connection.stable_id() as u64));
    if greeted.is_some() {
        tracing::info!(pop = %peer.name, addr = %connection.remote_address(), ?ended, "a PoP is gone");
    }
}

async fn converse(
    hub: &Arc<Hub>,
    connection: &Connection,
    peer: &Peer,
    asks: Arc<Semaphore>,
) -> Result<(), Close> {
    let limit = Duration::from_millis(hub.options.limits.frame_ms);
    // The first stream is the control stream.
    let opened = tokio::time::timeout(limit, connection.accept_bi())
        .await
        .map_err(|_| breach(hub, Close::TooSlow))?;
    let Ok((send, recv)) = opened else {
        return Ok(());
    };
    let mut frames = Frames::new(recv, limit);
    match frames
        .next_soon()
        .await
        .and_then(|bytes| Ok(skerry_wire::decode(&bytes)?))
    {
        Ok(Control::Hello(hello)) => {
            greeted(hub, hello.protocol, [&hello.pop, &hello.region])?;
            session(hub, connection, peer, hello, (send, frames), asks).await
        }
        Ok(Control::Line(Line { protocol, pop })) => {
            greeted(hub, protocol, [&pop])?;
            tracing::debug!(%pop, addr = %connection.remote_address(), "a line is open");
            questions(hub, connection, &pop, asks).await;
            Ok(())
        }
        Ok(_) => Err(breach(hub, Close::Garbage)),
        Err(error) => failed(hub, &error),
    }
}

/// Whether a greeting is one that we can answer.
fn greeted<const N: usize>(hub: &Hub, protocol: (u16, u16), names: [&str; N]) -> Result<(), Close> {
    if protocol.0 > PROTOCOL.1 || protocol.1 < PROTOCOL.0 {
        return Err(breach(hub, Close::Version));
    }
    let is_name = |name: &&str| {
        (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
    };
    if names.iter().all(is_name) {
        Ok(())
    } else {
        Err(breach(hub, Close::Garbage))
    }
}

/// The connection that a PoP greets on: control, pushes and questions.
async fn session(
    hub: &Arc<Hub>,
    connection: &Connection,
    peer: &Peer,
    hello: Hello,
    (mut send, frames): (SendStream, Frames),
    asks: Arc<Semaphore>,
) -> Result<(), Close> {
    tracing::info!(pop = %hello.pop, certificate = %peer.name, addr = %connection.remote_address(), "a PoP is connected");
    hub.connected
        .lock()
        .insert(connection.stable_id() as u64, Arc::clone(&hello.pop));
    let welcome = Welcome {
        protocol: PROTOCOL.1.min(hello.protocol.1),
        region: Arc::clone(&hub.options.region),
        current: hub.artifacts.current(),
    };
    // Subscribed before anything is sent: nothing falls between what is sent now and what changes.
    let pusher = Pusher::new(hub, connection, &hello);
    let news = hub.news.subscribe();
    if write(&mut send, &Control::Welcome(welcome)).await.is_err() {
        return Ok(());
    }
    let (out, outbox) = mpsc::channel(OUT_FRAMES_MAX);
    for (seq, tags) in hub.invalidations_after(hello.invalidated) {
        let _ = out.try_send(Control::Invalidate {
            seq,
            tags: tags.to_vec(),
        });
    }
    let (acks, pending) = mpsc::channel(BATCHES_MAX);
    tokio::select! {
        () = writer(send, outbox) => Ok(()),
        () = pusher.run() => Ok(()),
        () = speak(hub, &hello, out.clone(), news) => Ok(()),
        ended = acknowledge(hub, pending, out.clone()) => ended,
        ended = listen(hub, frames, out.clone(), acks) => ended,
        () = questions(hub, connection, &hello.pop, asks) => Ok(()),
    }
}

/// Counts a breach of the protocol.
fn breach(hub: &Hub, close: Close) -> Close {
    Counters::add(&hub.counters.breaches, 1);
    close
}

fn failed(hub: &Hub, error: &FrameError) -> Result<(), Close> {
    if error.is_breach() {
        tracing::warn!(code = error.code(), %error, "a peer broke the protocol");
        return Err(breach(hub, Close::of(error)));
    }
    Ok(())
}

async fn writer(mut send: SendStream, mut outbox: mpsc::Receiver<Control>) {
    while let Some(frame) = outbox.recv().await {
        if write(&mut send, &frame).await.is_err() {
            return;
        }
    }
}

/// Region frames, invalidations and the drain.
async fn speak(
    hub: &Hub,
    hello: &Hello,
    out: mpsc::Sender<Control>,
    mut news: tokio::sync::broadcast::Receiver<News>,
) {
    let mut region = tokio::time::interval(Duration::from_millis(REGION_MS));
    region.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let frame = tokio::select! {
            _ = region.tick() => {
                // A peer that does not read its control stream misses frames, not memory.
                let _ = out.try_send(Control::Region(hub.region_state()));
                continue;
            }
            news = news.recv() => match news {
                Ok(News::Invalidate { seq, tags }) => Control::Invalidate { seq, tags: tags.to_vec() },
                Ok(News::Drain) => Control::Drain { within_ms: u32::try_from(hub.options.limits.drain_ms).unwrap_or(u32::MAX) },
                Ok(News::Erased(_) | News::Contexts { .. }) => continue,
                // The sequence of the next invalidation shows the gap.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            },
        };
        if out.send(frame).await.is_err() {
            tracing::debug!(pop = %hello.pop, "the control stream is gone");
            return;
        }
    }
}

type Waiting = (u64, oneshot::Receiver<Result<Appended, Error>>);

/// Control frames of the PoP.
async fn listen(
    hub: &Arc<Hub>,
    mut frames: Frames,
    out: mpsc::Sender<Control>,
    acks: mpsc::Sender<Waiting>,
) -> Result<(), Close> {
    loop {
        let frame = match frames
            .next()
            .await
            .and_then(|bytes| Ok(skerry_wire::decode::<Control>(&bytes)?))
        {
            Ok(frame) => frame,
            Err(error) => return failed(hub, &error),
        };
        match frame {
            Control::Events { seq, events } => {
                if events.len() > EVENTS_MAX
                    || events.iter().any(|event| event.tenant != hub.tenant)
                {
                    return Err(breach(hub, Close::Garbage));
                }
                let waiting = store(hub, events).await.ok_or(Close::Store)?;
                // Waits where BATCHES_MAX are on their way: the peer feels it as flow control.
                if acks.send((seq, waiting)).await.is_err() {
                    return Ok(());
                }
            }
            Control::Exposures { exposures } => {
                Counters::add(&hub.counters.exposures, exposures.len());
                for exposure in exposures {
                    hub.answers.exposed(exposure);
                }
            }
            Control::Ping { nonce } => {
                let _ = out.try_send(Control::Pong { nonce });
            }
            Control::Pong { .. } => {}
            Control::Hello(_)
            | Control::Welcome(_)
            | Control::Ack { .. }
            | Control::Region(_)
            | Control::Invalidate { .. }
            | Control::Drain { .. }
            | Control::Line(_) => return Err(breach(hub, Close::Garbage)),
        }
    }
}

/// Hands events to the log; waits while its queue is full.
async fn store(
    hub: &Hub,
    mut events: Vec<Event>,
) -> Option<oneshot::Receiver<Result<Appended, Error>>> {
    let now = hub.now();
    for event in &mut events {
        event.accepted_ms = event.accepted_ms.min(now);
        event.at_ms = event.at_ms.min(now + AHEAD_MS_MAX);
        event.value = event.value.filter(|value| value.is_finite());
    }
    loop {
        let (sender, receiver) = oneshot::channel();
        let done = move |result| {
            let _ = sender.send(result);
        };
        match hub.log.submit(events, Mode::Once, now, done) {
            Ok(()) => return Some(receiver),
            Err((Error::Busy, back)) => {
                events = back;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(_) => return None,
        }
    }
}

/// Acknowledges in the order of arrival what is durable.
async fn acknowledge(
    hub: &Hub,
    mut pending: mpsc::Receiver<Waiting>,
    out: mpsc::Sender<Control>,
) -> Result<(), Close> {
    while let Some((seq, waiting)) = pending.recv().await {
        match waiting.await {
            Ok(Ok(appended)) => {
                Counters::add(&hub.counters.events_new, appended.new);
                Counters::add(&hub.counters.events_duplicate, appended.duplicate);
                if out.send(Control::Ack { seq }).await.is_err() {
                    break;
                }
            }
            Ok(Err(error)) => {
                Counters::add(&hub.counters.events_failed, 1);
                tracing::error!(%error, code = error.code(), "events were not stored; the PoP keeps them");
                return Err(Close::Store);
            }
            Err(_) => return Err(Close::Store),
        }
    }
    Ok(())
}

/// Each question has a stream of its own.
async fn questions(hub: &Arc<Hub>, connection: &Connection, pop: &Arc<str>, asks: Arc<Semaphore>) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let permit = Arc::clone(&asks).try_acquire_owned().ok();
        let (hub, pop) = (Arc::clone(hub), Arc::clone(pop));
        tokio::spawn(question(hub, pop, send, recv, permit));
    }
}

async fn question(
    hub: Arc<Hub>,
    pop: Arc<str>,
    mut send: SendStream,
    recv: quinn::RecvStream,
    permit: Option<OwnedSemaphorePermit>,
) {
    let arrived = hub.clock.tick();
    let mut frames = Frames::new(recv, Duration::from_millis(hub.options.limits.frame_ms));
    if permit.is_none() {
        frames.stop(Close::Crowded.code());
        if let Ok(bytes) = asks::overloaded(&hub) {
            let _ = write_bytes(&mut send, bytes).await;
            let _ = send.finish();
        }
        return;
    }
    let answered = match frames.next_soon().await {
        // Ended before it began, or cancelled.
        Err(FrameError::End | FrameError::Lost(_)) => return,
        Err(error) => Err(error),
        Ok(bytes) => {
            frames.see_end().await;
            asks::serve(&hub, &bytes, &pop, arrived).map_err(FrameError::from)
        }
    };
    match answered {
        Ok(bytes) => {
            if write_bytes(&mut send, bytes).await.is_ok() {
                let _ = send.finish();
            } else {
                hub.counters.asks_cancelled.fetch_add(1, Ordering::Relaxed);
            }
        }
        Err(error) => {
            tracing::warn!(%pop, code = error.code(), %error, "a question broke the protocol");
            let code = breach(&hub, Close::of(&error)).code();
            frames.stop(code);
            let _ = send.reset(code);
        }
    }
    drop(permit);
}
