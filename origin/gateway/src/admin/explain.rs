//! The whole decision behind a request: what was asked, what the inputs were, candidates, draw.

use super::{Answer, Reply, internal, no_query};
use crate::hub::Hub;
use serde_json::{Value, json};
use skerry_origin_events::{Answered, Explained};
use skerry_types::{Decision, Source, Uid};
use skerry_wire::json::{Problem, format_time};
use skerry_wire::value::Exposure;

pub fn request(hub: &Hub, id: Uid, query: &str) -> Answer {
    no_query(query)?;
    let missing = || {
        Problem::not_found(format!(
            "nothing is kept of the request {id}: it is unknown, or older than a day"
        ))
    };
    let Explained { answered, exposure } = hub.answers.explain(&hub.tenant, id);
    if answered.is_none() && exposure.is_none() {
        return Err(missing());
    }
    let subject = match (&exposure, &answered) {
        (Some(exposure), _) => exposure.shown.subject.as_deref().map(str::to_owned),
        (None, Some(answered)) => answered.ask.ask.subject(),
        (None, None) => None,
    };
    if let Some(subject) = &subject {
        let at = exposure
            .as_ref()
            .map(|exposure| exposure.at_ms)
            .or(answered.as_ref().map(|answered| answered.at_ms));
        let erased = hub
            .log
            .reader()
            .erased_at(&hub.tenant, subject)
            .map_err(internal)?;
        if erased.is_some_and(|erased| at.is_none_or(|at| at <= erased)) {
            return Err(missing());
        }
    }
    let now = hub.now();
    let body = json!({
        "request_id": id.to_string(),
        "subject": subject,
        "shown": exposure.as_ref().map(shown),
        "decision": answered.as_ref().map(|answered| decided(hub, answered, now)),
        "rungs": rungs(exposure.as_ref(), answered.as_ref()),
    });
    Ok(Reply::json(body.to_string().into_bytes()))
}

/// What the PoP says of the answer.
fn shown(exposure: &Exposure) -> Value {
    let shown = &exposure.shown;
    let items = shown.items.iter().enumerate().map(|(at, item)| {
        json!({
            "rank": at + 1, "id": item.id.as_str(), "score": item.score, "source": item.source.as_str(),
            "propensity": item.propensity,
        })
    });
    json!({
        "at": format_time(exposure.at_ms), "pop": &*shown.pop, "surface": shown.surface.as_str(),
        "rung": shown.rung.as_str(), "cause": shown.cause.map(|cause| cause.as_str()),
        "from_cache": exposure.from_cache, "decision_id": shown.decision_id.to_string(), "model": &*shown.model,
        "snapshot": shown.snapshot, "seed": shown.seed, "items": items.collect::<Vec<_>>(),
    })
}

/// What this origin decided.
fn decided(hub: &Hub, answered: &Answered, now: u64) -> Value {
    let ask = &answered.ask.ask;
    let question = json!({
        "route": ask.route.as_str(), "surface": ask.surface.as_str(), "n": ask.n.get(),
        "budget_ms": ask.budget_ms, "left_ms": answered.ask.left_ms, "pending_events": answered.ask.pending.len(),
        "exclude": ask.exclude.len(), "filtered": ask.filter.is_some(),
        "country": ask.context.country.map(|country| country.as_str().to_owned()), "device": ask.context.device,
    });
    let features = answered.inputs.iter().map(|input| {
        json!({
            "name": input.name, "status": input.status, "detail": input.detail,
            "as_of": input.as_of.map(format_time), "age_ms": input.as_of.map(|at| answered.at_ms.saturating_sub(at)),
        })
    });
    let stages: serde_json::Map<String, Value> = answered
        .stages
        .iter()
        .map(|(stage, us)| (stage.as_str().to_owned(), json!(us)))
        .collect();
    json!({
        "at": format_time(answered.at_ms), "age_ms": now.saturating_sub(answered.at_ms), "question": question,
        "features": features.collect::<Vec<_>>(), "stages_us": stages,
        "outcome": decision(hub, &answered.decision),
    })
}

/// With titles as the catalogue has them now.
fn decision(hub: &Hub, decision: &Decision) -> Value {
    let candidates = decision.candidates.iter().enumerate().map(|(at, one)| {
        let card = hub.catalog.card(&one.id);
        json!({
            "slot": at, "id": one.id.as_str(), "title": card.map(|card| card.title.to_string()),
            "score": one.score, "source": one.source.as_str(), "propensity": one.propensity,
            "reason": {
                "kind": one.reason.kind.as_str(), "detail": one.reason.detail.as_deref(),
                "items": one.reason.item.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(),
            },
        })
    });
    let drawn = decision
        .candidates
        .iter()
        .enumerate()
        .filter(|(_, one)| one.source == Source::Explore);
    let drawn = drawn
        .map(|(at, one)| json!({"slot": at, "arm": one.id.as_str(), "propensity": one.propensity}));
    json!({
        "decision_id": decision.id.to_string(), "rung": decision.rung.as_str(),
        "cause": decision.cause.map(|cause| cause.as_str()), "made_at": format_time(decision.made_ms),
        "as_of": format_time(decision.as_of_ms), "model": &*decision.model, "region": &*decision.region,
        "draw": {"snapshot": decision.snapshot, "seed": decision.seed, "slots": drawn.collect::<Vec<_>>()},
        "candidates": candidates.collect::<Vec<_>>(),
        "warnings": decision.warnings.iter().map(|one| json!({"code": one.code.as_str(), "detail": one.detail})).collect::<Vec<_>>(),
    })
}

/// The rungs that were tried for the answer, best first.
fn rungs(exposure: Option<&Exposure>, answered: Option<&Answered>) -> Vec<Value> {
    let mut rungs = Vec::new();
    if let Some(answered) = answered {
        let rung = answered.decision.rung.as_str();
        rungs.push(json!({"rung": rung, "where": "origin", "cause": null}));
    }
    if let Some(exposure) = exposure {
        let shown = &exposure.shown;
        let place = if answered.is_some() && shown.cause.is_none() {
            "origin"
        } else {
            "pop"
        };
        if rungs.is_empty() || place == "pop" {
            rungs.push(json!({
                "rung": shown.rung.as_str(), "where": place, "cause": shown.cause.map(|cause| cause.as_str()),
            }));
        }
    }
    rungs
}
