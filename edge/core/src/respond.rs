//! From a draft to a response: the body, its headers, what was shown, and what the host keeps.

mod headers;

use crate::context::Held;
use crate::page;
use crate::pick;
use crate::ports::{
    Body, CacheState, Header, Host, Keep, LogLevel, Note, Request, Response, RouteLabel,
};
use crate::serve::Run;
use headers::{headers, traceparent};
use skerry_decide::reason;
use skerry_types::{
    Attributes, Candidate, Cause, Decision, Millis, Route, Rung, Uid, Warning, WarningCode,
};
use skerry_wire::encode;
use skerry_wire::json::{self, AnswerView, ItemView, Problem, Served, Slots};
use skerry_wire::value::{ExposedItem, NextPage, RenderedHead, Shown, exposure, metadata};
use std::sync::Arc;

/// An answer before it is rendered.
pub(crate) struct Draft {
    pub decision: Decision,
    pub rung: Rung,
    pub cause: Option<Cause>,
    pub cache: CacheState,
    /// Which of the decision's candidates may be shown, in order.
    pub picked: Vec<usize>,
    /// Items shown by earlier pages: ranks go on from here.
    pub shown_before: u16,
    pub warnings: Vec<Warning>,
    /// Where the host shall keep the rendered body.
    pub keep: Option<KeepFor>,
}

/// For which key and how long the host keeps a rendered body.
pub(crate) struct KeepFor {
    pub key: Vec<u8>,
    pub render: u64,
    pub context_version: u64,
    pub until: Millis,
}

impl Draft {
    pub(crate) fn new(
        decision: Decision,
        rung: Rung,
        cause: Option<Cause>,
        cache: CacheState,
        picked: Vec<usize>,
    ) -> Self {
        // The origin's own count of what it found is replaced by what can be shown now.
        let kept = decision
            .warnings
            .iter()
            .filter(|warning| warning.code != WarningCode::Underfilled);
        let warnings = kept.cloned().collect();
        Self {
            decision,
            rung,
            cause,
            cache,
            picked,
            shown_before: 0,
            warnings,
            keep: None,
        }
    }
}

/// The response to a question.
pub(crate) fn answer<H: Host>(mut run: Run<'_, H>, mut draft: Draft) -> Response {
    let now = run.request.now;
    let wanted = match &run.ask.route {
        Route::Rank { items } => items.len(),
        _ => run.ask.n.get(),
    };
    let keep = draft.keep.take();
    let mut warnings = std::mem::take(&mut draft.warnings);
    let first: Vec<&Candidate> = take(&draft, 0, wanted);
    if first.len() < wanted {
        let detail = format!("{} of {wanted} items", first.len()).into();
        warnings.push(Warning {
            code: WarningCode::Underfilled,
            detail,
        });
    }
    let until = keep.as_ref().map(|keep| keep.until);
    let next = next_token(&run, &draft, wanted, until);
    let texts: Vec<String> = match run.ask.explain {
        true => first
            .iter()
            .map(|candidate| reason::text(&candidate.reason))
            .collect(),
        false => Vec::new(),
    };
    let mut items: Vec<ItemView<'_>> = match run.ask.explain {
        true => first
            .iter()
            .zip(&texts)
            .map(|(one, text)| ItemView::explained(one, text, "template"))
            .collect(),
        false => first.iter().map(|one| ItemView::of(one)).collect(),
    };
    let read = |one: &&Candidate| metadata::read(&one.fields).unwrap_or_default();
    let asked: Vec<Attributes> = match run.ask.fields.is_empty() {
        true => Vec::new(),
        false => first.iter().map(read).collect(),
    };
    for (item, attributes) in items.iter_mut().zip(&asked) {
        *item = item.with(attributes);
    }
    let (region, pop) = run
        .config
        .as_ref()
        .map_or(("", ""), |config| (&*config.region, &*config.pop));
    let took_us = run.host.tick().since_us(run.request.tick);
    let view = AnswerView {
        request_id: run.request_id,
        items: &items,
        shown: draft.shown_before,
        fields: &run.ask.fields,
        served: Served {
            rung: draft.rung,
            cause: draft.cause,
            as_of_ms: draft.decision.as_of_ms,
            age_ms: now.saturating_sub(draft.decision.as_of_ms),
            cache: draft.cache.as_str(),
            decision_id: draft.decision.id,
            region: if draft.decision.region.is_empty() {
                region
            } else {
                &draft.decision.region
            },
            pop,
            model: &draft.decision.model,
            took_ms: took_us / 1000,
        },
        next: next.as_deref(),
        warnings: &warnings,
    };
    let mut body = Vec::with_capacity(512 + 256 * items.len());
    let slots = json::render_answer(&view, &mut body);
    let shown = shown(&run, &draft, &first);
    let was_hit = draft.cache == CacheState::Hit;
    let exposure = exposure::join(run.request_id, now, was_hit, &shown);
    run.timings
        .push(("total", u32::try_from(took_us).unwrap_or(u32::MAX)));
    let note = note(&run, draft.rung, draft.cause, draft.cache);
    let ttl_s = until.map(|until| until.saturating_sub(now) / 1000);
    let headers = headers(run.request, draft.rung, draft.cache, ttl_s, &run.timings);
    let body = match keep {
        Some(keep) => keep_body(&draft, keep, body, slots, shown),
        None => Body::Inline(body),
    };
    Response {
        status: 200,
        headers,
        body,
        note,
        revalidate: false,
        exposure,
    }
}

/// The response to a cache hit on a rendered body: four fixed-width fields are overwritten.
pub(crate) fn hit<H: Host>(run: &Run<'_, H>, head: &RenderedHead) -> Response {
    let now = run.request.now;
    let took_us = run.host.tick().since_us(run.request.tick);
    let age_ms = now.saturating_sub(head.as_of_ms);
    let cache = CacheState::Hit;
    let patches = Slots::patches(run.request_id, age_ms, cache.as_str(), took_us / 1000);
    let timings = [("total", u32::try_from(took_us).unwrap_or(u32::MAX))];
    let ttl_s = Some(head.expires_ms.saturating_sub(now) / 1000);
    Response {
        status: 200,
        headers: headers(run.request, head.rung, cache, ttl_s, &timings),
        body: Body::Stored(patches.to_vec()),
        note: note(run, head.rung, head.cause, cache),
        revalidate: false,
        exposure: exposure::join(run.request_id, now, true, &head.shown),
    }
}

/// To a revalidation: nobody reads it.
pub(crate) fn nothing<H: Host>(run: &Run<'_, H>) -> Response {
    Response {
        status: 204,
        headers: Vec::new(),
        body: Body::Inline(Vec::new()),
        note: Note {
            rung: None,
            ..note(run, Rung::Popular, None, CacheState::Bypass)
        },
        revalidate: false,
        exposure: Vec::new(),
    }
}

/// A problem as a response.
pub(crate) fn problem(problem: &Problem, request: &Request, request_id: Uid) -> Response {
    let mut headers = vec![
        (Header::ContentType, json::CONTENT_TYPE_PROBLEM.to_owned()),
        (Header::CacheControl, "no-store".to_owned()),
        (Header::Traceparent, traceparent(request)),
    ];
    if let Some(seconds) = problem.retry_after_s {
        headers.push((Header::RetryAfter, seconds.to_string()));
    }
    if let Some(allow) = problem.allow {
        headers.push((Header::Allow, allow.to_owned()));
    }
    if problem.status == 401 {
        headers.push((Header::WwwAuthenticate, "Bearer".to_owned()));
    }
    let route = route_label(request);
    let note = Note {
        route,
        rung: None,
        cause: None,
        cache: None,
        surface_known: true,
    };
    Response {
        status: problem.status,
        headers,
        body: Body::Inline(problem.render(request_id)),
        note,
        revalidate: false,
        exposure: Vec::new(),
    }
}

/// A plain JSON response.
pub(crate) fn json(status: u16, body: Vec<u8>, request: &Request, note: Note) -> Response {
    let headers = vec![
        (Header::ContentType, json::CONTENT_TYPE_JSON.to_owned()),
        (Header::CacheControl, "private, no-store".to_owned()),
        (Header::Traceparent, traceparent(request)),
    ];
    Response {
        status,
        headers,
        body: Body::Inline(body),
        note,
        revalidate: false,
        exposure: Vec::new(),
    }
}

/// The next page of a list: its items' metadata from the pool, everything else from the token.
pub(crate) async fn next_draft<H: Host>(
    run: &mut Run<'_, H>,
    page: NextPage,
    held: Option<&Held>,
) -> Draft {
    run.ask.surface = page.surface;
    run.ask.explain |= page.explain;
    if run.ask.fields.is_empty() {
        run.ask.fields = page.fields;
    }
    let candidates = page::candidates(run.host, page.because, page.rest).await;
    let decision = Decision {
        id: page.decision_id,
        rung: page.rung,
        cause: page.cause,
        made_ms: run.request.now,
        as_of_ms: page.as_of_ms,
        model: page.model,
        region: Arc::from(""),
        seed: page.seed,
        snapshot: page.snapshot,
        candidates,
        warnings: Vec::new(),
    };
    let picked = pick::pick(
        run.host,
        &run.ask,
        held.map_or(&[], Held::seen),
        &run.request.epochs,
        run.request.now,
        &decision.candidates,
    )
    .await;
    let (rung, cause) = (decision.rung, decision.cause);
    Draft {
        shown_before: page.shown,
        ..Draft::new(decision, rung, cause, CacheState::Bypass, picked)
    }
}

fn take(draft: &Draft, skip: usize, n: usize) -> Vec<&Candidate> {
    draft
        .picked
        .iter()
        .skip(skip)
        .take(n)
        .filter_map(|at| draft.decision.candidates.get(*at))
        .collect()
}

/// What is left of the list after this page, sealed; `None` at its end.
fn next_token<H: Host>(
    run: &Run<'_, H>,
    draft: &Draft,
    shown: usize,
    until: Option<Millis>,
) -> Option<String> {
    let config = run.config.as_ref()?;
    let rest = take(draft, shown, usize::MAX);
    if rest.is_empty() || matches!(run.ask.route, Route::Rank { .. }) {
        return None;
    }
    let (because, rest) = page::items(&rest, run.ask.explain);
    // A body that is kept is given out again: its token works 10 minutes from the last time.
    let fresh_until = until.map_or(run.request.now, |until| until.min(run.request.now + DAY_MS));
    let page = NextPage {
        tenant: run.tenant().clone(),
        subject: run.subject.as_deref().map(Into::into),
        surface: run.ask.surface.clone(),
        expires_ms: fresh_until + page::NEXT_MS,
        decision_id: draft.decision.id,
        rung: draft.rung,
        cause: draft.cause,
        as_of_ms: draft.decision.as_of_ms,
        model: Arc::clone(&draft.decision.model),
        seed: draft.decision.seed,
        snapshot: draft.decision.snapshot,
        shown: draft
            .shown_before
            .saturating_add(u16::try_from(shown).unwrap_or(u16::MAX)),
        explain: run.ask.explain,
        fields: run.ask.fields.clone(),
        because,
        rest,
    };
    page::seal(&config.sealing_key, &page, run.request.entropy)
}
const DAY_MS: Millis = 24 * 60 * 60 * 1000;

fn keep_body(draft: &Draft, keep: KeepFor, bytes: Vec<u8>, slots: Slots, shown: Vec<u8>) -> Body {
    let head = RenderedHead {
        decision_id: draft.decision.id,
        made_ms: draft.decision.made_ms,
        as_of_ms: draft.decision.as_of_ms,
        expires_ms: keep.until,
        rung: draft.rung,
        cause: draft.cause,
        shown,
    };
    match encode(&head) {
        Ok(head) => Body::Keep(Keep {
            bytes,
            key: keep.key,
            render: keep.render,
            context_version: keep.context_version,
            until: keep.until,
            slots: slots.to_array().to_vec(),
            head,
        }),
        Err(_) => Body::Inline(bytes),
    }
}

fn shown<H: Host>(run: &Run<'_, H>, draft: &Draft, items: &[&Candidate]) -> Vec<u8> {
    let items = items.iter().map(|candidate| ExposedItem {
        id: candidate.id.clone(),
        score: candidate.score,
        source: candidate.source,
        propensity: candidate.propensity,
    });
    let shown = Shown {
        tenant: run.tenant().clone(),
        decision_id: draft.decision.id,
        rung: draft.rung,
        cause: draft.cause,
        surface: run.ask.surface.clone(),
        subject: run.subject.as_deref().map(Into::into),
        pop: run
            .config
            .as_ref()
            .map_or_else(|| Arc::from(""), |config| Arc::clone(&config.pop)),
        snapshot: draft.decision.snapshot,
        seed: draft.decision.seed,
        model: Arc::clone(&draft.decision.model),
        items: items.collect(),
    };
    encode(&shown).unwrap_or_else(|error| {
        run.host.log(
            LogLevel::Warn,
            &format!("an exposure does not encode: {error}"),
        );
        Vec::new()
    })
}

fn note<H: Host>(run: &Run<'_, H>, rung: Rung, cause: Option<Cause>, cache: CacheState) -> Note {
    let configured = run
        .config
        .as_ref()
        .is_some_and(|config| config.surfaces.contains(&run.ask.surface));
    let route = match run.ask.route {
        Route::Recommend => RouteLabel::Recommend,
        Route::Similar { .. } => RouteLabel::Similar,
        Route::Rank { .. } => RouteLabel::Rank,
        Route::Popular => RouteLabel::Popular,
    };
    let surface_known = configured || run.ask.surface == skerry_types::Surface::default();
    Note {
        route,
        rung: Some(rung),
        cause,
        cache: Some(cache),
        surface_known,
    }
}

/// The route of a request that was refused before it was parsed.
fn route_label(request: &Request) -> RouteLabel {
    let (path, _) = json::split_target(&request.target);
    match path
        .strip_prefix("/v1/")
        .and_then(|rest| rest.split('/').next())
    {
        Some("recommend") => RouteLabel::Recommend,
        Some("similar") => RouteLabel::Similar,
        Some("rank") => RouteLabel::Rank,
        Some("events") => RouteLabel::Events,
        Some("popular") => RouteLabel::Popular,
        _ => RouteLabel::Unknown,
    }
}
