//! A world in memory, written by hand, that fails on cue: items by number, each followed by the next.

use crate::ports::{
    Arms, CandidateRow, Card, Cards, Gate, Model, Place, PortError, SimilarUsers, World,
};
use skerry_decide::bandit::{ArmParams, Params, Snapshot};
use skerry_decide::score::HistoryStep;
use skerry_types::{
    Attributes, Event, EventKind, Item, ItemId, Rights, Source, Surface, Taste, TenantId, Tick,
    UserContext, Value,
};
use std::collections::BTreeSet;
use std::sync::Arc;

pub fn item_id(n: usize) -> ItemId {
    ItemId::new(&n.to_string()).unwrap()
}

/// Item `n` is of genre `n % 3`: Drama, Comedy, Crime.
pub fn card(n: usize, rights: Rights) -> Card {
    let genre = ["Drama", "Comedy", "Crime"][n % 3];
    let title = format!("Title {n}");
    let fields = Attributes::from([
        ("title".into(), Value::text(&title)),
        ("genre".into(), Value::List(vec![Value::text(genre)])),
    ]);
    let item = Item {
        id: item_id(n),
        attributes: fields.clone(),
        rights,
    };
    Card::new(&item, fields)
}

pub fn event(kind: EventKind, item: usize, n: u64) -> Event {
    Event {
        kind,
        ..skerry_testkit::like(&format!("e{item}-{n}"), "1", &item.to_string(), n)
    }
}

/// Which ports fail.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub features: bool,
    pub near: bool,
    pub ranker: bool,
    pub bandit: bool,
    pub no_model: bool,
    pub users: bool,
    /// Parts of the user index that do not answer.
    pub users_missing: usize,
}

pub struct FakeWorld {
    pub faults: Faults,
    pub context: Option<UserContext>,
    pub hidden: BTreeSet<usize>,
    /// Items of the bandit's arms, equally good.
    pub arms: Vec<usize>,
    pub items: usize,
    /// What others liked, oldest first; the first is the most similar.
    pub others: Vec<Vec<usize>>,
    /// The newest liked item of the user as the user index has it.
    pub stored: Option<usize>,
}

impl FakeWorld {
    pub fn new() -> Self {
        Self {
            faults: Faults::default(),
            context: None,
            hidden: BTreeSet::new(),
            arms: Vec::new(),
            items: 300,
            others: Vec::new(),
            stored: None,
        }
    }

    pub fn liked(mut self, items: &[usize]) -> Self {
        self.context = Some(context_of(items));
        self
    }
}

fn context_of(items: &[usize]) -> UserContext {
    let mut context = UserContext::default();
    for (at, item) in items.iter().enumerate() {
        assert!(context.apply(&event(EventKind::Like, *item, at as u64)));
    }
    context
}

fn down(what: &'static str) -> PortError {
    PortError {
        what,
        detail: "off on cue".to_owned(),
    }
}

impl World for FakeWorld {
    type Model = FakeModel;
    type Cards<'a> = FakeCards;

    fn context(
        &self,
        _tenant: &TenantId,
        subject: &str,
    ) -> Result<Option<Arc<UserContext>>, PortError> {
        if let Some(other) = subject.strip_prefix("u:other") {
            let other: usize = other.parse().unwrap();
            return Ok(Some(Arc::new(context_of(&self.others[other]))));
        }
        if self.faults.features {
            return Err(down("features"));
        }
        Ok(self.context.clone().map(Arc::new))
    }

    fn model(&self, _tenant: &TenantId) -> Option<Arc<FakeModel>> {
        let model = FakeModel {
            ids: (0..self.items).map(item_id).collect(),
            broken: self.faults.ranker,
        };
        (!self.faults.no_model).then(|| Arc::new(model))
    }

    fn cards<'a>(&'a self, _tenant: &TenantId, _model: &'a FakeModel) -> FakeCards {
        let rights = |n| Rights {
            hidden: self.hidden.contains(&n),
            ..Rights::default()
        };
        FakeCards((0..self.items).map(|n| card(n, rights(n))).collect())
    }

    fn near(
        &self,
        tenant: &TenantId,
        model: &FakeModel,
        query: &[f32],
        k: usize,
    ) -> Result<Vec<(u32, f32)>, PortError> {
        self.near_where(tenant, model, query, k, &|_| true)
    }

    /// Nearest is what comes next by number.
    fn near_where(
        &self,
        _tenant: &TenantId,
        _model: &FakeModel,
        query: &[f32],
        k: usize,
        allow: &dyn Fn(u32) -> bool,
    ) -> Result<Vec<(u32, f32)>, PortError> {
        if self.faults.near {
            return Err(down("vector index"));
        }
        let from = query[0] as u32 + 1;
        Ok((from..self.items as u32)
            .filter(|row| allow(*row))
            .take(k)
            .map(|row| (row, 1.0))
            .collect())
    }

    fn similar_users(
        &self,
        _tenant: &TenantId,
        _model: &FakeModel,
        _query: &[f32],
        k: usize,
        but: Option<&str>,
    ) -> Result<SimilarUsers, PortError> {
        if self.faults.users {
            return Err(down("similar users"));
        }
        let others = (0..self.others.len()).map(|at| format!("u:other{at}"));
        let others = others.filter(|other| Some(other.as_str()) != but);
        Ok(SimilarUsers {
            users: others.take(k).map(|other| (other.into(), 0.9)).collect(),
            missing: self.faults.users_missing,
        })
    }

    fn user_vector(
        &self,
        _tenant: &TenantId,
        _model: &FakeModel,
        _subject: &str,
    ) -> Result<Option<Vec<f32>>, PortError> {
        if self.faults.users {
            return Err(down("user vector"));
        }
        Ok(self.stored.map(|item| vec![item as f32]))
    }

    fn bandit(
        &self,
        _tenant: &TenantId,
        surface: &Surface,
    ) -> Result<Option<Arc<Arms>>, PortError> {
        if self.faults.bandit {
            return Err(down("bandit"));
        }
        let arm = |n: &usize| ArmParams {
            item: item_id(*n),
            alpha: 1.0,
            beta: 1.0,
        };
        let params = Params {
            epoch: 4,
            surface: surface.clone(),
            arms: self.arms.iter().map(arm).collect(),
        };
        let arms = Arms {
            snapshot: Snapshot::integrate(&params),
            places: self.arms.iter().map(|n| Place(*n as u32)).collect(),
        };
        Ok((!self.arms.is_empty()).then(|| Arc::new(arms)))
    }

    fn region(&self) -> Arc<str> {
        "here".into()
    }

    fn tick(&self) -> Tick {
        Tick(0)
    }
}

/// Place, row and number of an item are the same.
pub struct FakeCards(Vec<Card>);

impl Cards for FakeCards {
    fn row(&self, row: u32) -> Option<&Card> {
        self.0.get(row as usize)
    }

    fn gate(&self, row: u32) -> Option<Gate> {
        self.row(row).map(Card::gate)
    }

    fn at(&self, place: Place) -> Option<&Card> {
        self.row(place.0)
    }

    fn of(&self, id: &ItemId) -> Option<&Card> {
        self.row(id.as_str().parse().ok()?)
    }
}

/// The profile is the newest liked row; the score falls with the distance to it.
pub struct FakeModel {
    ids: Vec<ItemId>,
    broken: bool,
}

impl Model for FakeModel {
    type Profile = Option<[f32; 1]>;

    fn version(&self) -> Arc<str> {
        "fake@1".into()
    }

    fn row(&self, id: &ItemId) -> Option<u32> {
        self.ids
            .iter()
            .position(|known| known == id)
            .map(|row| row as u32)
    }

    fn id(&self, row: u32) -> Option<&ItemId> {
        self.ids.get(row as usize)
    }

    fn fold_in(&self, history: &[HistoryStep]) -> Self::Profile {
        history
            .iter()
            .find(|step| step.taste == Taste::Positive)
            .map(|step| [step.item as f32])
    }

    fn profile_of(&self, vector: &[f32]) -> Option<Self::Profile> {
        vector.try_into().ok().map(Some)
    }

    fn query<'p>(&self, profile: &'p Self::Profile) -> Option<&'p [f32]> {
        profile.as_ref().map(|row| row.as_slice())
    }

    fn candidates(
        &self,
        _profile: &Self::Profile,
        near: &[(u32, f32)],
        k: usize,
        allow: &dyn Fn(u32) -> bool,
    ) -> Vec<CandidateRow> {
        let near = near.iter().filter(|(item, _)| allow(*item));
        let rows = near.map(|(item, _)| CandidateRow {
            item: *item,
            source: Source::Vector,
            because: None,
        });
        rows.take(k).collect()
    }

    fn rank(&self, profile: &Self::Profile, rows: &[CandidateRow]) -> Result<Vec<f32>, PortError> {
        if self.broken {
            return Err(down("ranker"));
        }
        let from = profile.map_or(0.0, |[row]| row);
        Ok(rows
            .iter()
            .map(|row| -(row.item as f32 - from).abs() / 100.0)
            .collect())
    }

    fn because(&self, profile: &Self::Profile, _row: u32) -> Option<u32> {
        profile.map(|[row]| row as u32)
    }

    fn trending(&self, k: usize) -> Vec<(u32, f32)> {
        (0..self.ids.len() as u32)
            .rev()
            .take(k)
            .map(|row| (row, 0.5))
            .collect()
    }
}
