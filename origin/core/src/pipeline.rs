//! One question, from features to reasons. Every step has its time and a fallback: a step that
//! fails costs quality, says so in the warnings, and never the answer.

use crate::ports::{CandidateRow, Card, Cards, Model, PortError, World};
use crate::reasons;
use crate::rules::Rules;
use skerry_decide::bandit;
use skerry_decide::rules;
use skerry_decide::score::HistoryStep;
use skerry_types::{
    Ask, Candidate, Decision, Event, ItemId, Metadata, Millis, Reason, ReasonKind, Route, Rung,
    Source, Tick, Uid, UserContext, Warning, WarningCode,
};
use std::sync::Arc;

/// A question as the pipeline takes it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub ask: &'a Ask,
    pub decision_id: Uid,
    pub seed: u64,
    /// The subject's events that have not reached the stores yet.
    pub pending: &'a [Event],
    pub now: Millis,
    /// Off for offline evaluation.
    pub explore: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub decision: Decision,
    /// The context that it was made from, pending events included.
    pub context: Option<Arc<UserContext>>,
    /// Time of each step, in the order of [`STAGES`].
    pub stages_us: [u32; 6],
    /// What each input was, for `explain`.
    pub inputs: Vec<Input>,
}

/// Names of the steps that [`Outcome::stages_us`] times.
pub const STAGES: [&str; 6] = [
    "features",
    "candidates",
    "rank",
    "rules",
    "explore",
    "explain",
];

/// One input of a decision and how good it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub name: &'static str,
    pub status: Status,
    /// When it was current, where that is known.
    pub as_of: Option<Millis>,
    pub detail: String,
}

/// State of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Present,
    Stale,
    Unavailable,
}

impl Status {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Present => "PRESENT",
            Self::Stale => "STALE",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// Answers one question.
pub fn answer<W: World>(world: &W, question: &Question<'_>) -> Outcome {
    let mut run = Run::new(world, question);
    let context = run.features();
    let context_ref = context.as_deref();
    run.mark(0);
    let Some(model) = world.model(&question.ask.tenant) else {
        run.lost("model", "no model is in service yet");
        return run.finish(Vec::new(), context, None, Arc::from("none"));
    };
    let model = &*model;
    let cards = world.cards(&question.ask.tenant, model);
    let profile = run.profile(model, context_ref);
    let rules = Rules::of(question, context_ref);
    let rows = run.candidates(model, &cards, &profile, &rules);
    run.mark(1);
    let ranked = run.rank(model, &profile, rows);
    run.mark(2);
    let mut kept = run.diversify(&cards, &rules, ranked);
    run.mark(3);
    let snapshot = if question.explore {
        run.explore(&cards, &mut kept, &rules)
    } else {
        None
    };
    run.mark(4);
    let candidates = run.explain(model, &cards, &profile, context_ref, kept);
    run.mark(5);
    run.finish(candidates, context, snapshot, model.version())
}

/// A context as a model takes it: what it knows of the events, newest first.
pub fn history<M: Model>(model: &M, context: &UserContext) -> Vec<HistoryStep> {
    let newest_first = context.recent.iter().rev();
    let known = newest_first.filter_map(|event| Some((model.row(&event.item)?, event.taste())));
    (0..)
        .zip(known)
        .map(|(age, (item, taste))| HistoryStep { item, taste, age })
        .collect()
}

/// A ranked item on its way into the answer.
struct Kept<'c> {
    card: &'c Card,
    /// The model's row, where the ranking brought it.
    row: Option<u32>,
    score: f32,
    source: Source,
    propensity: f32,
    because: Option<u32>,
}

struct Run<'a, W: World> {
    world: &'a W,
    question: &'a Question<'a>,
    started: Tick,
    stages_us: [u32; 6],
    warnings: Vec<Warning>,
    inputs: Vec<Input>,
    /// The user's events are there and could not be read.
    events_lost: bool,
}

impl<'a, W: World> Run<'a, W> {
    fn new(world: &'a W, question: &'a Question<'a>) -> Self {
        Self {
            world,
            question,
            started: world.tick(),
            stages_us: [0; 6],
            warnings: Vec::new(),
            inputs: Vec::new(),
            events_lost: false,
        }
    }

    fn mark(&mut self, stage: usize) {
        let now = self.world.tick();
        if let Some(slot) = self.stages_us.get_mut(stage) {
            *slot = u32::try_from(now.since_us(self.started)).unwrap_or(u32::MAX);
        }
        self.started = now;
    }

    fn fallback(&mut self, error: &PortError) {
        self.lost(error.what, &error.detail);
    }

    fn lost(&mut self, what: &'static str, detail: &str) {
        self.warnings.push(Warning {
            code: WarningCode::StageFallback,
            detail: format!("{what} is unavailable").into_boxed_str(),
        });
        self.inputs.push(Input {
            name: what,
            status: Status::Unavailable,
            as_of: None,
            detail: detail.to_owned(),
        });
    }

    fn present(&mut self, name: &'static str, as_of: Option<Millis>, detail: String) {
        self.inputs.push(Input {
            name,
            status: Status::Present,
            as_of,
            detail,
        });
    }

    /// The subject's context with the pending events applied.
    fn features(&mut self) -> Option<Arc<UserContext>> {
        let ask = self.question.ask;
        let subject = ask.subject()?;
        let stored = match self.world.context(&ask.tenant, &subject) {
            Ok(stored) => stored,
            Err(error) => {
                self.fallback(&error);
                self.events_lost = true;
                None
            }
        };
        if stored.is_none() && self.question.pending.is_empty() {
            return None;
        }
        let mut context = stored.unwrap_or_default();
        let mut applied = 0;
        for event in self.question.pending {
            let own = event.subject().as_ref() == Some(&subject);
            applied += usize::from(own && Arc::make_mut(&mut context).apply(event));
        }
        let detail = format!(
            "{} recent events, {applied} of them pending",
            context.recent.len()
        );
        self.present("features", Some(context.as_of_ms), detail);
        Some(context)
    }

    fn profile(
        &mut self,
        model: &W::Model,
        context: Option<&UserContext>,
    ) -> <W::Model as Model>::Profile {
        let ask = self.question.ask;
        if let Route::Similar { seeds } = &ask.route {
            let rows = seeds.iter().filter_map(|seed| model.row(seed));
            let steps: Vec<HistoryStep> = (0..)
                .zip(rows)
                .map(|(age, item)| HistoryStep {
                    item,
                    taste: skerry_types::Taste::Positive,
                    age,
                })
                .collect();
            return model.fold_in(&steps);
        }
        let steps = context.map_or_else(Vec::new, |context| history(model, context));
        let profile = model.fold_in(&steps);
        if self.events_lost && model.query(&profile).is_none() {
            return self.stored_profile(model).unwrap_or(profile);
        }
        profile
    }

    /// Rows by falling score; ties by row, so that the order is total.
    fn rank(
        &mut self,
        model: &W::Model,
        profile: &<W::Model as Model>::Profile,
        rows: Vec<CandidateRow>,
    ) -> Vec<(CandidateRow, f32)> {
        let by_place = |rows: &[CandidateRow]| -> Vec<f32> {
            #[expect(clippy::cast_precision_loss, reason = "a few hundred places")]
            (0..rows.len())
                .map(|place| -(place as f32) * 0.01)
                .collect()
        };
        let keep_order =
            matches!(self.question.ask.route, Route::Popular) || model.query(profile).is_none();
        let scores = if keep_order && !matches!(self.question.ask.route, Route::Rank { .. }) {
            by_place(&rows)
        } else {
            match model.rank(profile, &rows) {
                Ok(scores) if scores.len() == rows.len() => scores,
                Ok(_) => by_place(&rows),
                Err(error) => {
                    self.fallback(&error);
                    by_place(&rows)
                }
            }
        };
        let mut ranked: Vec<(CandidateRow, f32)> = rows.into_iter().zip(scores).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.item.cmp(&b.0.item)));
        ranked
    }

    /// The best of the ranked, reordered so that one genre does not fill the list.
    fn diversify<'c>(
        &mut self,
        cards: &'c W::Cards<'_>,
        rules: &Rules<'_>,
        ranked: Vec<(CandidateRow, f32)>,
    ) -> Vec<Kept<'c>> {
        let ask = self.question.ask;
        let want = if rules.own_items {
            ranked.len()
        } else {
            ask.n.kept()
        };
        let kept = ranked.into_iter().take(want).filter_map(|(row, score)| {
            Some(Kept {
                card: cards.row(row.item)?,
                row: Some(row.item),
                score: 1.0 / (1.0 + (-score).exp()),
                source: row.source,
                propensity: 1.0,
                because: row.because,
            })
        });
        let kept: Vec<Kept<'c>> = kept.collect();
        if rules.own_items {
            return kept;
        }
        let genres: Vec<Option<&str>> =
            kept.iter().map(|kept| kept.card.genre.as_deref()).collect();
        let order = rules::diversify(&genres, &rules::genres_named(ask.filter.as_ref()));
        let mut slots: Vec<Option<Kept<'c>>> = kept.into_iter().map(Some).collect();
        order
            .into_iter()
            .filter_map(|at| slots.get_mut(at).and_then(Option::take))
            .collect()
    }

    /// Puts what the bandit draws into its slots. Arms that are in the list already are not drawn,
    /// so that the propensities are those of the draw alone.
    fn explore<'c>(
        &mut self,
        cards: &'c W::Cards<'_>,
        kept: &mut Vec<Kept<'c>>,
        rules: &Rules<'_>,
    ) -> Option<u64> {
        let ask = self.question.ask;
        if !matches!(ask.route, Route::Recommend) {
            return None;
        }
        let arms = match self.world.bandit(&ask.tenant, &ask.surface) {
            Ok(arms) => arms?,
            Err(error) => {
                self.fallback(&error);
                return None;
            }
        };
        let mut shown: Vec<_> = kept.iter().map(|kept| kept.card.hash).collect();
        shown.sort_unstable();
        let card = |arm: usize| {
            let card = arms.places.get(arm).and_then(|place| cards.at(*place))?;
            (shown.binary_search(&card.hash).is_err() && rules.allow(card)).then_some(card)
        };
        let slots = bandit::slots_for(ask.n.get());
        let eligible = |arm: usize| card(arm).is_some();
        for (draw, slot) in arms
            .snapshot
            .draw(eligible, slots.len(), self.question.seed)
            .iter()
            .zip(slots)
        {
            let Some(card) = card(draw.arm) else {
                continue;
            };
            let score = kept
                .get(*slot)
                .or(kept.last())
                .map_or(0.5, |near| near.score);
            let at = (*slot).min(kept.len());
            kept.insert(
                at,
                Kept {
                    card,
                    row: None,
                    score,
                    source: Source::Explore,
                    propensity: draw.propensity as f32,
                    because: None,
                },
            );
        }
        Some(arms.snapshot.epoch)
    }

    fn explain(
        &self,
        model: &W::Model,
        cards: &W::Cards<'_>,
        profile: &<W::Model as Model>::Profile,
        context: Option<&UserContext>,
        kept: Vec<Kept<'_>>,
    ) -> Vec<Candidate> {
        let ask = self.question.ask;
        let history = reasons::History::new(context, model, cards);
        let bytes = kept.iter().map(|kept| kept.card.metadata.as_bytes());
        let fields = Metadata::gather(bytes);
        let ids = ItemId::gather(kept.iter().map(|kept| &kept.card.id));
        let mut candidates = Vec::with_capacity(kept.len());
        for ((kept, fields), id) in kept.into_iter().zip(fields).zip(ids) {
            let is_near = kept.source == Source::Vector && !matches!(ask.route, Route::Rank { .. });
            let like = || model.because(profile, kept.row?);
            let because = kept
                .because
                .or_else(|| is_near.then(like)?)
                .and_then(|row| cards.row(row));
            let reason: Reason = match (&ask.route, kept.source, because) {
                (_, Source::Explore, _) => Reason {
                    kind: ReasonKind::Explore,
                    item: None,
                    detail: None,
                },
                (Route::Similar { .. }, _, Some(seed)) => {
                    reasons::about(ReasonKind::SimilarTo, seed)
                }
                (Route::Similar { seeds }, _, None) => {
                    let seed = seeds.first().and_then(|seed| cards.of(seed));
                    seed.map_or_else(skerry_decide::reason::popular, |seed| {
                        reasons::about(ReasonKind::SimilarTo, seed)
                    })
                }
                (_, _, Some(because)) => history.because(because),
                (_, Source::Vector | Source::Recent, None) => history.by_genre(kept.card),
                _ => skerry_decide::reason::popular(),
            };
            candidates.push(Candidate {
                id,
                score: kept.score,
                source: kept.source,
                propensity: kept.propensity,
                reason,
                fields,
            });
        }
        candidates
    }

    fn finish(
        mut self,
        candidates: Vec<Candidate>,
        context: Option<Arc<UserContext>>,
        snapshot: Option<u64>,
        model: Arc<str>,
    ) -> Outcome {
        let wanted = self.question.ask.n.get();
        if candidates.len() < wanted && !matches!(self.question.ask.route, Route::Rank { .. }) {
            let detail = format!("{} of {wanted} items", candidates.len()).into();
            self.warnings.push(Warning {
                code: WarningCode::Underfilled,
                detail,
            });
        }
        let decision = Decision {
            id: self.question.decision_id,
            rung: if matches!(self.question.ask.route, Route::Popular) {
                Rung::Popular
            } else {
                Rung::Full
            },
            cause: None,
            made_ms: self.question.now,
            // The stores are current to the last accepted event; the model is named beside.
            as_of_ms: self.question.now,
            model,
            region: self.world.region(),
            seed: self.question.seed,
            snapshot: snapshot.unwrap_or(0),
            candidates,
            warnings: self.warnings,
        };
        Outcome {
            decision,
            context,
            stages_us: self.stages_us,
            inputs: self.inputs,
        }
    }
}

mod candidates;
mod similar;
#[cfg(test)]
mod tests;
