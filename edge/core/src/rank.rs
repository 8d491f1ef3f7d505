//! The `edge` rung: ranked here and now, without the origin, from the subject's last events against
//! the item pool that the origin pushed, with the bandit's parameters as they were pushed.

use crate::context::Held;
use crate::pick;
use crate::ports::{CacheState, Host, NO_ROW};
use crate::respond::Draft;
use crate::serve::{Run, seed};
use crate::worker::Arms;
use skerry_decide::score::{EDGE_HISTORY_MAX, EdgePool, HistoryStep, ScoreSource};
use skerry_decide::{bandit, reason, rules};
use skerry_types::{
    Candidate, Cause, ItemHash, ItemId, ItemRef, Metadata, Reason, ReasonKind, Route, Rung, Source,
    Taste, UserContext, Value, Warning, WarningCode,
};
use skerry_wire::decode;
use skerry_wire::value::{PoolItem, PoolItems, metadata};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Items described by one host call.
const CHUNK: usize = 64;

/// Ranks; or says which capability is missing.
pub(crate) async fn draft<H: Host>(
    run: &mut Run<'_, H>,
    held: Option<&Held>,
    lost: Cause,
) -> Result<Draft, Cause> {
    let started = run.host.tick();
    let epochs = run.request.epochs;
    let pool = run
        .worker
        .pool(run.host, &epochs)
        .await
        .ok_or(Cause::NoPool)?;
    let held = held.filter(|held| held.is_usable(run.request.now));
    let context = held.and_then(Held::context);
    let history = history(run, context).await;
    let seeds = match &run.ask.route {
        Route::Similar { seeds } => {
            let ids: Vec<&str> = seeds.iter().map(ItemId::as_str).collect();
            run.host
                .rows(&ids)
                .await
                .into_iter()
                .filter(|row| *row != NO_ROW)
                .collect()
        }
        _ => Vec::new(),
    };
    let known = if matches!(run.ask.route, Route::Similar { .. }) {
        !seeds.is_empty()
    } else {
        !history.is_empty()
    };
    if !known {
        return Err(Cause::NoContext);
    }
    let k = want(run, context).min(pool.len());
    let mut list = match &run.ask.route {
        Route::Rank { items } => {
            let items = items.clone();
            own_items(run, &pool, &history, &items).await
        }
        Route::Similar { .. } => {
            let ranked = pool.similar(&seeds, &mut run.worker.scratch, k);
            gather(run, context, &seeds, ranked).await
        }
        _ => {
            let ranked = pool.rank(&history, &mut run.worker.scratch, k);
            gather(run, context, &[], ranked).await
        }
    };
    let snapshot = explore(run, context, &mut list).await;
    let as_of = held
        .map_or(run.request.now, Held::written_ms)
        .min(epochs.pool_as_of);
    let warnings = list.warnings;
    let decision = run.own_decision(
        Rung::Edge,
        list.candidates,
        as_of,
        "edge-pool",
        snapshot,
        warnings,
    );
    let picked = run.pick(&decision, held).await;
    run.time("rank", started);
    if picked.is_empty() {
        return Err(Cause::NoPool);
    }
    Ok(Draft::new(
        decision,
        Rung::Edge,
        Some(lost),
        CacheState::Bypass,
        picked,
    ))
}

/// How many ranked items to look at: of so many, twice what is kept has not been seen; a filter may
/// need all of them.
fn want<H: Host>(run: &Run<'_, H>, context: Option<&UserContext>) -> usize {
    match run.ask.filter {
        Some(_) => usize::MAX,
        None => {
            2 * run.ask.n.kept()
                + run.ask.exclude.len()
                + context.map_or(0, |context| context.seen.len())
        }
    }
}

#[derive(Default)]
struct List {
    candidates: Vec<Candidate>,
    warnings: Vec<Warning>,
}

/// The subject's last events as rows of the pool, newest first.
async fn history<H: Host>(run: &Run<'_, H>, context: Option<&UserContext>) -> Vec<HistoryStep> {
    let Some(context) = context else {
        return Vec::new();
    };
    let last: Vec<_> = context.recent.iter().rev().take(EDGE_HISTORY_MAX).collect();
    let ids: Vec<&str> = last.iter().map(|event| event.item.as_str()).collect();
    let rows = run.host.rows(&ids).await;
    let known = last.iter().zip(rows).filter(|(_, row)| *row != NO_ROW);
    (0..)
        .zip(known)
        .map(|(age, (event, row))| HistoryStep {
            item: row,
            taste: event.taste(),
            age,
        })
        .collect()
}

/// From ranked rows to candidates: described in chunks until enough of them may be shown.
async fn gather<H: Host>(
    run: &Run<'_, H>,
    context: Option<&UserContext>,
    seeds: &[u32],
    ranked: Vec<(u32, f32, ScoreSource)>,
) -> List {
    let want = run.ask.n.kept();
    let seen = context.map_or(&[][..], |context| &context.seen);
    let seen = rules::LeftOut::new(seen, run.ask.exclude.iter().map(ItemId::hash));
    let mut titles = Titles::default();
    let mut candidates = Vec::with_capacity(want);
    let mut genres: Vec<Option<Arc<str>>> = Vec::with_capacity(want);
    for chunk in ranked.chunks(CHUNK.max(want)) {
        if candidates.len() >= want {
            break;
        }
        let because = chunk
            .iter()
            .filter_map(|(.., source)| source.because())
            .chain(seeds.first().copied());
        let because: Vec<u32> = because.collect();
        titles.learn(run.host, &because).await;
        let rows: Vec<u32> = chunk.iter().map(|(row, ..)| *row).collect();
        let items = describe(run.host, &rows).await;
        for ((_, score, source), item) in chunk.iter().zip(items) {
            let allowed = !seen.has(item.id.hash())
                && run
                    .ask
                    .filter
                    .as_ref()
                    .is_none_or(|filter| pick::fits(filter, &item.fields));
            if allowed && candidates.len() < want {
                let reason = match (&run.ask.route, source.because().or(seeds.first().copied())) {
                    (Route::Similar { .. }, Some(seed)) => {
                        titles.about(ReasonKind::SimilarTo, seed)
                    }
                    (_, Some(row)) => titles.because(context, row),
                    (_, None) => None,
                };
                let fallback = || genre_reason(&item).unwrap_or_else(reason::popular);
                let reason = reason.unwrap_or_else(fallback);
                genres.push(item.genre);
                candidates.push(Candidate {
                    id: item.id,
                    score: share(*score),
                    source: match source {
                        ScoreSource::Vector { .. } => Source::Vector,
                        ScoreSource::Followers { .. } => Source::Recent,
                        ScoreSource::Popular => Source::Popular,
                    },
                    propensity: 1.0,
                    reason,
                    fields: item.fields,
                });
            }
        }
    }
    let genres: Vec<Option<&str>> = genres.iter().map(Option::as_deref).collect();
    let order = rules::diversify(&genres, &rules::genres_named(run.ask.filter.as_ref()));
    let mut slots: Vec<Option<Candidate>> = candidates.into_iter().map(Some).collect();
    let candidates = order
        .into_iter()
        .filter_map(|at| slots.get_mut(at).and_then(Option::take))
        .collect();
    List {
        candidates,
        warnings: Vec::new(),
    }
}

/// The caller's items by score; those that the pool does not know come last, as they came.
async fn own_items<H: Host>(
    run: &mut Run<'_, H>,
    pool: &EdgePool,
    history: &[HistoryStep],
    items: &[ItemId],
) -> List {
    let ids: Vec<&str> = items.iter().map(ItemId::as_str).collect();
    let rows = run.host.rows(&ids).await;
    let known: Vec<u32> = rows.iter().copied().filter(|row| *row != NO_ROW).collect();
    let scores: BTreeMap<u32, f32> = known
        .iter()
        .copied()
        .zip(pool.score_items(history, &mut run.worker.scratch, &known))
        .map(|(row, score)| (row, share(score)))
        .collect();
    let described: BTreeMap<u32, PoolItem> = known
        .iter()
        .copied()
        .zip(describe(run.host, &known).await)
        .collect();
    let mut candidates: Vec<(Option<f32>, Candidate)> = items
        .iter()
        .zip(&rows)
        .map(|(id, row)| {
            let score = scores.get(row).copied();
            let fields = described
                .get(row)
                .map(|item| item.fields.clone())
                .unwrap_or_default();
            let source = if score.is_some() {
                Source::Vector
            } else {
                Source::Popular
            };
            let score_shown = score.unwrap_or(0.0);
            let reason = reason::popular();
            (
                score,
                Candidate {
                    id: id.clone(),
                    score: score_shown,
                    source,
                    propensity: 1.0,
                    reason,
                    fields,
                },
            )
        })
        .collect();
    candidates.sort_by(|(a, _), (b, _)| {
        b.unwrap_or(f32::NEG_INFINITY)
            .total_cmp(&a.unwrap_or(f32::NEG_INFINITY))
    });
    let unknown = items.len() - known.len();
    let detail = || format!("{unknown} of the items are not in this PoP's pool").into_boxed_str();
    let warnings = (unknown > 0).then(|| Warning {
        code: WarningCode::UnknownItems,
        detail: detail(),
    });
    List {
        candidates: candidates.into_iter().map(|(_, c)| c).collect(),
        warnings: warnings.into_iter().collect(),
    }
}

/// Puts what the bandit draws into its slots, as the origin does: of arms that are not in the list.
async fn explore<H: Host>(
    run: &mut Run<'_, H>,
    context: Option<&UserContext>,
    list: &mut List,
) -> u64 {
    if run.ask.route != Route::Recommend {
        return 0;
    }
    let Some(arms) = run
        .worker
        .arms(run.host, &run.request.epochs, &run.ask.surface)
        .await
    else {
        return 0;
    };
    let eligible = eligible(run, &arms, context, list).await;
    let slots = bandit::slots_for(run.ask.n.get());
    let draws = arms.snapshot.draw(
        |arm| eligible.get(arm).copied().unwrap_or(false),
        slots.len(),
        seed(run.request.entropy),
    );
    let drawn = draws.iter().filter_map(|draw| arms.rows.get(draw.arm));
    let drawn: Vec<u32> = drawn.map(|(_, row)| *row).collect();
    let items = describe(run.host, &drawn).await;
    for ((draw, item), slot) in draws.iter().zip(items).zip(slots) {
        let at = (*slot).min(list.candidates.len());
        let score = list
            .candidates
            .get(at)
            .or(list.candidates.last())
            .map_or(0.0, |near| near.score);
        let reason = Reason {
            kind: ReasonKind::Explore,
            item: None,
            detail: None,
        };
        list.candidates.insert(
            at,
            Candidate {
                id: item.id,
                score,
                source: Source::Explore,
                propensity: draw.propensity as f32,
                reason,
                fields: item.fields,
            },
        );
    }
    arms.snapshot.epoch
}

/// Which arms may be drawn for this request.
async fn eligible<H: Host>(
    run: &Run<'_, H>,
    arms: &Arms,
    context: Option<&UserContext>,
    list: &List,
) -> Vec<bool> {
    let shown: std::collections::BTreeSet<_> = list
        .candidates
        .iter()
        .map(|candidate| candidate.id.hash())
        .collect();
    let seen = context.map_or(&[][..], |context| &context.seen);
    let out = rules::LeftOut::new(seen, run.ask.exclude.iter().map(ItemId::hash));
    let open =
        |(hash, row): &(ItemHash, u32)| *row != NO_ROW && !shown.contains(hash) && !out.has(*hash);
    let mut eligible: Vec<bool> = arms.rows.iter().map(open).collect();
    if run.request.epochs.mask != 0 {
        let hashes: Vec<_> = arms.rows.iter().map(|(hash, _)| *hash).collect();
        let country = run.ask.context.country.as_ref();
        let country = country.map_or("", |country| country.as_str());
        let forbidden = run.host.forbidden(&hashes, run.request.now, country).await;
        for (eligible, forbidden) in eligible.iter_mut().zip(forbidden) {
            *eligible &= !forbidden;
        }
    }
    if let Some(filter) = &run.ask.filter {
        // Only a filter needs to look at the arms themselves.
        let mut open: Vec<_> = eligible
            .iter_mut()
            .zip(&arms.rows)
            .filter(|(eligible, _)| **eligible)
            .collect();
        let rows: Vec<u32> = open.iter().map(|(_, (_, row))| *row).collect();
        let items = describe(run.host, &rows).await;
        for (at, (eligible, _)) in open.iter_mut().enumerate() {
            let item = items.get(at);
            **eligible = item.is_some_and(|item| pick::fits(filter, &item.fields));
        }
    }
    eligible
}

pub(crate) async fn describe<H: Host>(host: &H, rows: &[u32]) -> Vec<PoolItem> {
    if rows.is_empty() {
        return Vec::new();
    }
    decode::<PoolItems>(&host.items(rows).await).map_or_else(|_| Vec::new(), |items| items.items)
}

/// Titles of the history's items, for reasons.
#[derive(Default)]
struct Titles(BTreeMap<u32, ItemRef>);

impl Titles {
    async fn learn<H: Host>(&mut self, host: &H, rows: &[u32]) {
        let mut missing: Vec<u32> = rows
            .iter()
            .copied()
            .filter(|row| !self.0.contains_key(row))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        let items = describe(host, &missing).await;
        self.0
            .extend(missing.into_iter().zip(items).map(|(row, item)| {
                let title = title(&item.fields).unwrap_or_else(|| item.id.as_str().into());
                (row, ItemRef { id: item.id, title })
            }));
    }

    fn about(&self, kind: ReasonKind, row: u32) -> Option<Reason> {
        let item = self.0.get(&row)?.clone();
        Some(Reason {
            kind,
            item: Some(item),
            detail: None,
        })
    }

    /// Because of an item of the history; of one that was disliked nothing is said.
    fn because(&self, context: Option<&UserContext>, row: u32) -> Option<Reason> {
        let item = self.0.get(&row)?;
        let event = context?
            .recent
            .iter()
            .rev()
            .find(|event| event.item == item.id)?;
        match event.taste() {
            Taste::Positive => self.about(ReasonKind::BecauseLiked, row),
            Taste::Neutral => self.about(ReasonKind::BecauseWatched, row),
            Taste::Negative => None,
        }
    }
}

/// A score as a share of one, as answers show it.
fn share(score: f32) -> f32 {
    1.0 / (1.0 + (-score).exp())
}

fn genre_reason(item: &PoolItem) -> Option<Reason> {
    item.genre.as_ref().map(reason::genre)
}

/// The title in an item's metadata.
pub(crate) fn title(fields: &Metadata) -> Option<Arc<str>> {
    let attributes = metadata::read(fields).ok()?;
    attributes
        .get("title")
        .and_then(Value::as_str)
        .map(Arc::from)
}
