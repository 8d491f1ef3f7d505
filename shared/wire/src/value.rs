//! Values that are stored or pushed: contexts in a PoP's KV, decisions in its cache, and what the
//! origin pushes. Schema numbers 1 to 99 are values, 100 and up are frames.

use crate::codec::{self, CodecError, Schema};
use serde::{Deserialize, Serialize};
use skerry_types::{
    Decision, Event, ItemHash, ItemId, Metadata, Millis, ReasonKind, Rights, Rung, Source, Surface,
    TenantId, Uid, UserContext,
};
use std::sync::Arc;

/// Schema numbers of values whose types other crates own.
pub mod schema {
    /// `skerry_decide::bandit::Snapshot`
    pub const BANDIT_SNAPSHOT: u16 = 20;
    /// `skerry_origin_events::Record`
    pub const EVENT_RECORD: u16 = 21;
    /// `skerry_origin_events::Answered`
    pub const ANSWERED: u16 = 22;
    /// `skerry_types::Item` in the origin's catalogue.
    pub const CATALOG_ITEM: u16 = 23;
    /// `skerry_types::Attributes` of a user.
    pub const USER_ATTRIBUTES: u16 = 24;
    /// A PoP's spooled event with its subject.
    pub const SPOOLED_EVENT: u16 = 25;
    /// `skerry_types::UserContext` in an answer.
    pub const USER_CONTEXT: u16 = 26;
    /// `skerry_types::Attributes` as a `skerry_types::Metadata`.
    pub const METADATA: u16 = 27;
    /// Popular counts of the origin's surfaces.
    pub const TRENDS: u16 = 30;
    /// `skerry_vector_shard::ShardTable` without its epoch.
    pub const SHARD_TABLE: u16 = 31;
    /// `skerry_vector_shard::View`, as nodes keep it.
    pub const SHARD_VIEW: u16 = 32;
    /// The terms of a shard's log.
    pub const SHARD_TERMS: u16 = 33;
    /// `skerry_types::Filter` of a search.
    pub const FILTER: u16 = 34;
    /// Leaders, in-sync sets and tokens, as the embedded coordination keeps them.
    pub const SHARD_COORDINATION: u16 = 35;
    /// An in-sync set, as etcd keeps it.
    pub const SHARD_SYNC: u16 = 36;
    /// The same as [`SHARD_TABLE`], with the changes of replicas that are under way.
    pub const SHARD_TABLE_PLACING: u16 = 37;
    /// What a place for snapshots belongs to.
    pub const BACKUP_PLACE: u16 = 38;
    /// `skerry_vector_backup::Manifest`
    pub const BACKUP_MANIFEST: u16 = 39;
    /// The table of a node, as its snapshots keep it.
    pub const SHARD_BACKUP: u16 = 40;
}

macro_rules! schemas {
    ($($type:ty => $number:literal,)+) => { $(impl Schema for $type { const SCHEMA: u16 = $number; })+ };
}

schemas! {
    StoredContext => 1,
    StoredDecision => 2,
    EventBatch => 3,
    Shown => 4,
    PoolItems => 5,
    PopularList => 6,
    PoolBlob => 10,
    PopularBlob => 11,
    MaskBlob => 12,
    BanditBlob => 13,
    ConfigBlob => 14,
    NextPage => 15,
    RenderedHead => 16,
}

/// A user's context as a PoP keeps it. Times live inside: not every KV has a TTL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredContext {
    pub written_ms: Millis,
    /// Serves without a warning until then; `edge` may use it up to 24 h after `written_ms`.
    pub expires_ms: Millis,
    /// [`UserContext::mark`] of the origin's copy that this one equals; 0 where it may differ.
    pub mark: u64,
    pub context: UserContext,
}

/// A stored context without its content: what a PoP needs to know before it asks the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextHead {
    pub written_ms: Millis,
    pub expires_ms: Millis,
    pub mark: u64,
}

/// The first fields of a stored context: enough to answer from a list that the origin made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextSeen {
    pub head: ContextHead,
    /// As in [`UserContext`].
    pub seen: Vec<ItemHash>,
}

impl ContextSeen {
    /// Of an encoded [`StoredContext`].
    pub fn of(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode_first(StoredContext::SCHEMA, bytes)
    }
}

impl ContextHead {
    /// An encoded [`StoredContext`] with this head and an encoded [`UserContext`], as answers carry
    /// it, for its content.
    pub fn with(&self, context: &[u8]) -> Result<Vec<u8>, CodecError> {
        codec::check_schema(schema::USER_CONTEXT, context)?;
        let mut bytes = codec::encode_as(StoredContext::SCHEMA, self)?;
        bytes.extend_from_slice(context.get(codec::HEADER_BYTES..).unwrap_or_default());
        Ok(bytes)
    }
}

/// A decision as it travels and as a PoP keeps it: packed by `packed.rs`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDecision {
    pub decision: Decision,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EventBatch {
    pub events: Vec<Event>,
}

/// Attributes on their way into an answer.
pub mod metadata {
    use super::schema::METADATA;
    use crate::codec::{CodecError, decode_as, encode_as};
    use skerry_types::{Attributes, Metadata};

    #[must_use]
    pub fn of(attributes: &Attributes) -> Metadata {
        if attributes.is_empty() {
            return Metadata::default();
        }
        // Maps of scalars always encode.
        encode_as(METADATA, attributes)
            .map(|bytes| Metadata::from_bytes(&bytes))
            .unwrap_or_default()
    }

    pub fn read(metadata: &Metadata) -> Result<Attributes, CodecError> {
        match metadata.as_bytes() {
            [] => Ok(Attributes::new()),
            bytes => decode_as(METADATA, bytes),
        }
    }
}

/// What one answer showed. Queued, may be lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exposure {
    pub request_id: Uid,
    pub at_ms: Millis,
    pub from_cache: bool,
    pub shown: Shown,
}

/// The part of an exposure that all answers from one rendered body share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    pub tenant: TenantId,
    pub decision_id: Uid,
    pub rung: Rung,
    pub cause: Option<skerry_types::Cause>,
    pub surface: Surface,
    /// `u:USER` or `s:SESSION`, where there was one.
    pub subject: Option<Box<str>>,
    pub pop: Arc<str>,
    pub snapshot: u64,
    pub seed: u64,
    pub model: Arc<str>,
    pub items: Vec<ExposedItem>,
}

/// An [`Exposure`] as [`exposure`] has it: nobody takes it apart before it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposureBytes(#[serde(with = "byte_buf")] pub Vec<u8>);

/// The bytes of an exposure, from the worker to the origin's store: a fixed head that a cache hit can
/// write without decoding the rest, then an encoded [`Shown`].
pub mod exposure {
    use super::{Exposure, Shown};
    use crate::codec::{CodecError, Schema as _, decode, decode_first};
    use serde::Deserialize;
    use skerry_types::{Millis, TenantId, Uid};

    /// Request id, time, whether from the cache.
    const HEAD_BYTES: usize = 16 + 8 + 1;

    #[must_use]
    pub fn join(request_id: Uid, at_ms: Millis, from_cache: bool, shown: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + shown.len());
        out.extend_from_slice(&request_id.0.to_le_bytes());
        out.extend_from_slice(&at_ms.to_le_bytes());
        out.push(u8::from(from_cache));
        out.extend_from_slice(shown);
        out
    }

    pub fn read(bytes: &[u8]) -> Result<Exposure, CodecError> {
        let (request_id, at_ms, from_cache, shown) = split(bytes)?;
        Ok(Exposure {
            request_id,
            at_ms,
            from_cache,
            shown: decode::<Shown>(shown)?,
        })
    }

    /// What an exposure is found by.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Head {
        pub request_id: Uid,
        pub decision_id: Uid,
        pub at_ms: Millis,
    }

    /// The first fields of a [`Shown`].
    #[derive(Deserialize)]
    struct ShownHead {
        #[expect(dead_code, reason = "what lies before the decision's id")]
        tenant: TenantId,
        decision_id: Uid,
    }

    pub fn read_head(bytes: &[u8]) -> Result<Head, CodecError> {
        let (request_id, at_ms, _, shown) = split(bytes)?;
        let shown: ShownHead = decode_first(Shown::SCHEMA, shown)?;
        Ok(Head {
            request_id,
            decision_id: shown.decision_id,
            at_ms,
        })
    }

    fn split(bytes: &[u8]) -> Result<(Uid, Millis, bool, &[u8]), CodecError> {
        let short = || CodecError::Short(bytes.len());
        let (head, shown) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(short)?;
        let (id, rest) = head.split_first_chunk::<16>().ok_or_else(short)?;
        let (at, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let id = Uid(u128::from_le_bytes(*id));
        Ok((id, u64::from_le_bytes(*at), rest.first() == Some(&1), shown))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExposedItem {
    pub id: ItemId,
    pub score: f32,
    pub source: Source,
    pub propensity: f32,
}

/// Ids and metadata of pool rows, in the order asked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PoolItems {
    pub items: Vec<PoolItem>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolItem {
    pub id: ItemId,
    /// The first genre, for diversity and reasons.
    pub genre: Option<Arc<str>>,
    pub fields: Metadata,
}

/// A list that needs nothing but itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PopularList {
    pub as_of_ms: Millis,
    pub items: Vec<PopularItem>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PopularItem {
    pub id: ItemId,
    pub score: f32,
    pub fields: Metadata,
}

/// The item pool: numeric part for the worker, ids and metadata for the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolBlob {
    pub model: Arc<str>,
    pub region: Arc<str>,
    pub made_ms: Millis,
    /// Acceptance of the newest event that it was made from.
    pub as_of_ms: Millis,
    /// `skerry_decide::score::EdgePool`
    #[serde(with = "byte_buf")]
    pub arrays: Vec<u8>,
    /// One for each row of `arrays`.
    pub items: Vec<PoolItem>,
}

/// Popular lists; the one without surface and locale is for everything else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PopularBlob {
    pub lists: Vec<PopularFor>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PopularFor {
    pub surface: Option<Surface>,
    pub locale: Option<Box<str>>,
    pub list: PopularList,
}

/// Rights of the items that are not free for all, ascending by hash.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MaskBlob {
    pub entries: Vec<(ItemHash, Rights)>,
}

/// Bandit snapshots by surface, each an encoded `skerry_decide::bandit::Snapshot`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BanditBlob {
    pub snapshots: Vec<(Surface, Vec<u8>)>,
}

/// What PoPs need to know beside the data: settings that must be the same on all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigBlob {
    /// Names of this PoP and its region: filled in by the host that hands the blob to its worker.
    pub pop: Arc<str>,
    pub region: Arc<str>,
    /// Seals `next` tokens; the same on every PoP of a deployment.
    pub sealing_key: [u8; 32],
    /// Configured surfaces; others use the defaults and the metric class `other`.
    pub surfaces: Vec<Surface>,
    /// Whether a public key may name users; `None`: on loopback only.
    pub public_names_users: Option<bool>,
    /// Keys that may ask, as the origin and the PoP's own key files give them.
    pub keys: Vec<ApiKey>,
    /// Freshness of responses, milliseconds: a user who acted lately, and others.
    pub fresh_active_ms: u32,
    pub fresh_idle_ms: u32,
}

/// A key by its digest: the key itself is nowhere stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApiKey {
    pub sha256: [u8; 32],
    pub class: KeyClass,
    pub tenant: TenantId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyClass {
    Public,
    Secret,
    Pop,
}

/// The content of a `next` token: the rest of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextPage {
    pub tenant: TenantId,
    pub subject: Option<Box<str>>,
    pub surface: Surface,
    pub expires_ms: Millis,
    pub decision_id: Uid,
    pub rung: Rung,
    pub cause: Option<skerry_types::Cause>,
    pub as_of_ms: Millis,
    pub model: Arc<str>,
    pub seed: u64,
    pub snapshot: u64,
    /// Items already shown: ranks go on from here.
    pub shown: u16,
    pub explain: bool,
    pub fields: Vec<Box<str>>,
    /// Items that reasons name; their titles are looked up when the page is shown.
    pub because: Vec<ItemId>,
    pub rest: Vec<NextItem>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextItem {
    pub id: ItemId,
    pub score: f32,
    pub source: Source,
    pub propensity: f32,
    pub reason: Option<NextReason>,
}

/// A reason without titles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextReason {
    pub kind: ReasonKind,
    /// Position in [`NextPage::because`].
    pub because: Option<u16>,
    pub detail: Option<Arc<str>>,
}

/// What the worker needs to know of a body that the host kept rendered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenderedHead {
    pub decision_id: Uid,
    pub made_ms: Millis,
    pub as_of_ms: Millis,
    pub expires_ms: Millis,
    pub rung: Rung,
    pub cause: Option<skerry_types::Cause>,
    /// The encoded [`Shown`] of every answer made from this body.
    #[serde(with = "byte_buf")]
    pub shown: Vec<u8>,
}

/// Byte lists as one piece: the same bytes on the wire as a list of numbers, without a step for each.
pub(crate) mod byte_buf {
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    /// First allocation for a list that comes element by element.
    const FIRST_BYTES: usize = 4 << 10;

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Bytes)
    }

    struct Bytes;

    impl<'de> Visitor<'de> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(FIRST_BYTES));
            while let Some(byte) = seq.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}
