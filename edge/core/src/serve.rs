//! The whole edge path, top to bottom: parse and admit, response cache, plan by the ladder, origin,
//! rank here, expired response, popular list; then store, record and answer.
//!
//! Invariant: a valid, authorised question always gets an answer here. Faults lower the rung.

use crate::cache_key::{decision_key, is_narrow, render_hash};
use crate::context::{self, Held};
use crate::events::{self, user_tag};
use crate::keys::{self, Caller};
use crate::ports::{
    AskFailure, CacheEntry, CacheState, Found, Host, LogLevel, Method, Request, Response,
};
use crate::respond::{self, Draft, KeepFor};
use crate::worker::WorkerState;
use crate::{page, pick, popular, rank};
use skerry_types::ids::tenant_hash;
use skerry_types::{
    Ask, Budget, Candidate, Cause, Country, Decision, Millis, Route, Rung, TenantId, Tick, Uid,
    Warning, WarningCode, context_key,
};
use skerry_wire::frame::{AnswerFrame, AskFrame, RefusalCode};
use skerry_wire::json::{self, Problem, RouteMatch, codes};
use skerry_wire::value::{ConfigBlob, EventBatch, RenderedHead, StoredDecision, exposure};
use skerry_wire::{decode, encode};
use std::rc::Rc;
use std::sync::Arc;

/// Kept back from the budget for rendering and for the rungs below, in milliseconds.
const RENDER_MS: u32 = 3;
/// An expired response still serves as `cached` for this long, in milliseconds.
const STALE_MS: Millis = 24 * 60 * 60 * 1000;
/// A user who acted within this time gets the shorter freshness, in milliseconds.
const ACTIVE_MS: Millis = 30 * 60 * 1000;
/// Freshness without a configuration, in milliseconds: active users, others.
const FRESH_MS: (u32, u32) = (5 * 60 * 1000, 15 * 60 * 1000);

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
        if let Some((response, shown)) = self.rendered(&found) {
            let exposure = exposure::join(self.request_id, self.request.now, true, &shown);
            self.host.expose(exposure).await;
            return Ok(response);
        }
        let held = self.context(&found).await;
        if let Some(draft) = self.fresh(&found, held.as_ref(), &key, render).await {
            return self.finish(draft).await;
        }
        let left_ms = self.left_ms();
        let hash = tenant_hash(
            &self.ask.tenant,
            self.subject.as_deref().unwrap_or_default(),
        );
        let plan = self.host.plan(hash, left_ms);
        let mut lost = plan.cause;
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

    /// The response cache, under the key that fits the question best. A narrowed question may be
    /// served from the wider decision where enough of it remains.
    async fn lookup(&mut self, render: u64) -> (Found, Vec<u8>) {
        let now = self.request.now;
        let subject = (!self.context_key.is_empty()).then_some(self.context_key.as_str());
        let key = decision_key(&self.ask, subject, is_narrow(&self.ask));
        if matches!(self.ask.route, Route::Rank { .. }) {
            return (Found::default(), key);
        }
        let mut found = self.host.lookup(&key, &self.context_key, render, now).await;
        if is_narrow(&self.ask) && found.entry.is_none() && found.rendered.is_none() {
            let wide = decision_key(&self.ask, subject, false);
            // A body rendered under the wide key has the wrong items; only the decision serves.
            let wider = self
                .host
                .lookup(&wide, &self.context_key, render, now)
                .await;
            found.entry = wider.entry;
        }
        (found, key)
    }

    /// The body as it was rendered before, with what must be new in it overwritten.
    fn rendered(&self, found: &Found) -> Option<(Response, Vec<u8>)> {
        let rendered = found.rendered.as_ref()?;
        let head: RenderedHead = decode(&rendered.head).ok()?;
        if self.request.now >= head.expires_ms {
            return None;
        }
        respond::hit(self, &head, &rendered.slots).map(|response| (response, head.shown))
    }

    async fn context(&mut self, found: &Found) -> Option<Held> {
        let cached = matches!(self.ask.route, Route::Rank { .. });
        if self.context_key.is_empty() || (found.context_version == 0 && !cached) {
            return None;
        }
        context::load(self.host, &self.context_key, self.request.now).await
    }

    /// A cached decision inside its freshness, where enough of it may still be shown.
    async fn fresh(
        &mut self,
        found: &Found,
        held: Option<&Held>,
        key: &[u8],
        render: u64,
    ) -> Option<Draft> {
        let entry = found
            .entry
            .as_ref()
            .filter(|entry| self.request.now < entry.expires)?;
        let decision = self.decode_decision(&entry.decision)?;
        let picked = self.pick(&decision, held).await;
        if picked.len() < self.ask.n.get() {
            return None;
        }
        let (rung, cause) = (decision.rung, decision.cause);
        let keep = KeepFor {
            key: key.to_vec(),
            render,
            context_version: found.context_version,
            until: entry.expires.min(self.request.epochs.mask_until),
        };
        Some(Draft {
            keep: Some(keep),
            ..Draft::new(decision, rung, cause, CacheState::Hit, picked)
        })
    }

    /// A cached decision past its freshness: personal, but old.
    async fn expired(&mut self, found: &Found, held: Option<&Held>, lost: Cause) -> Option<Draft> {
        let entry = found
            .entry
            .as_ref()
            .filter(|entry| self.request.now < entry.stale_until)?;
        let decision = self.decode_decision(&entry.decision)?;
        let picked = self.pick(&decision, held).await;
        (!picked.is_empty()).then(|| {
            Draft::new(
                decision,
                Rung::Cached,
                Some(lost),
                CacheState::Stale,
                picked,
            )
        })
    }

    /// The origin's answer, kept for the next request; or why there is none.
    async fn ask_origin(
        &mut self,
        held: Option<&Held>,
        key: &[u8],
        render: u64,
        left_ms: u32,
    ) -> Result<Draft, Cause> {
        let started = self.host.tick();
        let pending = match self.context_key.is_empty() {
            true => Vec::new(),
            false => decode::<EventBatch>(&self.host.pending(&self.context_key).await)
                .map_or_else(|_| Vec::new(), |b| b.events),
        };
        let question = AskFrame {
            request_id: self.request_id,
            ask: self.ask.clone(),
            left_ms,
            seed: seed(self.request.entropy),
            pending,
            known_context: held.map_or(0, |held| held.mark(self.request.now)),
        };
        let question = encode(&question).map_err(|_| Cause::OriginError)?;
        let answered = self
            .host
            .ask(key, question, left_ms)
            .await
            .map_err(AskFailure::cause);
        self.time("origin", started);
        let frame: AnswerFrame = decode(&answered?).map_err(|error| {
            self.host.log(
                LogLevel::Warn,
                &format!("the origin's answer does not decode: {error}"),
            );
            Cause::OriginError
        })?;
        let answer = frame.outcome.map_err(|refusal| match refusal.code {
            RefusalCode::Overloaded => Cause::OriginOverloaded,
            RefusalCode::Deadline => Cause::OriginTimeout,
            RefusalCode::Draining | RefusalCode::NotReady => Cause::OriginDown,
            RefusalCode::Bad | RefusalCode::Internal => Cause::OriginError,
        })?;
        self.timings
            .extend(frame.stages.iter().map(|(stage, us)| (stage.as_str(), *us)));
        let now = self.request.now;
        let decision = answer.decision().map_err(|error| {
            self.host.log(
                LogLevel::Warn,
                &format!("the origin's decision does not decode: {error}"),
            );
            Cause::OriginError
        })?;
        let asked_version = held.map_or(0, |held| held.version);
        let fresh = match &answer.context {
            // Nothing is known of the subject, or the origin knows what is known here.
            None => None,
            Some(fresh) => {
                context::replace(self.host, &self.context_key, fresh, asked_version, now).await
            }
        };
        let version = match (&answer.context, &fresh) {
            (None, _) => Some(asked_version),
            (Some(_), fresh) => fresh.as_ref().map(|fresh| fresh.version).filter(|v| *v > 0),
        };
        let picked = self.pick(&decision, fresh.as_ref().or(held)).await;
        let keep = match version {
            Some(context_version) if !matches!(self.ask.route, Route::Rank { .. }) => {
                let active = now.saturating_sub(answer.newest_ms) < ACTIVE_MS;
                let expires = now + self.fresh_ms(active);
                self.store(key, answer.decision, expires).await;
                Some(KeepFor {
                    key: key.to_vec(),
                    render,
                    context_version,
                    until: expires.min(self.request.epochs.mask_until),
                })
            }
            _ => None,
        };
        let (rung, cause) = (decision.rung, decision.cause);
        Ok(Draft {
            keep,
            ..Draft::new(decision, rung, cause, CacheState::Miss, picked)
        })
    }

    /// Keeps an encoded decision.
    async fn store(&self, key: &[u8], decision: Vec<u8>, expires: Millis) {
        let tags = if self.context_key.is_empty() {
            Vec::new()
        } else {
            vec![user_tag(&self.context_key)]
        };
        let entry = CacheEntry {
            decision,
            expires,
            stale_until: self.request.now + STALE_MS,
        };
        self.host.store(key, &tags, entry).await;
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
            false => context::load(self.host, &self.context_key, self.request.now).await,
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
        Ok(respond::answer(self, draft).await)
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

    fn decode_decision(&self, bytes: &[u8]) -> Option<Decision> {
        decode::<StoredDecision>(bytes)
            .ok()
            .map(|stored| stored.decision)
    }

    fn left_ms(&self) -> u32 {
        self.budget.left_ms(self.host.tick())
    }

    /// Freshness with a jitter of a tenth, so that what was made together does not expire together.
    fn fresh_ms(&self, active: bool) -> Millis {
        let config = self.config.as_ref();
        let (active_ms, idle_ms) = config.map_or(FRESH_MS, |config| {
            (config.fresh_active_ms, config.fresh_idle_ms)
        });
        let base = u64::from(if active { active_ms } else { idle_ms });
        base * 9 / 10 + (base / 5).saturating_mul(seed(self.request.entropy) % 1000) / 1000
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
