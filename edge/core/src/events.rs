//! `POST /v1/events`: validated, durable, and visible in the very next answer, before the 202.

use crate::context;
use crate::keys::Caller;
use crate::ports::{Host, Note, Request, Response, RouteLabel};
use crate::respond;
use skerry_types::{Event, Hlc, Uid, context_key};
use skerry_wire::json::{self, EventStamp, Problem, codes};
use skerry_wire::value::ConfigBlob;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Seconds after which a client may try again when the spool is full.
const RETRY_S: u32 = 5;

pub(crate) async fn accept<H: Host>(
    host: &H,
    config: Option<&ConfigBlob>,
    caller: &Caller,
    request: &Request,
) -> Result<Response, Problem> {
    let name = |name: Option<&Arc<str>>| name.map_or_else(|| Arc::from("unknown"), Arc::clone);
    let region = name(config.map(|config| &config.region));
    let pop = name(config.map(|config| &config.pop));
    let parsed = json::parse_events(&request.body, request.now)?;
    let mut events = Vec::with_capacity(parsed.accepted.len());
    for (count, (_, input)) in (0u32..).zip(parsed.accepted) {
        caller.may_name(input.user.as_ref())?;
        events.push(input.accept(EventStamp {
            tenant: caller.tenant.clone(),
            // One id for each event of the batch, from the request's own chance.
            fresh_id: Uid::v7(
                request.now,
                request.entropy.wrapping_add(u128::from(count) + 1),
            ),
            accepted_ms: request.now,
            hlc: Hlc {
                ms: request.now,
                count,
            },
            region: Arc::clone(&region),
            pop: Arc::clone(&pop),
        }));
    }
    let subjects: Vec<String> = events
        .iter()
        .map(|event| {
            event
                .subject()
                .map_or_else(String::new, |subject| context_key(&event.tenant, &subject))
        })
        .collect();
    // Durable first: from here on a question carries these events to the origin.
    host.append(&events, &subjects)
        .await
        .map_err(|detail| Problem::unavailable(codes::UNAVAILABLE, detail, RETRY_S))?;
    let mut by_subject: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for (event, subject) in events
        .iter()
        .zip(&subjects)
        .filter(|(_, subject)| !subject.is_empty())
    {
        by_subject.entry(subject).or_default().push(event);
    }
    for (subject, events) in by_subject {
        context::apply(host, subject, &events, request.now).await;
        if events.iter().any(|event| event.kind.is_strong()) {
            host.purge(&user_tag(subject)).await;
        }
    }
    let mut body = Vec::new();
    json::render_accepted(&mut body, events.len(), &parsed.rejected);
    let note = Note {
        route: RouteLabel::Events,
        rung: None,
        cause: None,
        cache: None,
        surface_known: true,
    };
    Ok(respond::json(202, body, request, note))
}

/// Tag of everything cached for a subject.
pub(crate) fn user_tag(subject: &str) -> String {
    format!("user:{subject}")
}
