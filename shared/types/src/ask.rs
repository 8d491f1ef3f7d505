//! A question, parsed and checked: everything after the border works on this.

use crate::filter::Filter;
use crate::ids::{ItemId, SessionId, Surface, TenantId, UserId};
use crate::item::Country;
use crate::rung::Rung;
use crate::time::Budget;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many items are asked for: 1 to 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Count(u16);

impl Count {
    pub const MAX: u16 = 200;

    #[must_use]
    pub fn new(n: u64) -> Option<Self> {
        u16::try_from(n)
            .ok()
            .filter(|n| (1..=Self::MAX).contains(n))
            .map(Self)
    }

    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// How many candidates a decision for this many items keeps: 3 n, at least 60.
    #[must_use]
    pub const fn kept(self) -> usize {
        let three = self.0 as usize * 3;
        if three < 60 { 60 } else { three }
    }
}

impl Default for Count {
    fn default() -> Self {
        Self(10)
    }
}

impl TryFrom<u16> for Count {
    type Error = &'static str;
    fn try_from(n: u16) -> Result<Self, Self::Error> {
        Self::new(u64::from(n)).ok_or("a count is 1 to 200")
    }
}

impl From<Count> for u16 {
    fn from(count: Count) -> Self {
        count.0
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Route {
    Recommend,
    /// Items like these 1 to 10.
    Similar {
        seeds: Vec<ItemId>,
    },
    /// These 1 to 500 items, ordered.
    Rank {
        items: Vec<ItemId>,
    },
    Popular,
}

impl Route {
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Recommend => "recommend",
            Self::Similar { .. } => "similar",
            Self::Rank { .. } => "rank",
            Self::Popular => "popular",
        }
    }
}

/// Where and on what the user is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RequestContext {
    pub device: Option<Box<str>>,
    pub country: Option<Country>,
    pub locale: Option<Box<str>>,
    pub tz: Option<Box<str>>,
    /// What a deployment declares beside these.
    pub other: BTreeMap<Box<str>, Box<str>>,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    pub tenant: TenantId,
    pub route: Route,
    pub user: Option<UserId>,
    pub session: Option<SessionId>,
    pub surface: Surface,
    pub n: Count,
    pub context: RequestContext,
    pub exclude: Vec<ItemId>,
    pub filter: Option<Filter>,
    pub fields: Vec<Box<str>>,
    pub budget_ms: u32,
    pub lowest_rung: Option<Rung>,
    pub explain: bool,
}

/// A recommendation for nobody in particular.
impl Default for Ask {
    fn default() -> Self {
        Self {
            tenant: TenantId::default(),
            route: Route::Recommend,
            user: None,
            session: None,
            surface: Surface::default(),
            n: Count::default(),
            context: RequestContext::default(),
            exclude: Vec::new(),
            filter: None,
            fields: Vec::new(),
            budget_ms: Budget::DEFAULT_MS,
            lowest_rung: None,
            explain: false,
        }
    }
}

impl Ask {
    /// Whose context applies: `u:` and the user, else `s:` and the session; none for an anonymous
    /// visitor.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        crate::ids::subject(self.user.as_ref(), self.session.as_ref())
    }
}
