//! What a node counts while it serves. Labels are enums; figures that are read when they are asked for
//! are in [`crate::status`].

use crate::clock;
use crate::error::Error;
use crate::store::StoreError;
use skerry_telemetry::exposition::{Histogram, Kind, Text};
use skerry_telemetry::{VectorOp, VectorOutcome};
use skerry_types::Tick;
use std::sync::atomic::{AtomicU64, Ordering};

const REQUESTS: &str = "skerry_vector_requests_total";
const SEARCH_SECONDS: &str = "skerry_vector_search_seconds";
const WRITE_SECONDS: &str = "skerry_vector_write_seconds";
const GATE_SECONDS: &str = "skerry_vector_gate_seconds";
const QUERIES: &str = "skerry_vector_queries_total";
const WRITTEN: &str = "skerry_vector_written_records_total";
const SNAPSHOTS: &str = "skerry_vector_snapshots_total";
const STREAMS: &str = "skerry_vector_streams_total";

/// Counts of one node.
#[derive(Default)]
pub struct Meter {
    requests: [[AtomicU64; VectorOutcome::ALL.len()]; VectorOp::ALL.len()],
    search: Histogram,
    write: Histogram,
    gate: Histogram,
    queries: AtomicU64,
    written: AtomicU64,
    snapshots: AtomicU64,
    streams: AtomicU64,
}

const fn outcome(error: &Error) -> VectorOutcome {
    match error {
        Error::Overloaded(_) | Error::Store(StoreError::Full) => VectorOutcome::Shed,
        Error::Deadline => VectorOutcome::Late,
        Error::Behind { .. } => VectorOutcome::Behind,
        Error::Unconfirmed { .. } => VectorOutcome::Unconfirmed,
        Error::Epoch { .. }
        | Error::NotHere(_)
        | Error::Starting(_)
        | Error::NotLeader(_)
        | Error::NotOwned(_)
        | Error::Fenced { .. } => VectorOutcome::Elsewhere,
        error if error.is_callers() => VectorOutcome::Refused,
        _ => VectorOutcome::Failed,
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Meter {
    /// How a request ended.
    pub fn ended<T>(&self, op: VectorOp, result: &Result<T, Error>) {
        let outcome = match result {
            Ok(_) => VectorOutcome::Ok,
            Err(error) => outcome(error),
        };
        let row = self.requests.get(op as usize);
        if let Some(counter) = row.and_then(|row| row.get(outcome as usize)) {
            add(counter, 1);
        }
    }

    /// A batch of queries that the store answered.
    pub fn searched(&self, queries: usize, began: Tick) {
        self.search.record_us(clock::now().since_us(began));
        add(&self.queries, queries as u64);
    }

    /// Writes that were acknowledged.
    pub fn wrote(&self, records: usize, began: Tick) {
        self.write.record_us(clock::now().since_us(began));
        add(&self.written, records as u64);
    }

    /// For so long a move of slots kept writes waiting.
    pub fn gate_was_shut(&self, since: Tick) {
        self.gate.record_us(clock::now().since_us(since));
    }

    /// A follower or a receiver of slots has begun to follow.
    pub fn stream(&self) {
        add(&self.streams, 1);
    }

    /// A whole replica goes out.
    pub fn snapshot(&self) {
        add(&self.snapshots, 1);
    }

    pub fn write_to(&self, text: &mut Text) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        text.family(
            REQUESTS,
            Kind::Counter,
            "Requests by what they asked for and how they ended; shed is turned away for load.",
        );
        for (op, row) in VectorOp::ALL.iter().zip(&self.requests) {
            for (outcome, count) in VectorOutcome::ALL.iter().zip(row) {
                let labels: [(_, &dyn std::fmt::Display); 2] =
                    [("op", &op.as_str()), ("outcome", &outcome.as_str())];
                text.sample(REQUESTS, &labels, read(count));
            }
        }
        let help = "Time of a batch of queries in the store.";
        self.search.write(text, SEARCH_SECONDS, help);
        let help = "Time of an acknowledged batch of writes, replicas included.";
        self.write.write(text, WRITE_SECONDS, help);
        let help = "For how long moves of slots kept writes waiting.";
        self.gate.write(text, GATE_SECONDS, help);
        let mut counter = |name, help, counter| text.single(name, Kind::Counter, help, counter);
        counter(QUERIES, "Queries answered.", read(&self.queries));
        let help = "Records written and deleted for clients.";
        counter(WRITTEN, help, read(&self.written));
        let help = "Whole replicas that others asked for.";
        counter(SNAPSHOTS, help, read(&self.snapshots));
        let help = "Times that another node began to follow a log here.";
        counter(STREAMS, help, read(&self.streams));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::ShardId;
    use skerry_vector_index::IndexError;

    #[test]
    fn each_end_of_a_request_is_counted_as_what_it_was() {
        let shard = ShardId(0);
        let meter = Meter::default();
        let ends = [
            (Error::Overloaded("searches"), "shed"),
            (Error::Deadline, "late"),
            (Error::NotLeader(shard), "elsewhere"),
            (Error::Epoch { epoch: 3 }, "elsewhere"),
            (
                Error::Behind {
                    shard,
                    seq: 1,
                    wanted: 2,
                },
                "behind",
            ),
            (
                Error::Unconfirmed {
                    shard,
                    reason: "late",
                },
                "unconfirmed",
            ),
            (Error::Invalid(IndexError::QueryZeroNorm), "refused"),
            (Error::LeaseLost(shard), "failed"),
        ];
        for (error, outcome) in ends {
            assert_eq!(super::outcome(&error).as_str(), outcome, "{error}");
            meter.ended::<()>(VectorOp::Write, &Err(error));
        }
        meter.ended(VectorOp::Search, &Ok(()));
        let mut text = Text::default();
        meter.write_to(&mut text);
        let text = text.finish();
        for line in [
            "skerry_vector_requests_total{op=\"write\",outcome=\"elsewhere\"} 2",
            "skerry_vector_requests_total{op=\"write\",outcome=\"shed\"} 1",
            "skerry_vector_requests_total{op=\"search\",outcome=\"ok\"} 1",
            "skerry_vector_requests_total{op=\"get\",outcome=\"ok\"} 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
    }
}
