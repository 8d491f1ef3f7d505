//! The rungs that need nobody: what the response cache and the KV hold for a question.

use crate::cache_key::{decision_key, is_narrow};
use crate::context::{self, Held};
use crate::ports::{CacheState, Found, Host, Response};
use crate::respond::{self, Draft, KeepFor};
use crate::serve::Run;
use skerry_types::{Cause, Decision, Millis, Route, Rung};
use skerry_wire::decode;
use skerry_wire::value::{RenderedHead, StoredDecision};

/// How long past its freshness a list still serves while a new one is made, in milliseconds.
const REVALIDATE_MS: Millis = 60 * 1000;

impl<H: Host> Run<'_, H> {
    /// The response cache, under the key that fits the question best. A narrowed question may be
    /// served from the wider decision where enough of it remains.
    pub(crate) async fn lookup(&mut self, render: u64) -> (Found, Vec<u8>) {
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
    pub(crate) fn rendered(&self, found: &Found) -> Option<Response> {
        let head: RenderedHead = decode(found.rendered.as_ref()?).ok()?;
        (self.request.now < head.expires_ms).then(|| respond::hit(self, &head))
    }

    pub(crate) async fn context(&mut self, found: &Found) -> Option<Held> {
        let cached = matches!(self.ask.route, Route::Rank { .. });
        if self.context_key.is_empty() || (found.context_version == 0 && !cached) {
            return None;
        }
        context::load(self.host, &self.context_key).await
    }

    /// A cached decision inside its freshness, where enough of it may still be shown.
    pub(crate) async fn fresh(
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

    /// A cached decision whose freshness ended a moment ago, while the origin can be asked for the
    /// next one: nobody waits for that.
    pub(crate) async fn just_expired(
        &mut self,
        found: &Found,
        held: Option<&Held>,
    ) -> Option<Draft> {
        let entry = found.entry.as_ref()?;
        if self.request.now >= entry.expires + REVALIDATE_MS {
            return None;
        }
        let decision = self.decode_decision(&entry.decision)?;
        let picked = self.pick(&decision, held).await;
        if picked.len() < self.ask.n.get() {
            return None;
        }
        let (rung, cause) = (decision.rung, decision.cause);
        Some(Draft::new(decision, rung, cause, CacheState::Stale, picked))
    }

    /// A cached decision past its freshness: personal, but old.
    pub(crate) async fn expired(
        &mut self,
        found: &Found,
        held: Option<&Held>,
        lost: Cause,
    ) -> Option<Draft> {
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

    fn decode_decision(&self, bytes: &[u8]) -> Option<Decision> {
        decode::<StoredDecision>(bytes)
            .ok()
            .map(|stored| stored.decision)
    }
}
