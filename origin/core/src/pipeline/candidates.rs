//! What a question can be answered with: neighbours of the user's vector, what follows the last events,
//! what similar users liked and what is trending, or the caller's own items; less what the rules forbid, since whatever is ranked
//! costs time.

use super::Run;
use crate::ports::{CandidateRow, Model, World};
use crate::rules::Rules;
use skerry_types::{ItemId, Route, Source, Warning, WarningCode};
use std::collections::HashSet;

/// Vector neighbours fetched for one question, or as many as the answer keeps, where that is more.
const NEAR_MAX: usize = 100;
/// Candidates ranked for one question, likewise.
const RANKED_MAX: usize = 100;
/// Candidates with the best base scores among which that many are looked for.
const FOUND_MAX: usize = 200;
/// Trending items that an answer without a taste to go by is made from, and those among which they are
/// looked for where too few of the first may be shown.
const TRENDING_MAX: usize = 400;
const TRENDING_SEARCHED_MAX: usize = 20_000;

impl<W: World> Run<'_, W> {
    /// Rows that may be shown, best base score first.
    pub(super) fn candidates(
        &mut self,
        model: &W::Model,
        cards: &W::Cards<'_>,
        profile: &<W::Model as Model>::Profile,
        rules: &Rules<'_>,
    ) -> Vec<CandidateRow> {
        let allow = |row: u32| rules.allow_row(cards, row);
        match &self.question.ask.route {
            Route::Rank { items } => {
                let mut rows = self.own(model, items);
                rows.retain(|row| allow(row.item));
                rows
            }
            Route::Popular => self.trending(model, &allow),
            Route::Recommend | Route::Similar { .. } => self.personal(model, profile, &allow),
        }
    }

    /// The caller's own items, in the caller's order.
    fn own(&mut self, model: &W::Model, items: &[ItemId]) -> Vec<CandidateRow> {
        let rows = items.iter().filter_map(|id| model.row(id));
        let rows = rows.map(|item| CandidateRow {
            item,
            source: Source::Vector,
            because: None,
        });
        let rows: Vec<CandidateRow> = rows.collect();
        if rows.len() < items.len() {
            let unknown = items.len() - rows.len();
            self.warnings.push(Warning {
                code: WarningCode::UnknownItems,
                detail: format!("{unknown} of the items are not known to the model").into(),
            });
        }
        rows
    }

    fn personal(
        &mut self,
        model: &W::Model,
        profile: &<W::Model as Model>::Profile,
        allow: &dyn Fn(u32) -> bool,
    ) -> Vec<CandidateRow> {
        let kept = self.question.ask.n.kept();
        let ranked = RANKED_MAX.max(kept);
        let filtered = self.question.ask.filter.is_some();
        let (mut near, mut rows) = (Vec::new(), Vec::new());
        if !filtered {
            near = self.near(model, profile, None);
            rows = model.candidates(profile, &near, FOUND_MAX.max(ranked), &|_| true);
            let mut left = ranked;
            rows.retain(|row| {
                let keep = left > 0 && allow(row.item);
                left -= usize::from(keep);
                keep
            });
        }
        // A filter, or a user who has seen most of what is near: the search itself looks only at what
        // may be shown.
        if filtered || (rows.len() < kept && !near.is_empty()) {
            near = self.near(model, profile, Some(allow));
            rows = model.candidates(profile, &near, ranked, allow);
        }
        self.add_liked_by_similar(model, profile, allow, &mut rows);
        if near.is_empty() {
            // Without neighbours the order of the sources says little: all of it is ranked.
            let known: HashSet<u32> = rows.iter().map(|row| row.item).collect();
            let others = self.trending(model, allow);
            rows.extend(others.into_iter().filter(|row| !known.contains(&row.item)));
        }
        let detail = format!("{} near, {} in all", near.len(), rows.len());
        self.present("candidates", None, detail);
        rows
    }

    /// Neighbours of the profile's vector, among the rows for which `allow` holds.
    fn near(
        &mut self,
        model: &W::Model,
        profile: &<W::Model as Model>::Profile,
        allow: Option<&dyn Fn(u32) -> bool>,
    ) -> Vec<(u32, f32)> {
        let ask = self.question.ask;
        let Some(query) = model.query(profile) else {
            return Vec::new();
        };
        let k = NEAR_MAX.max(ask.n.kept());
        let near = match allow {
            None => self.world.near(&ask.tenant, model, query, k),
            Some(allow) => self.world.near_where(&ask.tenant, model, query, k, allow),
        };
        near.unwrap_or_else(|error| {
            self.fallback(&error);
            Vec::new()
        })
    }

    /// Trending items that may be shown, most trending first.
    fn trending(&self, model: &W::Model, allow: &dyn Fn(u32) -> bool) -> Vec<CandidateRow> {
        let among = |most: usize| -> Vec<CandidateRow> {
            let rows = model.trending(most).into_iter().map(|(row, _)| row);
            let rows = rows.filter(|row| allow(*row)).take(TRENDING_MAX);
            rows.map(|item| CandidateRow {
                item,
                source: Source::Trending,
                because: None,
            })
            .collect()
        };
        let rows = among(TRENDING_MAX);
        if rows.len() < self.question.ask.n.kept() {
            return among(TRENDING_SEARCHED_MAX);
        }
        rows
    }
}
