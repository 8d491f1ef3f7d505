//! What all parts of the origin share: stores, the model in service, what is pushed, and where the
//! origin is in its life. The pipeline's ports are implemented here, in process.

use crate::artifacts::Artifacts;
use crate::catalog::{Catalog, Table};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::pops::Pops;
use crate::rewards::Rewards;
use crate::service::Service;
use crate::similar::UserIndex;
use crate::state::State;
use crate::trends::Trends;
use crate::users::Users;
use crate::{Error, Options};
use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use skerry_origin_bandit::Ledger;
use skerry_origin_core::{Arms, Card, Cards, Gate, Place, PortError, SimilarUsers, World};
use skerry_origin_events::{Answers, Log};
use skerry_origin_features::Store;
use skerry_types::{ItemId, Millis, Surface, TenantId, Tick, Uid, UserContext, UserId};
use skerry_wire::frame::{PushKind, RegionState};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{broadcast, watch};

/// Invalidations kept for PoPs that reconnect.
const INVALIDATIONS_MAX: usize = 1_024;
/// Announcements that a slow connection may fall behind by.
pub const NEWS_MAX: usize = 1_024;
/// A region frame is believed this long, in milliseconds.
const FRAME_TTL_MS: u32 = 3_000;
/// Bits of [`RegionState::capabilities`].
const RANK: u32 = 4;
const FEATURES: u32 = 8;
const READY: u32 = 16;

/// A number of the invalidation log and the tags that it purges.
pub type Invalidation = (u64, Arc<Vec<Box<str>>>);

/// What connections hear of besides artifacts.
#[derive(Debug, Clone)]
pub enum News {
    /// Forget these users.
    Erased(Arc<Vec<UserId>>),
    /// Purge these tags.
    Invalidate {
        seq: u64,
        tags: Arc<Vec<Box<str>>>,
    },
    /// The contexts of these users changed; the PoP that reported it knows.
    Contexts {
        users: Arc<Vec<(UserId, Arc<str>)>>,
    },
    Drain,
}

/// Where the origin is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    Starting,
    Running,
    Failed(String),
}

/// Everything shared.
pub struct Hub {
    pub options: Options,
    pub tenant: TenantId,
    pub clock: Clock,
    pub state: State,
    pub catalog: Catalog,
    pub users: Users,
    pub log: Log,
    pub features: Arc<Store>,
    pub ledger: Arc<Ledger>,
    pub answers: Arc<Answers>,
    pub trends: Arc<Trends>,
    pub rewards: Arc<Rewards>,
    pub similar: Arc<UserIndex>,
    pub artifacts: Artifacts,
    pub pops: Pops,
    pub counters: Counters,
    pub service: ArcSwapOption<Service>,
    pub bandits: ArcSwap<HashMap<Surface, Arc<Arms>>>,
    pub news: broadcast::Sender<News>,
    pub life: watch::Sender<Life>,
    pub draining: AtomicBool,
    /// Set when the ledger has news that no snapshot has.
    pub rewards_changed: Arc<AtomicBool>,
    /// Connected PoPs by connection.
    pub connected: Mutex<HashMap<u64, Arc<str>>>,
    invalidations: Mutex<(u64, VecDeque<Invalidation>)>,
    epoch: u64,
    seq: AtomicU64,
}

/// The parts that are opened before they are shared.
pub struct Parts {
    pub options: Options,
    pub clock: Clock,
    pub state: State,
    pub catalog: Catalog,
    pub users: Users,
    pub log: Log,
    pub features: Arc<Store>,
    pub ledger: Arc<Ledger>,
    pub answers: Arc<Answers>,
    pub trends: Arc<Trends>,
    pub rewards: Arc<Rewards>,
    pub similar: Arc<UserIndex>,
    pub pops: Pops,
    pub rewards_changed: Arc<AtomicBool>,
    pub news: broadcast::Sender<News>,
}

impl Hub {
    pub fn new(parts: Parts) -> Result<Self, Error> {
        let invalidated = parts
            .state
            .get("invalidated")?
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        Ok(Self {
            artifacts: Artifacts::new(&parts.state),
            tenant: TenantId::default(),
            epoch: parts.clock.now(),
            options: parts.options,
            clock: parts.clock,
            state: parts.state,
            catalog: parts.catalog,
            users: parts.users,
            log: parts.log,
            features: parts.features,
            ledger: parts.ledger,
            answers: parts.answers,
            trends: parts.trends,
            rewards: parts.rewards,
            similar: parts.similar,
            pops: parts.pops,
            counters: Counters::default(),
            service: ArcSwapOption::empty(),
            bandits: ArcSwap::default(),
            news: parts.news,
            life: watch::Sender::new(Life::Starting),
            draining: AtomicBool::new(false),
            rewards_changed: parts.rewards_changed,
            connected: Mutex::default(),
            invalidations: Mutex::new((invalidated, VecDeque::new())),
            seq: AtomicU64::new(0),
        })
    }

    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What is missing before questions can be answered well.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if self.service.load().is_none() {
            missing.push("model");
        }
        for kind in [
            PushKind::Config,
            PushKind::Mask,
            PushKind::Popular,
            PushKind::Pool,
        ] {
            if self.artifacts.get(kind).is_none() {
                missing.push(kind.as_str());
            }
        }
        if !self.features.is_healthy() {
            missing.push("features");
        }
        match *self.life.borrow() {
            Life::Running => {}
            Life::Starting => missing.push("start"),
            Life::Failed(_) => missing.push("failed"),
        }
        if self.is_draining() {
            missing.push("draining");
        }
        missing
    }

    /// How far any consumer is behind the newest event that arrived. Contexts and popular counts
    /// have an event before it is acknowledged, so that they lag by what the log has not written
    /// yet; rewards are counted behind it.
    pub fn event_lag_ms(&self) -> u64 {
        self.log.lag().ms().max(self.rewards.lag().ms())
    }

    /// The region's state, as of now; each one is newer than the last.
    pub fn region_state(&self) -> RegionState {
        let rank = self.service.load().is_some();
        let features = self.features.is_healthy();
        let ready = rank && !self.is_draining();
        let bits = [(rank, RANK), (features, FEATURES), (ready, READY)];
        RegionState {
            region: Arc::clone(&self.options.region),
            epoch: self.epoch,
            seq: self.seq.fetch_add(1, Ordering::Relaxed),
            capabilities: bits.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum(),
            configured: RANK | FEATURES | READY,
            admit_pct: if ready { 100 } else { 0 },
            event_lag_ms: u32::try_from(self.event_lag_ms()).unwrap_or(u32::MAX),
            ttl_ms: FRAME_TTL_MS,
        }
    }

    /// Tells all PoPs, now and when they reconnect, to purge.
    pub fn invalidate(&self, tags: Vec<Box<str>>) -> Result<(), Error> {
        let tags = Arc::new(tags);
        let mut invalidations = self.invalidations.lock();
        let seq = invalidations.0 + 1;
        self.state.put("invalidated", &seq.to_be_bytes())?;
        invalidations.0 = seq;
        if invalidations.1.len() == INVALIDATIONS_MAX {
            invalidations.1.pop_front();
        }
        invalidations.1.push_back((seq, Arc::clone(&tags)));
        // Nobody listens where no PoP is connected.
        let _ = self.news.send(News::Invalidate { seq, tags });
        Ok(())
    }

    /// What a PoP missed since `after`. It sees a gap where that is no longer kept.
    pub fn invalidations_after(&self, after: u64) -> Vec<Invalidation> {
        let invalidations = self.invalidations.lock();
        let missed: Vec<_> = invalidations
            .1
            .iter()
            .filter(|(seq, _)| *seq > after)
            .cloned()
            .collect();
        if missed.is_empty() && invalidations.0 > after {
            // Kept nothing: the newest number alone, so that the gap shows.
            return vec![(invalidations.0, Arc::default())];
        }
        missed
    }

    pub fn fresh_id(&self) -> Uid {
        Uid::v7(self.now(), crate::clock::entropy())
    }
}

/// The catalogue as it is for one question.
pub struct Now<'a> {
    catalog: &'a Catalog,
    table: Arc<Table>,
    model: &'a Service,
}

impl Cards for Now<'_> {
    fn row(&self, row: u32) -> Option<&Card> {
        self.at(self.model.place(row)?)
    }

    fn gate(&self, row: u32) -> Option<Gate> {
        self.table.gate(self.model.place(row)?)
    }

    fn at(&self, place: Place) -> Option<&Card> {
        self.table.at(place)
    }

    fn of(&self, id: &ItemId) -> Option<&Card> {
        self.at(self.catalog.known_place(id)?)
    }
}

impl World for Hub {
    type Model = Service;
    type Cards<'a> = Now<'a>;

    fn context(
        &self,
        tenant: &TenantId,
        subject: &str,
    ) -> Result<Option<Arc<UserContext>>, PortError> {
        self.features
            .context(tenant, subject)
            .map_err(|error| PortError {
                what: "features",
                detail: error.to_string(),
            })
    }

    fn model(&self, tenant: &TenantId) -> Option<Arc<Service>> {
        (*tenant == self.tenant)
            .then(|| self.service.load_full())
            .flatten()
    }

    /// There is one tenant, and only its model gets here.
    fn cards<'a>(&'a self, _: &TenantId, model: &'a Service) -> Now<'a> {
        Now {
            catalog: &self.catalog,
            table: self.catalog.table(),
            model,
        }
    }

    fn near(
        &self,
        _: &TenantId,
        model: &Service,
        query: &[f32],
        k: usize,
    ) -> Result<Vec<(u32, f32)>, PortError> {
        model.near(query, k)
    }

    fn near_where(
        &self,
        _: &TenantId,
        model: &Service,
        query: &[f32],
        k: usize,
        allow: &dyn Fn(u32) -> bool,
    ) -> Result<Vec<(u32, f32)>, PortError> {
        model.near_where(query, k, allow)
    }

    fn similar_users(
        &self,
        tenant: &TenantId,
        model: &Service,
        query: &[f32],
        k: usize,
        but: Option<&str>,
    ) -> Result<SimilarUsers, PortError> {
        let clock = || self.tick();
        let number = model.about.number;
        self.similar.near(tenant, number, query, k, but, &clock)
    }

    fn user_vector(
        &self,
        tenant: &TenantId,
        model: &Service,
        subject: &str,
    ) -> Result<Option<Vec<f32>>, PortError> {
        let clock = || self.tick();
        self.similar
            .vector(tenant, model.about.number, subject, &clock)
    }

    fn bandit(&self, tenant: &TenantId, surface: &Surface) -> Result<Option<Arc<Arms>>, PortError> {
        if *tenant != self.tenant {
            return Ok(None);
        }
        let bandits = self.bandits.load();
        Ok(bandits
            .get(surface)
            .or_else(|| bandits.get(&Surface::default()))
            .cloned())
    }

    fn region(&self) -> Arc<str> {
        Arc::clone(&self.options.region)
    }

    fn tick(&self) -> Tick {
        self.clock.tick()
    }
}
