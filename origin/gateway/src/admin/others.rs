//! Events, imports, models, health, readiness, metrics.

use super::{Answer, Reply, bad, internal, no_body, no_query};
use crate::Error;
use crate::counters::Reading;
use crate::handle::Handle;
use crate::hub::Hub;
use crate::jobs::{Job, Jobs};
use crate::service::About;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use skerry_types::{Uid, UserId};
use skerry_wire::json::{self, Problem, codes, format_time};

/// Events in one page, by default and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

pub fn health(query: &str) -> Answer {
    no_query(query)?;
    Ok(Reply::json(br#"{"status":"ok"}"#.to_vec()))
}

pub fn ready(hub: &Hub, query: &str) -> Answer {
    no_query(query)?;
    let missing = hub.missing();
    let ready = missing.is_empty();
    let body = json!({"ready": ready, "missing": missing})
        .to_string()
        .into_bytes();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok(Reply::json(body).with(status))
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
pub fn metrics(hub: &Hub, query: &str) -> Answer {
    no_query(query)?;
    let plain = |name, help, value: f64| Reading {
        name,
        help,
        label: None,
        value,
    };
    let info = |name, help, version: &str| Reading {
        label: Some(("version", version.to_owned())),
        ..plain(name, help, 1.0)
    };
    let consumer = |name, help, consumer: &str, value| Reading {
        label: Some(("consumer", consumer.to_owned())),
        ..plain(name, help, value)
    };
    let mut readings = vec![
        info(
            "skerry_worker_info",
            "Version of the running program.",
            env!("CARGO_PKG_VERSION"),
        ),
        plain(
            "skerry_origin_pops",
            "Connected PoPs.",
            hub.connected.lock().len() as f64,
        ),
        plain(
            "skerry_origin_contexts_hot",
            "Contexts of users in memory.",
            hub.features.hot() as f64,
        ),
        plain(
            "skerry_origin_items",
            "Items of the catalogue.",
            hub.catalog.len() as f64,
        ),
        plain(
            "skerry_origin_answers_dropped_total",
            "Answers and exposures that are not kept for explanation because too many waited.",
            hub.answers.dropped() as f64,
        ),
        plain(
            "skerry_origin_rewards_dropped_total",
            "Events that the bandit did not count because too many waited.",
            hub.rewards.dropped() as f64,
        ),
        plain(
            "skerry_origin_ready",
            "Whether nothing is missing.",
            f64::from(u8::from(hub.missing().is_empty())),
        ),
        plain(
            "skerry_stream_lag_seconds",
            "Lag of the consumer of the log that is behind most.",
            seconds(hub.event_lag_ms()),
        ),
    ];
    let consumers = [("contexts", hub.log.lag()), ("rewards", hub.rewards.lag())];
    for (name, lag) in consumers {
        readings.push(consumer(
            "skerry_origin_consumer_lag_seconds",
            "From the newest event that a consumer of the log has applied to the newest that arrived.",
            name,
            seconds(lag.ms()),
        ));
    }
    for (name, lag) in consumers {
        readings.push(consumer(
            "skerry_origin_consumer_waiting",
            "Events that wait for a consumer of the log.",
            name,
            lag.waiting() as f64,
        ));
    }
    readings.extend(hub.similar.readings());
    if let Some(service) = hub.service.load().as_ref() {
        readings.push(info(
            "skerry_model_info",
            "The model in service.",
            &service.model.version(),
        ));
    }
    Ok(Reply::text(
        hub.counters.render(&hub.similar.searches, &readings),
    ))
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

pub fn events(hub: &Hub, query: &str) -> Answer {
    let [user, after, limit] = json::parse_query(query, &["user", "after", "limit"])?;
    let user = match user {
        Some(user) => Some(
            UserId::new(&user).map_err(|error| bad("?user", error.code(), &error.to_string()))?,
        ),
        None => None,
    };
    let whole = |text: &str, name: &str| {
        text.parse::<u64>()
            .map_err(|_| bad(name, codes::OUT_OF_RANGE, "a whole number, 0 or more"))
    };
    let after = after.map_or(Ok(0), |text| whole(&text, "?after"))?;
    let limit = match limit.map(|text| whole(&text, "?limit")).transpose()? {
        None => LIMIT_DEFAULT,
        Some(limit) => match usize::try_from(limit) {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => limit,
            _ => return Err(bad("?limit", codes::OUT_OF_RANGE, "limit is 1 to 1000")),
        },
    };
    let reader = hub.log.reader();
    let mut found = Vec::new();
    match user {
        Some(user) => {
            found = reader
                .by_user(&hub.tenant, &format!("u:{user}"), after, limit)
                .map_err(internal)?
        }
        None => {
            let mut each = |seq, event| found.push((seq, event));
            reader
                .replay(&hub.tenant, after, limit, &mut each)
                .map_err(internal)?;
        }
    }
    let mut out = b"{\"events\":[".to_vec();
    for (at, (seq, event)) in found.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"seq\":");
        json::write_integer(&mut out, *seq);
        out.extend_from_slice(b",\"event\":");
        json::event_to_json(&mut out, event);
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"next_after\":");
    match found.last().filter(|_| found.len() == limit) {
        Some((seq, _)) => json::write_integer(&mut out, *seq),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    Ok(Reply::json(out))
}

pub fn count(hub: &Hub, query: &str) -> Answer {
    no_query(query)?;
    let reader = hub.log.reader();
    let count = reader.count(&hub.tenant).map_err(internal)?;
    let seq = reader.last_seq().map_err(internal)?;
    Ok(Reply::json(
        json!({"count": count, "last_seq": seq})
            .to_string()
            .into_bytes(),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportBody {
    path: std::path::PathBuf,
}

pub fn start_import(handle: &Handle, query: &str, body: &[u8]) -> Answer {
    no_query(query)?;
    let body: ImportBody = serde_json::from_slice(body).map_err(|error| {
        let detail = error.to_string();
        let code = if detail.starts_with("unknown field") {
            codes::UNKNOWN_FIELD
        } else {
            codes::INVALID_JSON
        };
        Problem::bad_request(code, detail)
    })?;
    if !body.path.is_absolute() || !body.path.exists() {
        return Err(bad(
            "/path",
            codes::TEXT_INVALID,
            "path is an absolute path that exists where the origin runs",
        ));
    }
    let id = handle.import(body.path).ok_or_else(|| {
        Problem::unavailable(codes::UNAVAILABLE, "too many imports are running", 10)
    })?;
    let body = json!({"id": id.to_string(), "state": "running"})
        .to_string()
        .into_bytes();
    Ok(Reply::json(body).with(StatusCode::ACCEPTED))
}

pub fn import(jobs: &Jobs, id: Uid, query: &str) -> Answer {
    no_query(query)?;
    let job: Job = jobs
        .get(id)
        .ok_or_else(|| Problem::not_found(format!("there is no import {id}")))?;
    let summary = job.summary.unwrap_or_default();
    let errors = summary.errors.iter().map(|error| {
        json!({"file": error.file, "line": error.line, "column": error.column, "code": error.code, "detail": error.detail})
    });
    let body = json!({
        "id": job.id.to_string(),
        "path": job.path,
        "state": job.state.as_str(),
        "started_at": format_time(job.started_ms),
        "ended_at": job.ended_ms.map(format_time),
        "rows": job.rows,
        "items": {"read": summary.items, "new": job.changed.items_new, "changed": job.changed.items_changed},
        "events": {
            "read": summary.events, "new": job.changed.events_new,
            "replaced": job.changed.events_replaced, "duplicate": job.changed.events_duplicate,
        },
        "errors_total": summary.errors_total,
        "errors": errors.collect::<Vec<_>>(),
        "failure": job.failure,
    });
    Ok(Reply::json(body.to_string().into_bytes()))
}

fn about(about: &About) -> serde_json::Value {
    json!({
        "version": format!("ranker@{}", about.number), "sha256": about.sha256, "made_at": format_time(about.made_ms),
        "as_of": format_time(about.as_of_ms), "events": about.events, "items": about.items, "users": about.users,
    })
}

pub fn model(hub: &Hub, query: &str) -> Answer {
    no_query(query)?;
    let current = hub
        .service
        .load()
        .as_ref()
        .map(|service| about(&service.about));
    Ok(Reply::json(
        json!({"current": current}).to_string().into_bytes(),
    ))
}

/// Trains on what is stored; answers when the model is in service.
pub fn train(handle: &Handle, query: &str, body: &[u8]) -> Answer {
    no_query(query)?;
    no_body(body)?;
    match tokio::runtime::Handle::current().block_on(handle.train()) {
        Ok(made) => {
            Ok(Reply::json(about(&made).to_string().into_bytes()).with(StatusCode::CREATED))
        }
        Err(error @ Error::Training) => Err(Problem::unavailable(
            codes::UNAVAILABLE,
            error.to_string(),
            10,
        )),
        Err(error @ Error::NoData) => Err(Problem::bad_request(
            codes::INVALID_REQUEST,
            error.to_string(),
        )),
        Err(error) => Err(internal(error)),
    }
}
