//! The origin's side of an evaluation: one model, the catalogue, and the context of the one user
//! who is asked for.

use skerry_decide::bandit::Snapshot;
use skerry_origin_core::{Card, Model as _, PortError, World};
use skerry_origin_ranker::Model;
use skerry_types::{Item, ItemId, Surface, TenantId, Tick, UserContext};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub struct EvalWorld {
    pub model: Arc<Model>,
    cards: HashMap<ItemId, Arc<Card>>,
    context: Mutex<Arc<UserContext>>,
}

impl EvalWorld {
    pub fn new(model: Model, items: &[Item]) -> Self {
        let card = |item: &Item| Card {
            id: item.id.clone(),
            hash: item.id.hash(),
            title: Arc::from(item.title()),
            fields: Arc::new(item.attributes.clone()),
            rights: item.rights.clone(),
        };
        Self {
            model: Arc::new(model),
            cards: items
                .iter()
                .map(|item| (item.id.clone(), Arc::new(card(item))))
                .collect(),
            context: Mutex::default(),
        }
    }

    pub fn set_context(&self, context: UserContext) {
        *self.context.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(context);
    }

    /// Row of an item in the model.
    pub fn row(&self, id: &str) -> Option<u32> {
        self.model.row(&ItemId::new(id).ok()?)
    }

    pub fn card_of(&self, row: u32) -> Option<&Arc<Card>> {
        self.cards.get(self.model.id(row)?)
    }
}

impl World for EvalWorld {
    type Model = Model;

    fn context(&self, _: &TenantId, _: &str) -> Result<Option<Arc<UserContext>>, PortError> {
        Ok(Some(Arc::clone(
            &self.context.lock().unwrap_or_else(PoisonError::into_inner),
        )))
    }

    fn model(&self, _: &TenantId) -> Option<Arc<Model>> {
        Some(Arc::clone(&self.model))
    }

    fn card(&self, _: &TenantId, id: &ItemId) -> Option<Arc<Card>> {
        self.cards.get(id).cloned()
    }

    fn near(
        &self,
        tenant: &TenantId,
        query: &[f32],
        k: usize,
    ) -> Result<Vec<(u32, f32)>, PortError> {
        self.near_where(tenant, query, k, &|_| true)
    }

    /// An exact scan: what the index is judged by.
    fn near_where(
        &self,
        _: &TenantId,
        query: &[f32],
        k: usize,
        allow: &dyn Fn(u32) -> bool,
    ) -> Result<Vec<(u32, f32)>, PortError> {
        let (vectors, dim) = self.model.item_vectors();
        let dot = |vector: &[f32]| vector.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
        let rows = (0u32..)
            .zip(vectors.chunks_exact(dim))
            .filter(|(row, _)| allow(*row));
        let mut scored: Vec<(u32, f32)> = rows.map(|(row, vector)| (row, dot(vector))).collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        scored.truncate(k);
        Ok(scored)
    }

    fn bandit(&self, _: &TenantId, _: &Surface) -> Result<Option<Arc<Snapshot>>, PortError> {
        Ok(None)
    }

    fn region(&self) -> Arc<str> {
        Arc::from("eval")
    }

    fn tick(&self) -> Tick {
        Tick::default()
    }
}
