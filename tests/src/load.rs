//! Load: a steady rate over a few connections, and what came back.

use crate::http::Client;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// One answer (or none) under load.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Since the load began.
    pub at: Duration,
    pub took: Duration,
    pub user: String,
    /// 0 where the connection failed.
    pub status: u16,
    pub rung: String,
    pub cause: String,
    pub cache: String,
}

/// What came back, in no particular order.
pub type Samples = Arc<Mutex<Vec<Sample>>>;

/// Steady load on `/v1/recommend`, until dropped or [`Load::finish`]ed.
#[derive(Debug)]
pub struct Load {
    workers: JoinSet<()>,
    samples: Samples,
    began: Instant,
}

impl Load {
    /// `per_second` requests over `connections` connections; request number `i` is for the user and the target
    /// that `ask(i)` gives.
    /// A request that is late is sent late, never left out.
    pub fn start(
        url: &str,
        per_second: u64,
        connections: u64,
        ask: impl Fn(u64) -> (String, String) + Send + Sync + 'static,
    ) -> Self {
        let (began, samples, ask) = (Instant::now(), Samples::default(), Arc::new(ask));
        let mut workers = JoinSet::new();
        for worker in 0..connections {
            let (samples, ask, mut client) =
                (Arc::clone(&samples), Arc::clone(&ask), Client::new(url));
            workers.spawn(async move {
                for turn in 0u64.. {
                    let number = turn * connections + worker;
                    let due = began + Duration::from_micros(number * 1_000_000 / per_second);
                    tokio::time::sleep_until(due.into()).await;
                    let (user, target) = ask(number);
                    let sent = Instant::now();
                    let reply = client.get(&target).await;
                    let took = sent.elapsed();
                    let (status, rung, cause, cache) = match &reply {
                        Ok(reply) => (
                            reply.status,
                            reply.rung().to_owned(),
                            reply.cause(),
                            cache_state(reply),
                        ),
                        Err(_) => (0, String::new(), String::new(), String::new()),
                    };
                    let sample = Sample {
                        at: sent - began,
                        took,
                        user,
                        status,
                        rung,
                        cause,
                        cache,
                    };
                    samples
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(sample);
                }
            });
        }
        Self {
            workers,
            samples,
            began,
        }
    }

    /// Time since it began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends it and gives what came back, by time.
    pub async fn finish(mut self) -> Vec<Sample> {
        self.workers.shutdown().await;
        let mut samples =
            std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner));
        samples.sort_by_key(|sample| sample.at);
        samples
    }
}

fn cache_state(reply: &crate::http::Response) -> String {
    reply.json()["served"]["cache"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// How many samples there are of each (status, rung, cause).
#[must_use]
pub fn tally<'a>(
    samples: impl IntoIterator<Item = &'a Sample>,
) -> BTreeMap<(u16, &'a str, &'a str), usize> {
    let mut counts = BTreeMap::new();
    for sample in samples {
        *counts
            .entry((sample.status, sample.rung.as_str(), sample.cause.as_str()))
            .or_default() += 1;
    }
    counts
}

/// A percentile of how long the samples took, in milliseconds.
#[must_use]
pub fn percentile_ms<'a>(samples: impl IntoIterator<Item = &'a Sample>, percent: f64) -> f64 {
    let mut took: Vec<f64> = samples
        .into_iter()
        .map(|sample| sample.took.as_secs_f64() * 1000.0)
        .collect();
    if took.is_empty() {
        return 0.0;
    }
    took.sort_by(f64::total_cmp);
    took[((took.len() - 1) as f64 * percent / 100.0).round() as usize]
}
