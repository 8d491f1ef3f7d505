//! Single-flight: questions with the same key, at the same time, are asked once.
//!
//! Invariant: the asking is a task of its own, so that a caller who goes away takes nobody's answer
//! with them; a flight ends with its answer, and the next question is asked anew.

use super::AskError;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::watch;

type Answer = Result<Bytes, AskError>;
type Seat = watch::Receiver<Option<Answer>>;

/// The questions under way. Bounded by the worker instances that can wait at once.
#[derive(Clone, Default)]
pub struct Flights {
    under_way: Arc<Mutex<HashMap<Vec<u8>, Seat>>>,
}

impl Flights {
    /// Joins the flight of `key`, or starts it on `runtime` with `ask`.
    pub async fn join<F, Fut>(
        &self,
        runtime: &tokio::runtime::Handle,
        key: Vec<u8>,
        ask: F,
    ) -> Answer
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let mut seat = self.board(runtime, key, ask);
        // The sender goes without an answer only when the runtime ends.
        let landed = seat
            .wait_for(Option::is_some)
            .await
            .map_err(|_| AskError::Down)?;
        landed.clone().unwrap_or(Err(AskError::Down))
    }

    fn board<F, Fut>(&self, runtime: &tokio::runtime::Handle, key: Vec<u8>, ask: F) -> Seat
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        if let Some(seat) = under_way.get(&key) {
            return seat.clone();
        }
        let (land, seat) = watch::channel(None);
        under_way.insert(key.clone(), seat.clone());
        let landing = Landing {
            flights: self.clone(),
            key,
        };
        let answer = ask();
        runtime.spawn(async move {
            let answer = answer.await;
            // Nobody may board a flight that has landed.
            drop(landing);
            let _ = land.send(Some(answer));
        });
        seat
    }
}

/// Takes the flight off the board, also where its task is dropped or panics.
struct Landing {
    flights: Flights,
    key: Vec<u8>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.under_way.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn many_at_once_are_one_and_the_next_is_another() {
        let flights = Flights::default();
        let asked = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let runtime = tokio::runtime::Handle::current();
        let ask = |answer: &'static [u8]| {
            let (asked, gate) = (asked.clone(), gate.clone());
            move || async move {
                asked.fetch_add(1, Ordering::SeqCst);
                let _open = gate.acquire().await.unwrap();
                Ok(Bytes::from_static(answer))
            }
        };
        let all: Vec<_> = (0..50)
            .map(|_| {
                let (flights, runtime, ask) = (flights.clone(), runtime.clone(), ask(b"one"));
                tokio::spawn(async move { flights.join(&runtime, b"k".to_vec(), ask).await })
            })
            .collect();
        let other = tokio::spawn({
            let (flights, runtime, ask) = (flights.clone(), runtime.clone(), ask(b"other"));
            async move { flights.join(&runtime, b"other".to_vec(), ask).await }
        });
        while asked.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        // A caller who leaves does not end it for the others.
        all[0].abort();
        gate.add_permits(10);
        for (at, one) in all.into_iter().enumerate().skip(1) {
            assert_eq!(one.await.unwrap(), Ok(Bytes::from_static(b"one")), "{at}");
        }
        assert_eq!(other.await.unwrap(), Ok(Bytes::from_static(b"other")));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert_eq!(
            flights.join(&runtime, b"k".to_vec(), ask(b"two")).await,
            Ok(Bytes::from_static(b"two"))
        );
        assert!(flights.under_way.lock().is_empty());
    }
}
