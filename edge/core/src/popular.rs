//! The last rung: the popular list for the surface and locale, under the same rights, filter and
//! exclusions as everything else. It needs no user, no pool and no origin.

use crate::ports::{CacheState, Host};
use crate::respond::Draft;
use crate::serve::Run;
use skerry_decide::reason;
use skerry_types::{Candidate, Cause, Decision, Metadata, Millis, Route, Rung, Source, Warning};

/// The list, or for `rank` the caller's own items in the order in which they came. `lost` is why
/// nothing better could be had; `None` where the list is what was asked for.
pub(crate) async fn draft<H: Host>(run: &mut Run<'_, H>, lost: Option<Cause>) -> Draft {
    if let Route::Rank { items } = &run.ask.route {
        let own = items
            .iter()
            .map(|id| candidate(id.clone(), 0.0, Metadata::default()));
        let candidates: Vec<Candidate> = own.collect();
        let decision = decision(run, candidates, run.request.now);
        let picked = run.pick(&decision, None).await;
        return Draft::new(decision, Rung::Popular, lost, CacheState::Bypass, picked);
    }
    let surface = run.ask.surface.as_str();
    let locale = run.ask.context.locale.as_deref().unwrap_or_default();
    let list = run
        .worker
        .popular(run.host, &run.request.epochs, surface, locale)
        .await;
    let (candidates, as_of, cause) = match &list {
        Some(list) => {
            let items = list.items.iter();
            let items =
                items.map(|item| candidate(item.id.clone(), item.score, item.fields.clone()));
            (items.collect(), list.as_of_ms, lost)
        }
        // Nothing was ever pushed here: an empty list that says so beats an error.
        None => (
            Vec::new(),
            run.request.now,
            Some(lost.unwrap_or(Cause::ColdPop)),
        ),
    };
    let decision = decision(run, candidates, as_of);
    let context = match run.context_key.is_empty() {
        true => None,
        false => crate::context::load(run.host, &run.context_key).await,
    };
    let picked = run.pick(&decision, context.as_ref()).await;
    Draft::new(decision, Rung::Popular, cause, CacheState::Bypass, picked)
}

fn candidate(id: skerry_types::ItemId, score: f32, fields: Metadata) -> Candidate {
    Candidate {
        id,
        score,
        source: Source::Popular,
        propensity: 1.0,
        reason: reason::popular(),
        fields,
    }
}

fn decision<H: Host>(run: &Run<'_, H>, candidates: Vec<Candidate>, as_of: Millis) -> Decision {
    run.own_decision(
        Rung::Popular,
        candidates,
        as_of,
        "popular",
        0,
        Vec::<Warning>::new(),
    )
}
