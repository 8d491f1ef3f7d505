//! Shards of the user index: what there is, and what operators do to it.

use super::{Answer, Reply, bad, no_body, no_query};
use crate::hub::Hub;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use skerry_vector_shard::wire::grpc::MigrateReply;
use skerry_vector_shard::{Error, NodeId, ShardId, SlotSet};
use skerry_wire::json::{Problem, codes};

/// The verbs of `POST /v1/shards`: one at a time.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Verb {
    /// The upper half of a shard's slots, to a new shard.
    Split {
        shard: u32,
        /// Nodes of the new shard; those of the old one where there is none.
        #[serde(default)]
        to: Vec<String>,
    },
    /// Slots such as `0-1023,2048`.
    Move { from: u32, to: u32, slots: String },
    /// The number of a migration.
    Abort { migration: u64 },
}

pub fn answer(hub: &Hub, method: &Method, query: &str, body: &[u8]) -> Answer {
    no_query(query)?;
    let vectors = hub.similar.vectors();
    if *method == Method::GET {
        no_body(body)?;
        let overview = vectors.overview().map_err(problem)?;
        return Ok(Reply::json(overview.to_json().to_string().into_bytes()));
    }
    let invalid = |detail: String| bad("", codes::INVALID_REQUEST, &detail);
    let verb: Verb = serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    let here = |_, _| {
        let reason =
            "the one shard is in this process: it can be split where `origin.vectors` names nodes";
        Err(Error::Request(reason.to_owned()))
    };
    let done = match &verb {
        Verb::Split { shard, to } => {
            let to: Result<Vec<NodeId>, _> = to.iter().map(|node| node.parse()).collect();
            let to =
                to.map_err(|error| bad("/split/to", codes::INVALID_REQUEST, &error.to_string()))?;
            vectors.administer(here, async |admin| admin.split(ShardId(*shard), &to).await)
        }
        Verb::Move { from, to, slots } => {
            let slots: SlotSet = slots
                .parse()
                .map_err(|error| bad("/move/slots", codes::INVALID_REQUEST, error))?;
            let (from, to) = (ShardId(*from), ShardId(*to));
            vectors.administer(here, async |admin| admin.move_slots(from, to, &slots).await)
        }
        Verb::Abort { migration } => {
            vectors.administer(here, async |admin| admin.abort(*migration).await)
        }
    };
    let done: MigrateReply = done.map_err(problem)?;
    let body = json!({"migration": done.migration, "from": done.from, "to": done.to, "slots": done.slots,
        "epoch": done.epoch});
    Ok(Reply::json(body.to_string().into_bytes()).with(StatusCode::ACCEPTED))
}

/// The caller's fault is 400, a cluster that does not answer 503.
fn problem(error: Error) -> Problem {
    if error.is_callers() || matches!(error, Error::Request(_)) {
        return bad(
            "",
            codes::INVALID_REQUEST,
            &format!("{error} ({})", error.code()),
        );
    }
    Problem::unavailable(codes::UNAVAILABLE, format!("{error} ({})", error.code()), 1)
}
