//! What the edge path needs of the platform that it runs on. Each host (our PoP, Cloudflare, Spin)
//! implements [`Host`]; the fakes beside the tests implement it by hand and fail on cue.
//!
//! Ports are plain `async fn` without `Send`: JavaScript futures are not `Send`, and the PoP's
//! guest awaits one port at a time. Hedging, single-flight and revalidation belong to the host.

use skerry_types::{Cause, Event, ItemHash, Millis, Rung, Tick};

/// Everything that a platform gives the edge path.
#[expect(async_fn_in_trait, reason = "edge futures are deliberately not Send")]
pub trait Host {
    // Cache: decisions, and bodies rendered from them.
    async fn lookup(&self, key: &[u8], subject: &str, render: u64, now: Millis) -> Found;
    async fn store(&self, key: &[u8], tags: &[String], entry: CacheEntry);
    async fn purge(&self, tag: &str);

    // KV: user contexts.
    async fn kv_get(&self, key: &str) -> Option<KvValue>;
    /// Writes where the version is still `expected` (0: none); `None` where another write came first.
    async fn kv_put(&self, key: &str, bytes: Vec<u8>, expected: u64) -> Option<u64>;

    // What the origin pushed.
    async fn config(&self) -> Vec<u8>;
    async fn pool(&self) -> Vec<u8>;
    /// Row of each id in the pool; [`NO_ROW`] where it has none.
    async fn rows(&self, ids: &[&str]) -> Vec<u32>;
    async fn items(&self, rows: &[u32]) -> Vec<u8>;
    async fn popular(&self, surface: &str, locale: &str) -> Option<Vec<u8>>;
    async fn bandit(&self, surface: &str) -> Option<Vec<u8>>;
    /// For each hash, whether rights forbid the item now.
    async fn forbidden(&self, hashes: &[ItemHash], now: Millis, country: &str) -> Vec<bool>;

    // Origin.
    fn plan(&self, subject_hash: u64, left_ms: u32) -> Plan;
    async fn ask(&self, key: &[u8], question: Vec<u8>, left_ms: u32)
    -> Result<Vec<u8>, AskFailure>;

    // Events.
    /// Durable when it returns.
    async fn append(&self, events: &[Event], subjects: &[String]) -> Result<(), String>;
    /// Encoded events of the subject that the origin has not acknowledged.
    async fn pending(&self, subject: &str) -> Vec<u8>;

    // Clock and log.
    fn tick(&self) -> Tick;
    fn log(&self, level: LogLevel, message: &str);
}

/// [`Host::rows`]: not in the pool.
pub const NO_ROW: u32 = u32::MAX;

/// What the host holds; 0 where it holds nothing. Decoded copies in the worker are keyed by these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epochs {
    pub config: u64,
    pub pool: u64,
    /// Acceptance of the newest event that the pool was made from.
    pub pool_as_of: Millis,
    pub mask: u64,
    /// When the mask next changes its mind by time alone.
    pub mask_until: Millis,
    pub popular: u64,
    pub bandit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Other,
}

/// One request as the platform hands it over.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub now: Millis,
    pub tick: Tick,
    pub entropy: u128,
    pub loopback: bool,
    /// Nobody waits: the answer goes into the cache and nowhere else.
    pub revalidate: bool,
    pub epochs: Epochs,
}

impl Request {
    /// The first header of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// One response.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(Header, String)>,
    pub body: Body,
    pub note: Note,
    /// The body is past its freshness: the same request shall be handled again, as a revalidation.
    pub revalidate: bool,
    /// What was shown, for the origin; empty for nothing. It may be lost.
    pub exposure: Vec<u8>,
}

/// The headers that a response may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    ContentType,
    CacheControl,
    Rung,
    CacheStatus,
    ServerTiming,
    Traceparent,
    RetryAfter,
    Allow,
    WwwAuthenticate,
}

impl Header {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContentType => "content-type",
            Self::CacheControl => "cache-control",
            Self::Rung => "x-skerry-rung",
            Self::CacheStatus => "cache-status",
            Self::ServerTiming => "server-timing",
            Self::Traceparent => "traceparent",
            Self::RetryAfter => "retry-after",
            Self::Allow => "allow",
            Self::WwwAuthenticate => "www-authenticate",
        }
    }
}

#[derive(Debug, Clone)]
pub enum Body {
    Inline(Vec<u8>),
    /// To be kept by the host beside the decision, for the next hit.
    Keep(Keep),
    /// The body that the lookup found rendered, its slots overwritten with these bytes, one slot after
    /// another.
    Stored(Vec<u8>),
}

#[derive(Debug, Clone)]
pub struct Keep {
    pub bytes: Vec<u8>,
    pub key: Vec<u8>,
    pub render: u64,
    pub context_version: u64,
    pub until: Millis,
    /// Offset and length of each field that a hit overwrites.
    pub slots: Vec<(u32, u32)>,
    /// What the core wants to know of the body on a hit.
    pub head: Vec<u8>,
}

/// How an answer met the response cache, for the `cache` field and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheState {
    Hit,
    Miss,
    Stale,
    Bypass,
}

impl CacheState {
    pub const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Stale, Self::Bypass];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
        }
    }
}

/// Which route a request took, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteLabel {
    Recommend,
    Similar,
    Rank,
    Events,
    Popular,
    Unknown,
}

impl RouteLabel {
    pub const ALL: [Self; 6] = [
        Self::Recommend,
        Self::Similar,
        Self::Rank,
        Self::Events,
        Self::Popular,
        Self::Unknown,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recommend => "recommend",
            Self::Similar => "similar",
            Self::Rank => "rank",
            Self::Events => "events",
            Self::Popular => "popular",
            Self::Unknown => "unknown",
        }
    }
}

/// For the host's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    pub route: RouteLabel,
    pub rung: Option<Rung>,
    pub cause: Option<Cause>,
    pub cache: Option<CacheState>,
    pub surface_known: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Found {
    pub context_version: u64,
    /// Head of the body that was rendered for exactly this.
    pub rendered: Option<Vec<u8>>,
    pub entry: Option<CacheEntry>,
}

#[derive(Debug, Clone)]
pub struct CacheEntry {
    pub decision: Vec<u8>,
    pub expires: Millis,
    pub stale_until: Millis,
}

#[derive(Debug, Clone)]
pub struct KvValue {
    pub bytes: Vec<u8>,
    pub version: u64,
}

/// Where the ladder stands for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub ask: bool,
    pub best: Rung,
    pub cause: Option<Cause>,
}

/// Why the origin gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskFailure {
    Down,
    Timeout,
    Overloaded,
    Error,
    /// The origin understood and refused: the question itself is wrong.
    Refused,
}

impl AskFailure {
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::Down => Cause::OriginDown,
            Self::Timeout => Cause::OriginTimeout,
            Self::Overloaded => Cause::OriginOverloaded,
            Self::Error | Self::Refused => Cause::OriginError,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}
