//! The bytes of a decision: reasons name their items and details by position in a list, ids and
//! metadata lie in one piece each. Sixty candidates are taken apart with a handful of allocations.

use crate::value::{StoredDecision, byte_buf};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use skerry_types::{
    Candidate, Cause, Decision, ItemId, ItemRef, Metadata, Millis, Reason, ReasonKind, Rung,
    Source, Uid, Warning,
};
use std::sync::Arc;

/// Position of nothing.
const NONE: u16 = u16::MAX;

#[derive(Serialize)]
struct PackedRef<'a> {
    id: Uid,
    rung: Rung,
    cause: Option<Cause>,
    made_ms: Millis,
    as_of_ms: Millis,
    model: &'a str,
    region: &'a str,
    seed: u64,
    snapshot: u64,
    warnings: &'a [Warning],
    items: Vec<&'a ItemRef>,
    details: Vec<&'a str>,
    ids: String,
    rows: Vec<Row>,
    #[serde(with = "byte_buf")]
    metadata: Vec<u8>,
}

/// [`PackedRef`], owned.
#[derive(Deserialize)]
struct Packed {
    id: Uid,
    rung: Rung,
    cause: Option<Cause>,
    made_ms: Millis,
    as_of_ms: Millis,
    model: Arc<str>,
    region: Arc<str>,
    seed: u64,
    snapshot: u64,
    warnings: Vec<Warning>,
    items: Vec<ItemRef>,
    details: Vec<Arc<str>>,
    ids: Arc<str>,
    rows: Vec<Row>,
    #[serde(with = "byte_buf")]
    metadata: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    /// Of the ids, this many bytes are this row's.
    id_bytes: u16,
    score: f32,
    source: Source,
    propensity: f32,
    reason: ReasonKind,
    /// Positions in the lists, [`NONE`] for none.
    item: u16,
    detail: u16,
    /// Of the metadata, this many bytes are this row's.
    metadata_bytes: u32,
}

impl Serialize for StoredDecision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        pack(&self.decision, Metadata::as_bytes).serialize(serializer)
    }
}

/// A decision without the metadata of its items, which is most of its bytes: read back as a
/// [`StoredDecision`].
#[derive(Debug, Clone, Copy)]
pub struct BareDecision<'a>(pub &'a Decision);

impl Serialize for BareDecision<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        pack(self.0, |_| &[]).serialize(serializer)
    }
}

fn pack<'a>(
    decision: &'a Decision,
    metadata_of: impl Fn(&'a Metadata) -> &'a [u8],
) -> PackedRef<'a> {
    let bytes = decision.candidates.iter();
    let bytes = bytes.map(|one| metadata_of(&one.fields).len()).sum();
    let mut packed = PackedRef {
        id: decision.id,
        rung: decision.rung,
        cause: decision.cause,
        made_ms: decision.made_ms,
        as_of_ms: decision.as_of_ms,
        model: &decision.model,
        region: &decision.region,
        seed: decision.seed,
        snapshot: decision.snapshot,
        warnings: &decision.warnings,
        items: Vec::new(),
        details: Vec::new(),
        ids: String::with_capacity(8 * decision.candidates.len()),
        rows: Vec::with_capacity(decision.candidates.len()),
        metadata: Vec::with_capacity(bytes),
    };
    for one in &decision.candidates {
        let reason = &one.reason;
        let metadata = metadata_of(&one.fields);
        packed.metadata.extend_from_slice(metadata);
        let id = one.id.as_str();
        packed.ids.push_str(id);
        packed.rows.push(Row {
            id_bytes: u16::try_from(id.len()).unwrap_or(u16::MAX),
            score: one.score,
            source: one.source,
            propensity: one.propensity,
            reason: reason.kind,
            item: place(&mut packed.items, reason.item.as_ref()),
            detail: place(&mut packed.details, reason.detail.as_deref()),
            metadata_bytes: u32::try_from(metadata.len()).unwrap_or(u32::MAX),
        });
    }
    packed
}

/// Where a value is in a list; at its end where it is new. A list that is full takes no more: such a
/// reason is told without.
fn place<'a, T: PartialEq + ?Sized>(list: &mut Vec<&'a T>, value: Option<&'a T>) -> u16 {
    let Some(value) = value else { return NONE };
    let known = list.iter().position(|known| *known == value);
    let at = known.unwrap_or(list.len());
    if at == list.len() && at < usize::from(NONE) {
        list.push(value);
    }
    u16::try_from(at).unwrap_or(NONE)
}

impl<'de> Deserialize<'de> for StoredDecision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let packed = Packed::deserialize(deserializer)?;
        let metadata: Arc<[u8]> = packed.metadata.into();
        let (mut from, mut id_from) = (0, 0);
        let mut candidates = Vec::with_capacity(packed.rows.len());
        for row in packed.rows {
            let item = find(&packed.items, row.item);
            let detail = find(&packed.details, row.detail);
            let to = from + row.metadata_bytes as usize;
            let fields = Metadata::part(&metadata, from, to);
            let (Some(item), Some(detail), Some(fields)) = (item, detail, fields) else {
                return Err(D::Error::custom("a row points beyond its list"));
            };
            from = to;
            let id_to = id_from + usize::from(row.id_bytes);
            let id = ItemId::part(&packed.ids, id_from, id_to).map_err(D::Error::custom)?;
            id_from = id_to;
            candidates.push(Candidate {
                id,
                score: row.score,
                source: row.source,
                propensity: row.propensity,
                reason: Reason {
                    kind: row.reason,
                    item,
                    detail,
                },
                fields,
            });
        }
        if from != metadata.len() || id_from != packed.ids.len() {
            return Err(D::Error::custom("ids or metadata without a row"));
        }
        Ok(Self {
            decision: Decision {
                id: packed.id,
                rung: packed.rung,
                cause: packed.cause,
                made_ms: packed.made_ms,
                as_of_ms: packed.as_of_ms,
                model: packed.model,
                region: packed.region,
                seed: packed.seed,
                snapshot: packed.snapshot,
                candidates,
                warnings: packed.warnings,
            },
        })
    }
}

/// The value at a position; `None` where there is no such position.
fn find<T: Clone>(list: &[T], at: u16) -> Option<Option<T>> {
    match at {
        NONE => Some(None),
        at => list.get(usize::from(at)).cloned().map(Some),
    }
}
