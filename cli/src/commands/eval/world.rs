//! The origin's side of an evaluation: one model, the catalogue, what is trained on of every user, and
//! the context of the one who is asked for.

use skerry_origin_core::{
    Arms, Card, Cards, Gate, Model as _, Place, PortError, SimilarUsers, World, history,
};
use skerry_origin_ranker::Model;
use skerry_types::{Item, ItemId, Surface, TenantId, Tick, UserContext};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct EvalWorld {
    pub model: Arc<Model>,
    cards: HashMap<ItemId, Arc<Card>>,
    /// By number: what is trained on, and the vector that comes of it, of length 1.
    users: Vec<(Arc<UserContext>, Option<Vec<f32>>)>,
    /// Number and context of who is asked for.
    asked: Mutex<(u32, Arc<UserContext>)>,
}

/// Subject of the user who is asked for.
const ASKED: &str = "u:case";

impl EvalWorld {
    pub fn new(model: Model, items: &[Item], users: Vec<UserContext>) -> Self {
        let card = |item: &Item| Card::new(item, item.attributes.clone());
        let users = users.into_iter().map(|context| {
            let vector = model.vector_of(&history(&model, &context));
            let unit = vector.map(|vector| {
                let length = dot(&vector, &vector).sqrt().max(f32::MIN_POSITIVE);
                vector.iter().map(|value| value / length).collect()
            });
            (Arc::new(context), unit)
        });
        Self {
            users: users.collect(),
            model: Arc::new(model),
            cards: items
                .iter()
                .map(|item| (item.id.clone(), Arc::new(card(item))))
                .collect(),
            asked: Mutex::default(),
        }
    }

    /// Who is asked for next, and what is known of them then.
    pub fn ask_for(&self, user: u32, context: UserContext) {
        *self.asked() = (user, Arc::new(context));
    }

    fn asked(&self) -> MutexGuard<'_, (u32, Arc<UserContext>)> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Row of an item in the model.
    pub fn row(&self, id: &str) -> Option<u32> {
        self.model.row(&ItemId::new(id).ok()?)
    }

    pub fn card_of(&self, row: u32) -> Option<&Arc<Card>> {
        self.cards.get(self.model.id(row)?)
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
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

    fn context(&self, _: &TenantId, subject: &str) -> Result<Option<Arc<UserContext>>, PortError> {
        if subject == ASKED {
            return Ok(Some(Arc::clone(&self.asked().1)));
        }
        let number = subject
            .strip_prefix("u:")
            .and_then(|user| user.parse::<usize>().ok());
        let user = number.and_then(|number| self.users.get(number));
        Ok(user.map(|(context, _)| Arc::clone(context)))
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
        let rows = (0u32..)
            .zip(vectors.chunks_exact(dim))
            .filter(|(row, _)| allow(*row));
        let mut scored: Vec<(u32, f32)> = rows
            .map(|(row, vector)| (row, dot(vector, query)))
            .collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        scored.truncate(k);
        Ok(scored)
    }

    /// All but the user who is asked for, by what is trained on.
    fn similar_users(
        &self,
        _: &TenantId,
        _: &Model,
        query: &[f32],
        k: usize,
        _: Option<&str>,
    ) -> Result<SimilarUsers, PortError> {
        let asked = self.asked().0;
        let length = dot(query, query).sqrt().max(f32::MIN_POSITIVE);
        let others = (0u32..).zip(&self.users).filter(|(user, _)| *user != asked);
        let mut scored: Vec<(u32, f32)> = others
            .filter_map(|(user, (_, vector))| Some((user, dot(vector.as_ref()?, query) / length)))
            .collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let users = scored.into_iter().take(k);
        let users = users.map(|(user, cosine)| (format!("u:{user}").into(), cosine));
        Ok(SimilarUsers {
            users: users.collect(),
            missing: 0,
        })
    }

    fn user_vector(&self, _: &TenantId, _: &Model, _: &str) -> Result<Option<Vec<f32>>, PortError> {
        Ok(None)
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
