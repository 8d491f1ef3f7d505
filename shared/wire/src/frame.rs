//! Frames between a PoP and an origin, over QUIC.
//!
//! A frame is a `u32` length (little endian, of what follows, at most [`FRAME_BYTES_MAX`]) and an
//! encoded value. The PoP opens one bidirectional *control* stream per connection: `Hello`, answered
//! with `Welcome`, then `Events` -> `Ack`, `Exposures`, `Ping` -> `Pong`, and from the origin `Region`,
//! `Invalidate`, `Drain`. Each question has a bidirectional stream of its own: `Ask` -> `Answer`
//! (STOP_SENDING cancels it). Each push comes on a unidirectional stream: `Push`, then the bytes in
//! chunks that the header announces. Further connections of the same PoP begin with `Line` instead of
//! `Hello`, and carry questions alone.

use crate::codec::{CodecError, Schema, decode, decode_as, encode_as};
use crate::value::schema::USER_CONTEXT;
use crate::value::{ExposureBytes, StoredDecision};
use serde::{Deserialize, Serialize};
use skerry_types::{Ask, Decision, Event, Millis, TenantId, Uid, UserContext, UserId};
use std::sync::Arc;

/// Largest frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// A peer that has begun a frame has this long to finish it.
pub const FRAME_MS_MAX: u64 = 5_000;
/// Events in one `Events` frame, at most.
pub const EVENTS_MAX: usize = 500;
/// Protocol versions spoken here, oldest and newest.
pub const PROTOCOL: (u16, u16) = (1, 1);
/// ALPN protocol id.
pub const ALPN: &[u8] = b"skerry/1";
/// What a UDP socket may hold for a reader who waits for a core, in bytes, as far as the kernel allows it
/// (`net.core.rmem_max`): beyond it a burst of answers loses datagrams.
pub const SOCKET_BYTES: usize = 4 << 20;
/// Name that origin certificates carry.
pub const SERVER_NAME: &str = "origin.skerry";

macro_rules! schemas {
    ($($type:ty => $number:literal,)+) => { $(impl Schema for $type { const SCHEMA: u16 = $number; })+ };
}
schemas! {
    Control => 100,
    AskFrame => 101,
    AnswerFrame => 102,
    PushHeader => 103,
}

/// What travels on the control stream, either way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Control {
    Hello(Hello),
    Welcome(Welcome),
    /// PoP to origin: accepted events, oldest first. `seq` is the spool position after the last.
    Events {
        seq: u64,
        events: Vec<Event>,
    },
    /// Origin to PoP: everything up to `seq` is durable here.
    Ack {
        seq: u64,
    },
    /// PoP to origin, not acknowledged: what was shown.
    Exposures {
        exposures: Vec<ExposureBytes>,
    },
    Ping {
        nonce: u64,
    },
    Pong {
        nonce: u64,
    },
    Region(RegionState),
    /// Origin to PoP: dense sequence; a gap means that everything cached is suspect.
    Invalidate {
        seq: u64,
        tags: Vec<Box<str>>,
    },
    /// Origin to PoP: finish what is in flight, ask elsewhere.
    Drain {
        within_ms: u32,
    },
    /// PoP to origin, instead of `Hello`: this connection carries questions alone.
    Line(Line),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest and newest protocol version that the PoP speaks.
    pub protocol: (u16, u16),
    pub pop: Arc<str>,
    pub region: Arc<str>,
    /// What the PoP holds, so that it is not sent again.
    pub held: Vec<(PushKind, u64, [u8; 32])>,
    pub invalidated: u64,
}

/// What begins a connection for questions alone. It has no answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Oldest and newest protocol version that the PoP speaks.
    pub protocol: (u16, u16),
    pub pop: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    pub protocol: u16,
    pub region: Arc<str>,
    /// The newest epoch of each push, sent or held: when the PoP has these it is ready.
    pub current: Vec<(PushKind, u64, [u8; 32])>,
}

/// State of a region, every 250 ms and with every answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RegionState {
    pub region: Arc<str>,
    pub epoch: u64,
    pub seq: u64,
    /// Bits: 1 llm, 2 real-time embeddings, 4 rank, 8 features, 16 ready.
    pub capabilities: u32,
    /// Bits of those that are configured at all.
    pub configured: u32,
    /// Share of the questions that the region will take, per cent.
    pub admit_pct: u8,
    pub event_lag_ms: u32,
    pub ttl_ms: u32,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AskFrame {
    pub request_id: Uid,
    pub ask: Ask,
    /// Milliseconds that the origin has.
    pub left_ms: u32,
    pub seed: u64,
    /// The subject's events that the origin has not acknowledged yet.
    pub pending: Vec<Event>,
    /// Mark of the context that the PoP has of the subject, 0 where it has none: the answer carries
    /// another one only.
    pub known_context: u64,
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerFrame {
    pub outcome: Result<Answer, Refusal>,
    pub state: RegionState,
    /// Microseconds by stage, in order.
    pub stages: Vec<(Stage, u32)>,
}

/// Whether an encoded [`AnswerFrame`] is a refusal, without decoding the rest: its outcome comes
/// first, after the header.
#[must_use]
pub fn is_refusal(answer: &[u8]) -> bool {
    answer.get(4) == Some(&1)
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// An encoded [`StoredDecision`](crate::value::StoredDecision): the PoP keeps these bytes.
    #[serde(with = "crate::value::byte_buf")]
    pub decision: Vec<u8>,
    /// Acceptance of the newest event that the decision was made from; 0 for none.
    pub newest_ms: Millis,
    /// The subject's context, where the PoP does not have it.
    pub context: Option<AnswerContext>,
}

impl Answer {
    pub fn decision(&self) -> Result<Decision, CodecError> {
        decode::<StoredDecision>(&self.decision).map(|stored| stored.decision)
    }
}

/// A context in an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerContext {
    /// [`UserContext::mark`]
    pub mark: u64,
    /// An encoded [`UserContext`], schema [`USER_CONTEXT`].
    #[serde(with = "crate::value::byte_buf")]
    pub context: Vec<u8>,
}

impl AnswerContext {
    pub fn of(context: &UserContext) -> Result<Self, CodecError> {
        Ok(Self {
            mark: context.mark(),
            context: encode_as(USER_CONTEXT, context)?,
        })
    }

    pub fn read(&self) -> Result<UserContext, CodecError> {
        decode_as(USER_CONTEXT, &self.context)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: RefusalCode,
    pub detail: Box<str>,
    pub retry_after_ms: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalCode {
    Overloaded,
    /// What was left of the deadline did not suffice.
    Deadline,
    Draining,
    NotReady,
    /// The question is wrong: nobody should retry it.
    Bad,
    Internal,
}

/// A step of the origin's pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    Features,
    Candidates,
    Rank,
    Explore,
    Rules,
    Explain,
}

impl Stage {
    pub const ALL: [Self; 6] = [
        Self::Features,
        Self::Candidates,
        Self::Rank,
        Self::Explore,
        Self::Rules,
        Self::Explain,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Features => "features",
            Self::Candidates => "candidates",
            Self::Rank => "rank",
            Self::Explore => "explore",
            Self::Rules => "rules",
            Self::Explain => "explain",
        }
    }
}

/// What a push is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PushKind {
    /// [`crate::value::ConfigBlob`]
    Config,
    /// [`crate::value::PoolBlob`]
    Pool,
    /// [`crate::value::PopularBlob`]
    Popular,
    /// [`crate::value::MaskBlob`]
    Mask,
    /// [`crate::value::BanditBlob`]
    Bandit,
    /// [`ContextPush`], for users that this PoP served; not kept by epoch.
    Contexts,
}

impl PushKind {
    /// The kinds of which a PoP holds the newest epoch.
    pub const HELD: [Self; 5] = [
        Self::Config,
        Self::Pool,
        Self::Popular,
        Self::Mask,
        Self::Bandit,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Pool => "pool",
            Self::Popular => "popular",
            Self::Mask => "mask",
            Self::Bandit => "bandit",
            Self::Contexts => "contexts",
        }
    }
}

/// Header of a push; `bytes` bytes follow on the same stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PushHeader {
    pub tenant: TenantId,
    pub kind: PushKind,
    pub epoch: u64,
    pub sha256: [u8; 32],
    pub bytes: u64,
    pub made_ms: Millis,
}

/// A PoP refuses a pool or a popular list that has lost more than 30 % of its items, unless the epoch
/// is higher by at least this (epochs follow milliseconds, so it never comes about by itself): an
/// origin that means it raises the epoch so far.
pub const FORCED_EPOCH_STEP: u64 = 1 << 40;
/// Largest push, in bytes.
pub const PUSH_BYTES_MAX: u64 = 64 << 20;

/// Contexts of users, pushed on connection and when they change elsewhere.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ContextPush {
    pub contexts: Vec<(UserId, UserContext)>,
    /// Users who were erased: forget them.
    pub erased: Vec<UserId>,
}
impl Schema for ContextPush {
    const SCHEMA: u16 = 104;
}
