//! The top rung: one question to the origin, and what is kept of its answer.

use crate::context::{self, Held};
use crate::events::user_tag;
use crate::ports::{AskFailure, CacheEntry, CacheState, Host, LogLevel, Plan};
use crate::respond::{Draft, KeepFor};
use crate::serve::{Run, seed};
use skerry_types::ids::tenant_hash;
use skerry_types::{Cause, Millis, Route};
use skerry_wire::frame::{AnswerFrame, AskFrame, RefusalCode};
use skerry_wire::value::EventBatch;
use skerry_wire::{decode, encode};

/// An expired response still serves as `cached` for this long, in milliseconds.
const STALE_MS: Millis = 24 * 60 * 60 * 1000;
/// A user who acted within this time gets the shorter freshness, in milliseconds.
const ACTIVE_MS: Millis = 30 * 60 * 1000;
/// Freshness without a configuration, in milliseconds: active users, others.
const FRESH_MS: (u32, u32) = (5 * 60 * 1000, 15 * 60 * 1000);

impl<H: Host> Run<'_, H> {
    /// The origin's answer, kept for the next request; or why there is none.
    pub(crate) async fn ask_origin(
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
    pub(crate) async fn store(&self, key: &[u8], decision: Vec<u8>, expires: Millis) {
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

    /// Asks the origin for the cache's sake. What goes wrong here shows when the list is asked for.
    pub(crate) async fn refresh(&mut self, held: Option<&Held>, key: &[u8], render: u64) {
        let left_ms = self.left_ms();
        if left_ms > 0 && self.plan(left_ms).ask {
            drop(self.ask_origin(held, key, render, left_ms).await);
        }
    }

    pub(crate) fn plan(&self, left_ms: u32) -> Plan {
        let subject = self.subject.as_deref().unwrap_or_default();
        let hash = tenant_hash(&self.ask.tenant, subject);
        self.host.plan(hash, left_ms)
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
}
