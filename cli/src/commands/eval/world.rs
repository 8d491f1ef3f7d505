//! The origin's side of an evaluation: one model, the catalogue, and the context of the one user
//! who is asked for.

use skerry_origin_core::{Arms, Card, Cards, Gate, Model as _, Place, PortError, World};
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
        let card = |item: &Item| Card::new(item, item.attributes.clone());
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

/// Nothing is explored in an evaluation: there are no places.
pub struct EvalCards<'a>(&'a EvalWorld);

impl Cards for EvalCards<'_> {
    fn row(&self, row: u32) -> Option<&Card> {
        self.0.card_of(row).map(|card| &**card)
    }

    fn gate(&self, row: u32) -> Option<Gate> {
        self.row(row).map(Card::gate)
    }

    fn at(&self, _: Place) -> Option<&Card> {
        None
    }

    fn of(&self, id: &ItemId) -> Option<&Card> {
        self.0.cards.get(id).map(|card| &**card)
    }
}

impl World for EvalWorld {
    type Model = Model;
    type Cards<'a> = EvalCards<'a>;

    fn context(&self, _: &TenantId, _: &str) -> Result<Option<Arc<UserContext>>, PortError> {
        Ok(Some(Arc::clone(
            &self.context.lock().unwrap_or_else(PoisonError::into_inner),
        )))
    }

    fn model(&self, _: &TenantId) -> Option<Arc<Model>> {
        Some(Arc::clone(&self.model))
    }

    fn cards<'a>(&'a self, _: &TenantId, _: &'a Model) -> EvalCards<'a> {
        EvalCards(self)
    }

    fn near(
        &self,
        tenant: &TenantId,
        model: &Model,
        query: &[f32],
        k: usize,
    ) -> Result<Vec<(u32, f32)>, PortError> {
        self.near_where(tenant, model, query, k, &|_| true)
    }

    /// An exact scan: what the index is judged by.
    fn near_where(
        &self,
        _: &TenantId,
        _: &Model,
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

    fn bandit(&self, _: &TenantId, _: &Surface) -> Result<Option<Arc<Arms>>, PortError> {
        Ok(None)
    }

    fn region(&self) -> Arc<str> {
        Arc::from("eval")
    }

    fn tick(&self) -> Tick {
        Tick::default()
    }
}
