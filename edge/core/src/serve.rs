//! The whole edge path, top to bottom: parse and admit, response cache, plan by the ladder, origin,
//! rank here, expired response, popular list; then store, record and answer.
//!
//! Invariant: a valid, authorised question always gets an answer here. Faults lower the rung.

use crate::cache_key::render_hash;
use crate::context::{self, Held};
use crate::events;
use crate::keys::{self, Caller};
use crate::ports::{Host, Method, Request, Response};
use crate::respond::{self, Draft};
use crate::worker::WorkerState;
use crate::{page, pick, popular, rank};
use skerry_types::{
    Ask, Budget, Candidate, Cause, Country, Decision, Millis, Route, Rung, TenantId, Tick, Uid,
    Warning, WarningCode, context_key,
};
use skerry_wire::json::{self, Problem, RouteMatch, codes};
use skerry_wire::value::ConfigBlob;
use std::rc::Rc;
use std::sync::Arc;

/// Kept back from the budget for rendering and for the rungs below, in milliseconds.
const RENDER_MS: u32 = 3;

/// Serves one request. Always a response; a 5xx only where the caller's `lowest_rung` asks for it
/// or an event cannot be made durable.
pub async fn serve<H: Host>(host: &H, worker: &mut WorkerState, request: Request) -> Response {
    let request_id = Uid::v7(request.now, request.entropy);
    match handle(host, worker, &request, request_id).await {
        Ok(response) => response,
        Err(problem) => respond::problem(&problem, &request, request_id),
    }
}

async fn handle<H: Host>(
    host: &H,
    worker: &mut WorkerState,
    request: &Request,
    request_id: Uid,
) -> Result<Response, Problem> {
    let (path, query) = json::split_target(&request.target);
    let route = json::match_route(method_name(request.method), path);
    if let Some(problem) = route.problem(path) {
        return Err(problem);
    }
    let config = worker.config(host, &request.epochs).await;
    let caller = keys::admit(config.as_deref(), request)?;
    let parsed = match route {
        RouteMatch::Recommend => json::parse_recommend(&request.body, &caller.tenant)?,
        RouteMatch::RecommendGet { user } => {
            json::parse_recommend_get(user, query, &caller.tenant)?
        }
        RouteMatch::Similar => json::parse_similar(&request.body, &caller.tenant)?,
        RouteMatch::Rank => json::parse_rank(&request.body, &caller.tenant)?,
        RouteMatch::Popular => json::parse_popular_get(query, &caller.tenant)?,
        RouteMatch::Events => {
            return events::accept(host, config.as_deref(), &caller, request).await;
        }
        _ => return Err(Problem::not_found("this endpoint is the host's")),
    };
    let mut ask = parsed.ask;
    caller.may_name(ask.user.as_ref())?;
    if ask.context.country.is_none() {
        ask.context.country = request.header("x-skerry-country").and_then(Country::parse);
    }
    let subject = ask.subject();
    let context_key = subject
        .as_deref()
        .map(|subject| context_key(&ask.tenant, subject))
        .unwrap_or_default();
    let run = Run {
        budget: Budget::starting(request.tick, ask.budget_ms).minus_ms(RENDER_MS),
        host,
        worker,
        request,
        request_id,
        config,
        caller,
        ask,
        subject,
        context_key,
        timings: Vec::new(),
    };
    match parsed.next {
        Some(token) => run.go_on(&token).await,
        None => run.answer().await,
    }
}

/// One question on its way.
pub(crate) struct Run<'a, H: Host> {
    pub host: &'a H,
    pub worker: &'a mut WorkerState,
    pub request: &'a Request,
    pub request_id: Uid,
    pub config: Option<Rc<ConfigBlob>>,
    pub caller: Caller,
    pub ask: Ask,
    /// `u:USER` or `s:SESSION`.
    pub subject: Option<String>,
    /// Key of the subject's context; empty for nobody.
    pub context_key: String,
    pub budget: Budget,
    /// For `Server-Timing`: microseconds by step.
    pub timings: Vec<(&'static str, u32)>,
}

impl<H: Host> Run<'_, H> {
    async fn answer(mut self) -> Result<Response, Problem> {
        if self.ask.route == Route::Popular {
            let draft = popular::draft(&mut self, None).await;
            return self.finish(draft).await;
        }
        let render = render_hash(&self.ask, &self.request.epochs);
        let (found, key) = self.lookup(render).await;
        if !self.request.revalidate
            && let Some(response) = self.rendered(&found)
        {
            return Ok(response);
        }
        let held = self.context(&found).await;
        if self.request.revalidate {
            self.refresh(held.as_ref(), &key, render).await;
            return Ok(respond::nothing(&self));
        }
        if let Some(draft) = self.fresh(&found, held.as_ref(), &key, render).await {
            return self.finish(draft).await;
        }
        let left_ms = self.left_ms();
        let plan = self.plan(left_ms);
        let mut lost = plan.cause;
        if plan.ask
            && lost.is_none()
            && let Some(draft) = self.just_expired(&found, held.as_ref()).await
        {
            let mut response = self.finish(draft).await?;
            response.revalidate = true;
            return Ok(response);
        }
        if plan.ask && left_ms > 0 {
            match self.ask_origin(held.as_ref(), &key, render, left_ms).await {
                Ok(draft) => return self.finish(draft.capped(plan.best, plan.cause)).await,
                Err(cause) => lost = Some(cause),
            }
        } else if lost.is_none() {
            lost = Some(Cause::Deadline);
        }
        let lost = lost.unwrap_or(Cause::OriginDown);
        let draft = match rank::draft(&mut self, held.as_ref(), lost).await {
            Ok(draft) => draft,
            Err(further) => match self.expired(&found, held.as_ref(), lost).await {
                Some(draft) => draft.further(further),
                None => popular::draft(&mut self, Some(lost)).await.further(further),
            },
        };
        self.finish(draft).await
    }

    /// The rest of a list that was begun before.
    async fn go_on(mut self, token: &str) -> Result<Response, Problem> {
        let key = self.config.as_ref().map(|config| config.sealing_key);
        let key = key.ok_or_else(|| {
            Problem::unavailable(codes::UNAVAILABLE, "this PoP has no configuration yet", 1)
        })?;
        let page = page::open(&key, token, self.request.now)?;
        let same =
            page.tenant == self.ask.tenant && page.subject.as_deref() == self.subject.as_deref();
        if !same {
            return Err(Problem::bad_request(
                codes::NEXT_INVALID,
                "this next token was given to another user",
            ));
        }
        let held = match self.context_key.is_empty() {
            true => None,
            false => context::load(self.host, &self.context_key).await,
        };
        let draft = respond::next_draft(&mut self, page, held.as_ref()).await;
        self.finish(draft).await
    }

    async fn finish(self, draft: Draft) -> Result<Response, Problem> {
        if let Some(lowest) = self.ask.lowest_rung
            && !draft.rung.at_least(lowest)
        {
            let detail = format!(
                "the best answer now is on rung {}, {lowest} was asked for",
                draft.rung
            );
            return Err(Problem::unavailable(codes::BELOW_LOWEST_RUNG, detail, 1));
        }
        Ok(respond::answer(self, draft))
    }

    pub(crate) async fn pick(&self, decision: &Decision, held: Option<&Held>) -> Vec<usize> {
        pick::pick(
            self.host,
            &self.ask,
            held.map_or(&[], Held::seen),
            &self.request.epochs,
            self.request.now,
            &decision.candidates,
        )
        .await
    }

    pub(crate) fn left_ms(&self) -> u32 {
        self.budget.left_ms(self.host.tick())
    }

    /// A decision made here.
    pub(crate) fn own_decision(
        &self,
        rung: Rung,
        candidates: Vec<Candidate>,
        as_of: Millis,
        model: &str,
        snapshot: u64,
        warnings: Vec<Warning>,
    ) -> Decision {
        let entropy = self.request.entropy;
        Decision {
            // The request id holds the entropy itself; a decision's id must differ from it.
            id: Uid::v7(
                self.request.now,
                entropy.rotate_left(61) ^ 0x9e37_79b9_7f4a_7c15,
            ),
            rung,
            cause: None,
            made_ms: self.request.now,
            as_of_ms: as_of,
            model: Arc::from(model),
            region: self
                .config
                .as_ref()
                .map_or_else(|| Arc::from(""), |config| Arc::clone(&config.region)),
            seed: seed(entropy),
            snapshot,
            candidates,
            warnings,
        }
    }

    pub(crate) fn time(&mut self, step: &'static str, since: Tick) {
        let us = self.host.tick().since_us(since);
        self.timings
            .push((step, u32::try_from(us).unwrap_or(u32::MAX)));
    }

    pub(crate) fn tenant(&self) -> &TenantId {
        &self.caller.tenant
    }
}

impl Draft {
    /// An answer of an origin that lost a capability is not on the top rung, whatever it says itself.
    fn capped(mut self, best: Rung, cause: Option<Cause>) -> Self {
        if self.rung < best {
            self.rung = best;
            self.cause = cause;
        }
        self
    }

    /// Adds a cause beside the first.
    fn further(mut self, cause: Cause) -> Self {
        if self.cause != Some(cause) {
            let detail = cause.as_str().into();
            self.warnings.push(Warning {
                code: WarningCode::FurtherCause,
                detail,
            });
        }
        self
    }
}

/// The seed of a request's draws.
pub(crate) fn seed(entropy: u128) -> u64 {
    (entropy >> 64) as u64 ^ entropy as u64
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Patch => "PATCH",
        Method::Delete => "DELETE",
        Method::Options => "OPTIONS",
        Method::Other => "OTHER",
    }
}

#[cfg(test)]
mod tests;
