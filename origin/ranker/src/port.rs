//! The model behind the pipeline's port.

use crate::model::Model;
use crate::user::UserState;
use skerry_decide::score::HistoryStep;
use skerry_origin_core::{CandidateRow, PortError};
use skerry_types::ItemId;
use std::sync::Arc;

impl skerry_origin_core::Model for Model {
    type Profile = UserState;

    fn version(&self) -> Arc<str> {
        self.version()
    }

    fn row(&self, id: &ItemId) -> Option<u32> {
        self.index_of(id)
    }

    fn id(&self, row: u32) -> Option<&ItemId> {
        self.id(row)
    }

    fn fold_in(&self, history: &[HistoryStep]) -> UserState {
        self.fold_in(history)
    }

    fn profile_of(&self, vector: &[f32]) -> Option<UserState> {
        self.state_of(vector)
    }

    fn query<'p>(&self, profile: &'p UserState) -> Option<&'p [f32]> {
        profile.query()
    }

    fn candidates(
        &self,
        profile: &UserState,
        near: &[(u32, f32)],
        k: usize,
        allow: &dyn Fn(u32) -> bool,
    ) -> Vec<CandidateRow> {
        self.candidates_where(profile, near, k, allow)
    }

    fn rank(&self, profile: &UserState, rows: &[CandidateRow]) -> Result<Vec<f32>, PortError> {
        let mut scores = Vec::with_capacity(rows.len());
        self.rank(profile, rows, &mut scores);
        Ok(scores)
    }

    fn because(&self, profile: &UserState, row: u32) -> Option<u32> {
        self.because(profile, row)
    }

    fn trending(&self, k: usize) -> Vec<(u32, f32)> {
        self.trending(k)
    }
}
