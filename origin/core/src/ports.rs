//! What the pipeline needs of the stores and models around it. In process and synchronous: a step
//! that could wait (a remote shard, a GPU) hides behind a port that has its own budget and fallback.

use skerry_decide::bandit::Snapshot;
use skerry_decide::rules;
use skerry_decide::score::HistoryStep;
use skerry_types::{
    Attributes, Item, ItemHash, ItemId, Metadata, Rights, Source, Surface, TenantId, Tick,
    UserContext,
};
use skerry_wire::value::metadata;
use std::sync::Arc;

/// Why a port gave nothing. The pipeline goes on with the step's fallback and says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is unavailable: {detail}")]
pub struct PortError {
    /// Which port, in the words of the docs: `features`, `vector index`, `ranker`, `bandit`.
    pub what: &'static str,
    pub detail: String,
}

/// Everything that the pipeline asks of the origin.
pub trait World: Send + Sync {
    type Model: Model;
    type Cards<'a>: Cards
    where
        Self: 'a;

    /// Context of a subject (`u:USER` or `s:SESSION`), `None` where nothing is known.
    fn context(
        &self,
        tenant: &TenantId,
        subject: &str,
    ) -> Result<Option<Arc<UserContext>>, PortError>;

    /// The model in service. `None` before the first one.
    fn model(&self, tenant: &TenantId) -> Option<Arc<Self::Model>>;

    /// The catalogue as it is now, with the model's rows in it.
    fn cards<'a>(&'a self, tenant: &TenantId, model: &'a Self::Model) -> Self::Cards<'a>;

    /// The `k` rows nearest to `query` in the model's item space, best first.
    fn near(
        &self,
        tenant: &TenantId,
        model: &Self::Model,
        query: &[f32],
        k: usize,
    ) -> Result<Vec<(u32, f32)>, PortError>;

    /// [`World::near`] among the rows for which `allow` holds.
    fn near_where(
        &self,
        tenant: &TenantId,
        model: &Self::Model,
        query: &[f32],
        k: usize,
        allow: &dyn Fn(u32) -> bool,
    ) -> Result<Vec<(u32, f32)>, PortError>;

    /// The `k` users whose taste is most like `query`, nearest first, `but` one (a subject).
    fn similar_users(
        &self,
        tenant: &TenantId,
        model: &Self::Model,
        query: &[f32],
        k: usize,
        but: Option<&str>,
    ) -> Result<SimilarUsers, PortError>;

    /// The vector in the model's space that a user had when it was last written: for a user whose
    /// events cannot be read now.
    fn user_vector(
        &self,
        tenant: &TenantId,
        model: &Self::Model,
        subject: &str,
    ) -> Result<Option<Vec<f32>>, PortError>;

    /// What to explore on a surface, with win probabilities ready. `None`: nothing.
    fn bandit(&self, tenant: &TenantId, surface: &Surface) -> Result<Option<Arc<Arms>>, PortError>;

    /// Name of this region.
    fn region(&self) -> Arc<str>;

    fn tick(&self) -> Tick;
}

/// Users like one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SimilarUsers {
    /// Subjects (`u:USER`) and the cosine of their vectors with the query.
    pub users: Vec<(Box<str>, f32)>,
    /// Parts of the index that did not answer: others may be nearer.
    pub missing: usize,
}

/// The catalogue at one moment: looked up some hundred times for one question.
pub trait Cards {
    /// By the model's row.
    fn row(&self, row: u32) -> Option<&Card>;
    /// What the rules look at first, by the model's row: most candidates need no more.
    fn gate(&self, row: u32) -> Option<Gate>;
    /// By place.
    fn at(&self, place: Place) -> Option<&Card>;
    fn of(&self, id: &ItemId) -> Option<&Card>;
}

/// Where an item is in the catalogue: the same for the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(pub u32);

/// The part of a card that decides about most candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    pub hash: ItemHash,
    /// Nothing in the item's rights keeps it from anyone.
    pub is_free: bool,
}

/// What to explore, with the place of each arm.
#[derive(Debug, Clone, PartialEq)]
pub struct Arms {
    pub snapshot: Snapshot,
    pub places: Vec<Place>,
}

/// An item as the pipeline sees it.
#[derive(Debug, Clone)]
pub struct Card {
    pub id: ItemId,
    pub hash: ItemHash,
    pub title: Arc<str>,
    /// What filters look at and answers show: at most 512 bytes of JSON.
    pub fields: Attributes,
    /// The same, on its way into answers.
    pub metadata: Metadata,
    /// The first genre.
    pub genre: Option<Arc<str>>,
    pub rights: Rights,
}

impl Card {
    /// Of an item, with the part of its attributes that goes into answers.
    #[must_use]
    pub fn new(item: &Item, fields: Attributes) -> Self {
        Self {
            id: item.id.clone(),
            hash: item.id.hash(),
            title: Arc::from(item.title()),
            metadata: metadata::of(&fields),
            genre: rules::first_genre(&fields).map(Arc::from),
            fields,
            rights: item.rights.clone(),
        }
    }

    #[must_use]
    pub fn gate(&self) -> Gate {
        Gate {
            hash: self.hash,
            is_free: self.rights.is_free(),
        }
    }
}

/// A candidate before it is ranked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CandidateRow {
    /// Row of the item in the model.
    pub item: u32,
    pub source: Source,
    /// Row of the history item that brought it, where one did; [`Model::because`] knows for others.
    pub because: Option<u32>,
}

/// A trained model: an item space, what follows what, and a ranker. Rows are dense and local to one
/// model; ids are what leaves it.
pub trait Model: Send + Sync {
    /// What the model makes of a history.
    type Profile: Send;

    /// `ranker@12`
    fn version(&self) -> Arc<str>;
    fn row(&self, id: &ItemId) -> Option<u32>;
    fn id(&self, row: u32) -> Option<&ItemId>;

    /// A profile from the last events, newest first; works for a user never seen in training.
    fn fold_in(&self, history: &[HistoryStep]) -> Self::Profile;
    /// A profile of a vector alone; `None` where it is not of this space.
    fn profile_of(&self, vector: &[f32]) -> Option<Self::Profile>;
    /// The profile's vector in the item space; `None` where the history carries no taste.
    fn query<'p>(&self, profile: &'p Self::Profile) -> Option<&'p [f32]>;
    /// Vector neighbours, followers of the last items and what is trending, without repeats.
    fn candidates(
        &self,
        profile: &Self::Profile,
        near: &[(u32, f32)],
        k: usize,
        allow: &dyn Fn(u32) -> bool,
    ) -> Vec<CandidateRow>;
    /// One score for each row, higher is better.
    fn rank(&self, profile: &Self::Profile, rows: &[CandidateRow]) -> Result<Vec<f32>, PortError>;
    /// Row of the history item that a vector neighbour is most like; asked for rows shown only.
    fn because(&self, profile: &Self::Profile, row: u32) -> Option<u32>;
    /// The `k` items that are trending, best first, with scores in 0..=1.
    fn trending(&self, k: usize) -> Vec<(u32, f32)>;
}
