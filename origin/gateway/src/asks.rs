//! One question of a PoP: from the frame's bytes to the answer's. Synchronous: it runs where it is
//! called, and a question that is out of time is refused before it costs anything.

use crate::counters::Counters;
use crate::hub::Hub;
use bytes::Bytes;
use skerry_origin_core::{Outcome, Question, answer};
use skerry_origin_events::{InputNote, Made};
use skerry_types::{Route, Tick, Uid, UserContext};
use skerry_wire::CodecError;
use skerry_wire::codec::encode_large;
use skerry_wire::frame::{
    Answer, AnswerContext, AnswerFrame, AskFrame, FRAME_BYTES_MAX, Refusal, RefusalCode, Stage,
};
use skerry_wire::json::{RANK_ITEMS_MAX, SEEDS_MAX};
use skerry_wire::value::StoredDecision;
use std::sync::atomic::Ordering;

/// Names of the pipeline's steps, as the wire has them.
const STAGES: [Stage; 6] = [
    Stage::Features,
    Stage::Candidates,
    Stage::Rank,
    Stage::Rules,
    Stage::Explore,
    Stage::Explain,
];
/// What a decision, and the frame around it, take about, in bytes.
const DECISION_BYTES: usize = 8 << 10;
const FRAME_BYTES: usize = 256;
/// What a refused PoP should wait, in milliseconds.
const RETRY_MS: u32 = 100;

/// Answers one encoded [`AskFrame`] that arrived at `arrived` from `pop`.
pub fn serve(hub: &Hub, bytes: &Bytes, pop: &str, arrived: Tick) -> Result<Bytes, CodecError> {
    let frame: AskFrame = skerry_wire::decode(bytes)?;
    if let Some(refusal) = refuse(hub, &frame, arrived) {
        return encode(hub, Err(refusal), Vec::new());
    }
    let now = hub.now();
    let question = Question {
        ask: &frame.ask,
        decision_id: Uid::v7(now, crate::clock::entropy()),
        seed: frame.seed,
        pending: &frame.pending,
        now,
        explore: hub.options.explore,
    };
    let Outcome {
        decision,
        context,
        stages_us,
        inputs,
    } = answer(hub, &question);
    let took_us = hub.clock.tick().since_us(arrived);
    if took_us / 1000 >= u64::from(frame.left_ms) {
        hub.counters.asks_deadline.fetch_add(1, Ordering::Relaxed);
        return encode(
            hub,
            Err(refusal(RefusalCode::Deadline, "the answer was late")),
            Vec::new(),
        );
    }
    for (histogram, us) in hub.counters.stages.iter().zip(by_wire_order(stages_us)) {
        histogram.record_us(u64::from(us));
    }
    hub.counters.asks.record_us(took_us);
    hub.counters.asks_answered.fetch_add(1, Ordering::Relaxed);
    if let Some(user) = &frame.ask.user {
        hub.pops.served(pop, user, now);
    }
    let stages: Vec<(Stage, u32)> = STAGES.into_iter().zip(stages_us).collect();
    let inputs = inputs.into_iter().map(|input| InputNote {
        name: input.name.into(),
        status: input.status.as_str().into(),
        as_of: input.as_of,
        detail: input.detail.into(),
    });
    let inputs: Vec<InputNote> = inputs.collect();
    hub.answers.answered(&Made {
        request: frame.request_id,
        ask: bytes,
        decision: &decision,
        stages: &stages,
        inputs: &inputs,
        at_ms: now,
    });
    let newest_ms = context.as_ref().map_or(0, |context| context.as_of_ms);
    let answer = Answer {
        decision: encode_large(&StoredDecision { decision }, DECISION_BYTES)?,
        newest_ms,
        context: news(context.as_deref(), frame.known_context)?,
    };
    encode(hub, Ok(answer), stages)
}

/// The context, where the PoP has another one or none.
fn news(context: Option<&UserContext>, known: u64) -> Result<Option<AnswerContext>, CodecError> {
    let other = context.filter(|context| context.mark() != known);
    other.map(AnswerContext::of).transpose()
}

/// The encoded refusal of a question that was not even read.
pub fn overloaded(hub: &Hub) -> Result<Bytes, CodecError> {
    hub.counters.asks_overloaded.fetch_add(1, Ordering::Relaxed);
    encode(
        hub,
        Err(refusal(
            RefusalCode::Overloaded,
            "too many questions at once",
        )),
        Vec::new(),
    )
}

fn refuse(hub: &Hub, frame: &AskFrame, arrived: Tick) -> Option<Refusal> {
    let counters = &hub.counters;
    let (counter, refusal) = if hub.is_draining() {
        (
            &counters.asks_draining,
            refusal(RefusalCode::Draining, "this origin is going down"),
        )
    } else if hub.clock.tick().since_ms(arrived) >= u64::from(frame.left_ms) {
        (
            &counters.asks_deadline,
            refusal(RefusalCode::Deadline, "nothing was left of the deadline"),
        )
    } else if frame.ask.tenant != hub.tenant {
        (
            &counters.asks_bad,
            refusal(RefusalCode::Bad, "this tenant is not served here"),
        )
    } else if too_many(&frame.ask.route) {
        (
            &counters.asks_bad,
            refusal(RefusalCode::Bad, "more items than a question may name"),
        )
    } else if hub.service.load().is_none() {
        (
            &counters.asks_not_ready,
            refusal(RefusalCode::NotReady, "there is no model yet"),
        )
    } else {
        return None;
    };
    Counters::add(counter, 1);
    Some(refusal)
}

fn too_many(route: &Route) -> bool {
    match route {
        Route::Similar { seeds } => seeds.is_empty() || seeds.len() > SEEDS_MAX,
        Route::Rank { items } => items.is_empty() || items.len() > RANK_ITEMS_MAX,
        Route::Recommend | Route::Popular => false,
    }
}

fn refusal(code: RefusalCode, detail: &str) -> Refusal {
    Refusal {
        code,
        detail: detail.into(),
        retry_after_ms: RETRY_MS,
    }
}

fn encode(
    hub: &Hub,
    outcome: Result<Answer, Refusal>,
    stages: Vec<(Stage, u32)>,
) -> Result<Bytes, CodecError> {
    let bytes = outcome.as_ref().map_or(0, |answer| {
        let context = answer.context.as_ref();
        answer.decision.len() + context.map_or(0, |context| context.context.len())
    });
    let bytes = bytes + FRAME_BYTES;
    let frame = AnswerFrame {
        outcome,
        state: hub.region_state(),
        stages,
    };
    let bytes = encode_large(&frame, bytes)?;
    if bytes.len() <= FRAME_BYTES_MAX {
        return Ok(Bytes::from(bytes));
    }
    hub.counters.asks_failed.fetch_add(1, Ordering::Relaxed);
    let outcome = Err(refusal(
        RefusalCode::Internal,
        "the answer is larger than a frame",
    ));
    Ok(Bytes::from(skerry_wire::encode(&AnswerFrame {
        outcome,
        ..frame
    })?))
}

/// Times in the order of [`Stage::ALL`].
fn by_wire_order(stages_us: [u32; 6]) -> [u32; 6] {
    Stage::ALL.map(|stage| {
        let at = STAGES.iter().position(|one| *one == stage);
        at.and_then(|at| stages_us.get(at)).copied().unwrap_or(0)
    })
}
