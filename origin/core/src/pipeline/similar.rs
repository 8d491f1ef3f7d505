//! What users like this one did: items that they liked lately, which no model has learned yet, and a
//! stored taste for a user whose events cannot be read.

use super::Run;
use crate::ports::{CandidateRow, Model, World};
use skerry_types::{Route, Source, Taste, UserContext, Warning, WarningCode};
use std::sync::Arc;

/// Users asked about for one question, and likes looked at of each, newest first.
const USERS_MAX: usize = 20;
const LIKES_MAX: usize = 10;
/// What a like is worth against the one after it.
const DECAY: f32 = 0.9;
/// An item counts where so many of them liked it.
const VOTERS_MIN: usize = 2;
/// Items that join the candidates.
const ADDED_MAX: usize = 20;

impl<W: World> Run<'_, W> {
    /// Adds what similar users liked to the rows, where it may be shown and is not among them.
    pub(super) fn add_liked_by_similar(
        &mut self,
        model: &W::Model,
        profile: &<W::Model as Model>::Profile,
        allow: &dyn Fn(u32) -> bool,
        rows: &mut Vec<CandidateRow>,
    ) {
        let ask = self.question.ask;
        let Some(query) = model.query(profile) else {
            return;
        };
        if !matches!(ask.route, Route::Recommend) {
            return;
        }
        let own = ask.subject();
        let found = self
            .world
            .similar_users(&ask.tenant, model, query, USERS_MAX, own.as_deref());
        let similar = match found {
            Ok(similar) => similar,
            Err(error) => return self.fallback(&error),
        };
        if similar.missing > 0 {
            self.warnings.push(Warning {
                code: WarningCode::PartialResult,
                detail: "not all of the users were looked at".into(),
            });
        }
        let mut likes: Vec<(u32, f32)> = Vec::with_capacity(USERS_MAX * LIKES_MAX);
        for (subject, cosine) in &similar.users {
            // A context that cannot be read now is one voter less.
            if let Ok(Some(context)) = self.world.context(&ask.tenant, subject) {
                likes.extend(liked(model, &context, *cosine));
            }
        }
        let mut known: Vec<u32> = rows.iter().map(|row| row.item).collect();
        known.sort_unstable();
        let mut added = liked_by_several(likes);
        added.retain(|(row, _)| known.binary_search(row).is_err() && allow(*row));
        added.truncate(ADDED_MAX);
        let detail = format!("{} users, {} items", similar.users.len(), added.len());
        self.present("similar users", None, detail);
        rows.extend(added.into_iter().map(|(item, _)| CandidateRow {
            item,
            source: Source::Vector,
            because: None,
        }));
    }

    /// The profile that was last written for a user, where the events cannot be read.
    pub(super) fn stored_profile(
        &mut self,
        model: &W::Model,
    ) -> Option<<W::Model as Model>::Profile> {
        let ask = self.question.ask;
        let subject = ask.subject()?;
        match self.world.user_vector(&ask.tenant, model, &subject) {
            Ok(vector) => {
                let profile = model.profile_of(&vector?)?;
                self.present("user vector", None, "as last written".to_owned());
                Some(profile)
            }
            Err(error) => {
                self.fallback(&error);
                None
            }
        }
    }
}

/// The newest likes of a user, each once, with what they are worth.
fn liked<M: Model>(model: &M, context: &Arc<UserContext>, cosine: f32) -> Vec<(u32, f32)> {
    let newest = context.recent.iter().rev();
    let positive = newest.filter(|event| event.taste() == Taste::Positive);
    let mut likes: Vec<(u32, f32)> = Vec::with_capacity(LIKES_MAX);
    let mut worth = cosine.max(0.0);
    for event in positive.take(LIKES_MAX) {
        if let Some(row) = model.row(&event.item)
            && likes.iter().all(|(known, _)| *known != row)
        {
            likes.push((row, worth));
        }
        worth *= DECAY;
    }
    likes
}

/// Rows that several liked, the most worth first.
fn liked_by_several(mut likes: Vec<(u32, f32)>) -> Vec<(u32, f32)> {
    likes.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let groups = likes.chunk_by(|a, b| a.0 == b.0);
    let several = groups.filter(|group| group.len() >= VOTERS_MIN);
    let mut rows: Vec<(u32, f32)> = several
        .filter_map(|group| {
            let (row, _) = group.first()?;
            Some((*row, group.iter().map(|(_, worth)| worth).sum()))
        })
        .collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    rows
}
