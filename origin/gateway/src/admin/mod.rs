//! HTTP for operators and back offices, on its own port; never for end users.
//!
//! Invariants: with keys configured every route but health, readiness and metrics needs the secret
//! key; bodies are bounded in size, time, depth and values before they are understood; what is wrong
//! is a problem body with a stable code, unknown fields and parameters are named.

mod explain;
mod items;
mod others;
mod shards;
mod users;

use crate::handle::Handle;
use crate::hub::Hub;
use crate::jobs::Jobs;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest, Sha256};
use skerry_types::{IdError, ItemId, Uid, UserId};
use skerry_wire::json::{
    self, BODY_BYTES_MAX, CONTENT_TYPE_JSON, CONTENT_TYPE_PROBLEM, FieldError, Problem, codes,
};
use skerry_wire::value::KeyClass;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Parts of a path, at most.
const SEGMENTS_MAX: usize = 4;
/// Answers under way get this long when the origin stops, in milliseconds.
const GRACE_MS: u64 = 2_000;

/// What a route needs.
pub(crate) struct Admin {
    hub: Arc<Hub>,
    jobs: Arc<Jobs>,
    handle: Handle,
}

/// What a route answers.
pub(crate) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
}

type Answer = Result<Reply, Problem>;

impl Reply {
    fn json(body: Vec<u8>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: CONTENT_TYPE_JSON,
            body,
        }
    }

    fn with(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    fn text(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: body.into_bytes(),
        }
    }
}

/// Accepts until `stop`, then gives what is under way a little time.
pub async fn serve(
    hub: Arc<Hub>,
    jobs: Arc<Jobs>,
    handle: Handle,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(hub.options.limits.admin_connections_max));
    let admin = Arc::new(Admin { hub, jobs, handle });
    let tasks = TaskTracker::new();
    loop {
        // A full house waits in the listener's own, bounded queue.
        let accepted = async {
            let permit = Arc::clone(&slots).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, say: not at once again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (admin, stop) = (Arc::clone(&admin), stop.clone());
        tasks.spawn(async move {
            let _permit = permit;
            let limit = Duration::from_millis(admin.hub.options.limits.body_ms);
            let answer = |request| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, std::convert::Infallible>(respond(&admin, request).await) }
            };
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(limit)
                .max_buf_size(64 << 10);
            let mut connection =
                std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service_fn(answer)));
            tokio::select! {
                // A broken connection is the client's affair.
                _ = connection.as_mut() => return,
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            let _ = tokio::time::timeout(Duration::from_millis(GRACE_MS), connection).await;
        });
    }
    tasks.close();
    let _ = tokio::time::timeout(Duration::from_millis(GRACE_MS), tasks.wait()).await;
}

async fn respond(admin: &Arc<Admin>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let id = admin.hub.fresh_id();
    let answer = route(admin, request).await;
    let mut response = match answer {
        Ok(reply) => {
            let mut response = Response::new(Full::new(Bytes::from(reply.body)));
            *response.status_mut() = reply.status;
            set(&mut response, header::CONTENT_TYPE, reply.content_type);
            response
        }
        Err(problem) => {
            let mut response = Response::new(Full::new(Bytes::from(problem.render(id))));
            *response.status_mut() =
                StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            set(&mut response, header::CONTENT_TYPE, CONTENT_TYPE_PROBLEM);
            if let Some(allow) = problem.allow {
                set(&mut response, header::ALLOW, allow);
            }
            if let Some(seconds) = problem.retry_after_s {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
    };
    set(&mut response, header::CACHE_CONTROL, "no-store");
    response
}

fn set(response: &mut Response<Full<Bytes>>, name: header::HeaderName, value: &'static str) {
    response
        .headers_mut()
        .insert(name, header::HeaderValue::from_static(value));
}

/// One request: its route first (so that an unknown one is 404 with any key), then the key, then
/// the body.
async fn route(admin: &Arc<Admin>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let segments = segments(parts.uri.path())?;
    let names: Vec<&str> = segments.iter().map(String::as_str).collect();
    let method = parts.method.clone();
    match (names.as_slice(), &method) {
        (["healthz"], &Method::GET) => return others::health(&query),
        (["readyz"], &Method::GET) => return others::ready(&admin.hub, &query),
        (["metrics"], &Method::GET) => return others::metrics(&admin.hub, &query),
        _ => {}
    }
    let allow = match names.as_slice() {
        ["healthz" | "readyz" | "metrics"] => "GET",
        ["v1", "items" | "users", _] => "DELETE, GET, PATCH, PUT",
        ["v1", "items:batch" | "imports"] => "POST",
        ["v1", "models" | "shards"] => "GET, POST",
        ["v1", "events" | "events:count"] | ["v1", "imports" | "explain", _] => "GET",
        _ => return Err(Problem::not_found("there is no such route")),
    };
    if !allow.split(", ").any(|one| one == method.as_str()) {
        return Err(Problem::method_not_allowed(allow));
    }
    authorize(&admin.hub, &parts.headers)?;
    let body = read(admin, &parts.headers, body).await?;
    let admin = Arc::clone(admin);
    let segments = segments.clone();
    // Stores may wait for the disk.
    let answered = tokio::task::spawn_blocking(move || {
        let names: Vec<&str> = segments.iter().map(String::as_str).collect();
        answer(&admin, &method, &names, &query, &body)
    });
    answered
        .await
        .unwrap_or_else(|_| Err(Problem::new(500, codes::INTERNAL, "the request failed")))
}

fn answer(admin: &Admin, method: &Method, names: &[&str], query: &str, body: &[u8]) -> Answer {
    let hub = &admin.hub;
    match names {
        ["v1", "items", id] => items::one(hub, method, &id_of(id, ItemId::new)?, query, body),
        ["v1", "items:batch"] => items::batch(hub, query, body),
        ["v1", "users", id] => users::one(admin, method, &id_of(id, UserId::new)?, query, body),
        ["v1", "events"] => others::events(hub, query),
        ["v1", "events:count"] => others::count(hub, query),
        ["v1", "imports"] => others::start_import(&admin.handle, query, body),
        ["v1", "imports", id] => others::import(&admin.jobs, id_of(id, str::parse::<Uid>)?, query),
        ["v1", "explain", id] => explain::request(hub, id_of(id, str::parse::<Uid>)?, query),
        ["v1", "models"] if *method == Method::GET => others::model(hub, query),
        ["v1", "models"] => others::train(&admin.handle, query, body),
        ["v1", "shards"] => shards::answer(hub, method, query, body),
        _ => Err(Problem::not_found("there is no such route")),
    }
}

/// The path's parts, decoded after they were parted.
fn segments(path: &str) -> Result<Vec<String>, Problem> {
    let mut segments = Vec::new();
    for part in path.strip_prefix('/').unwrap_or(path).split('/') {
        if segments.len() >= SEGMENTS_MAX {
            return Err(Problem::not_found("there is no such route"));
        }
        let decoded = json::percent_decode(part, false).ok_or_else(|| {
            Problem::bad_request(
                codes::PERCENT_ENCODING_INVALID,
                "the path is not percent-encoded UTF-8",
            )
        })?;
        segments.push(decoded.into_owned());
    }
    Ok(segments)
}

fn id_of<T>(text: &str, new: fn(&str) -> Result<T, IdError>) -> Result<T, Problem> {
    new(text).map_err(|error| {
        let error = FieldError {
            pointer: "{id}".to_owned(),
            code: error.code(),
            detail: error.to_string(),
        };
        Problem::invalid(vec![error])
    })
}

/// The secret key, where keys are configured; without any, the listener is on loopback.
fn authorize(hub: &Hub, headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers
        .get("x-api-key")
        .map(|key| key.as_bytes())
        .or_else(|| {
            let bearer = headers.get(header::AUTHORIZATION)?.as_bytes();
            let (scheme, key) = bearer.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
        });
    let keys = &hub.options.api_keys;
    let loopback = hub.options.admin.ip().is_loopback();
    match given {
        None if loopback => Ok(()),
        None => Err(Problem::unauthorized(
            "give the secret key as X-API-Key or Authorization: Bearer",
        )),
        Some(given) => {
            let digest: [u8; 32] = Sha256::digest(given.trim_ascii()).into();
            // All are compared, and in constant time.
            let mut found = None;
            for key in keys {
                if bool::from(key.sha256.ct_eq(&digest)) {
                    found = Some(key.class);
                }
            }
            match found {
                Some(KeyClass::Secret) => Ok(()),
                Some(_) => Err(Problem::forbidden("only the secret key may administrate")),
                None => Err(Problem::unauthorized("the key is not known here")),
            }
        }
    }
}

async fn read(admin: &Admin, headers: &HeaderMap, body: Incoming) -> Result<Bytes, Problem> {
    let claimed = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if let Some(claimed) = claimed.filter(|claimed| *claimed > BODY_BYTES_MAX) {
        return Err(Problem::too_large(claimed));
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let limit = Duration::from_millis(admin.hub.options.limits.body_ms);
    match tokio::time::timeout(limit, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Problem::too_large(BODY_BYTES_MAX + 1))
        }
        Ok(Err(_)) => Err(Problem::bad_request(
            codes::INVALID_REQUEST,
            "the body broke off",
        )),
        Err(_) => Err(Problem::new(
            408,
            codes::INVALID_REQUEST,
            "the body did not arrive in time",
        )),
    }
}

/// No parameters at all.
fn no_query(query: &str) -> Result<(), Problem> {
    json::parse_query(query, &[]).map(|[]| ())
}

fn no_body(body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() {
        Ok(())
    } else {
        Err(Problem::bad_request(
            codes::INVALID_REQUEST,
            "no body is expected here",
        ))
    }
}

fn bad(pointer: &str, code: &'static str, detail: &str) -> Problem {
    Problem::invalid(vec![FieldError {
        pointer: pointer.to_owned(),
        code,
        detail: detail.to_owned(),
    }])
}

fn internal(error: impl std::fmt::Display) -> Problem {
    tracing::error!(%error, "an admin request failed");
    Problem::new(500, codes::INTERNAL, error.to_string())
}
