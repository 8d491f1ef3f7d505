//! Whether a push means what it should: a valid blob that would harm is refused like a broken one.

use super::{Pool, Popular, Refused, Snapshot};
use bytes::Bytes;
use skerry_decide::bandit;
use skerry_decide::rights::Mask;
use skerry_decide::score::EdgePool;
use skerry_types::ItemHash;
use skerry_wire::codec::decode_as;
use skerry_wire::frame::{PushHeader, PushKind};
use skerry_wire::value::{
    BanditBlob, ConfigBlob, MaskBlob, PoolBlob, PoolItems, PopularBlob, PopularList, metadata,
    schema,
};
use skerry_wire::{decode, encode};
use std::collections::HashMap;
use std::sync::Arc;

/// How many of its items a pool or list may lose from one push to the next, per cent. Growth is what
/// imports do; it is bounded by [`ITEMS_MAX`].
const LOSS_PERCENT_MAX: usize = 30;
/// Items of a pool or list, at most: a worker decodes the whole pool.
const ITEMS_MAX: usize = 100_000;
/// Below this many items a size says nothing.
const SIZE_JUDGED_MIN: usize = 100;

/// A push that may be used.
pub enum Checked {
    Config(ConfigBlob),
    Pool(Arc<Pool>),
    Popular(Arc<Popular>),
    Mask(Arc<Mask>),
    Bandit(Arc<HashMap<Box<str>, Bytes>>),
}

/// Checks a body against what is held. `forced` lets its size differ from the last one's.
pub fn check(
    header: &PushHeader,
    body: &Bytes,
    last: &Snapshot,
    forced: bool,
) -> Result<Checked, Refused> {
    match header.kind {
        PushKind::Config => config(body),
        PushKind::Pool => pool(header.epoch, body, last, forced),
        PushKind::Popular => popular(header.epoch, body, last, forced),
        PushKind::Mask => mask(body),
        PushKind::Bandit => bandit(body),
        // Not held: merged into the KV by whoever received it.
        PushKind::Contexts => Err(Refused::Inconsistent),
    }
}

fn config(body: &[u8]) -> Result<Checked, Refused> {
    let config: ConfigBlob = decode(body).map_err(|_| Refused::Decode)?;
    if config.sealing_key == [0; 32] || config.fresh_active_ms == 0 || config.fresh_idle_ms == 0 {
        return Err(Refused::Inconsistent);
    }
    Ok(Checked::Config(config))
}

fn pool(epoch: u64, body: &[u8], last: &Snapshot, forced: bool) -> Result<Checked, Refused> {
    let blob: PoolBlob = decode(body).map_err(|_| Refused::Decode)?;
    // The arrays check themselves: shapes, ranges and finite numbers.
    let arrays = EdgePool::from_bytes(&blob.arrays).map_err(|_| Refused::NotFinite)?;
    if arrays.len() != blob.items.len() || u32::try_from(blob.items.len()).is_err() {
        return Err(Refused::Inconsistent);
    }
    // Read only when an item is shown: what cannot be read must not get that far.
    let mut fields = blob.items.iter().map(|item| &item.fields);
    if !fields.all(|fields| metadata::read(fields).is_ok()) {
        return Err(Refused::Decode);
    }
    size(
        last.pool.as_ref().map(|pool| pool.items.len()),
        blob.items.len(),
        forced,
    )?;
    let rows: HashMap<u64, u32> = (0u32..)
        .zip(&blob.items)
        .map(|(row, item)| (item.id.hash().0, row))
        .collect();
    if rows.len() != blob.items.len() {
        return Err(Refused::Inconsistent);
    }
    let as_of = blob.as_of_ms;
    Ok(Checked::Pool(Arc::new(Pool {
        epoch,
        as_of,
        arrays: blob.arrays.into(),
        items: blob.items,
        rows,
    })))
}

fn popular(epoch: u64, body: &[u8], last: &Snapshot, forced: bool) -> Result<Checked, Refused> {
    let blob: PopularBlob = decode(body).map_err(|_| Refused::Decode)?;
    let mut lists = HashMap::with_capacity(blob.lists.len());
    for one in blob.lists {
        if one.list.items.iter().any(|item| !item.score.is_finite()) {
            return Err(Refused::NotFinite);
        }
        let mut fields = one.list.items.iter().map(|item| &item.fields);
        if !fields.all(|fields| metadata::read(fields).is_ok()) {
            return Err(Refused::Decode);
        }
        let surface = one.surface.as_ref().map_or("", |surface| surface.as_str());
        let key = (Box::from(surface), one.locale.unwrap_or_default());
        let empty = one.list.items.is_empty();
        if !empty {
            lists.insert(key, encode(&one.list).map_err(|_| Refused::Decode)?.into());
        }
    }
    let general = (Box::from(""), Box::from(""));
    let held = last
        .popular
        .as_ref()
        .and_then(|popular| popular.lists.get(&general));
    let count = |list: Option<&Bytes>| {
        list.and_then(|list| decode::<PopularList>(list).ok())
            .map(|l| l.items.len())
    };
    if held.is_some() && !lists.contains_key(&general) {
        return Err(Refused::Empty);
    }
    size(count(held), count(lists.get(&general)).unwrap_or(0), forced)?;
    Ok(Checked::Popular(Arc::new(Popular { epoch, lists })))
}

fn mask(body: &[u8]) -> Result<Checked, Refused> {
    let blob: MaskBlob = decode(body).map_err(|_| Refused::Decode)?;
    let ascending = |pair: &[(ItemHash, _)]| matches!(pair, [(a, _), (b, _)] if a < b);
    if !blob.entries.windows(2).all(ascending) {
        return Err(Refused::Inconsistent);
    }
    Ok(Checked::Mask(Arc::new(Mask::new(blob.entries))))
}

fn bandit(body: &[u8]) -> Result<Checked, Refused> {
    let blob: BanditBlob = decode(body).map_err(|_| Refused::Decode)?;
    let mut snapshots = HashMap::with_capacity(blob.snapshots.len());
    for (surface, bytes) in blob.snapshots {
        let snapshot: bandit::Snapshot =
            decode_as(schema::BANDIT_SNAPSHOT, &bytes).map_err(|_| Refused::Decode)?;
        if snapshot.surface != surface {
            return Err(Refused::Inconsistent);
        }
        if snapshot
            .arms
            .iter()
            .any(|arm| !arm.win.is_finite() || arm.win < 0.0)
        {
            return Err(Refused::NotFinite);
        }
        snapshots.insert(Box::from(surface.as_str()), Bytes::from(bytes));
    }
    Ok(Checked::Bandit(Arc::new(snapshots)))
}

/// Nothing after something is refused always, a loss of many unless it is meant.
fn size(last: Option<usize>, fresh: usize, forced: bool) -> Result<(), Refused> {
    if fresh > ITEMS_MAX {
        return Err(Refused::Size);
    }
    let Some(last) = last.filter(|last| *last > 0) else {
        return if fresh == 0 {
            Err(Refused::Empty)
        } else {
            Ok(())
        };
    };
    if fresh == 0 {
        return Err(Refused::Empty);
    }
    let lost = last.saturating_sub(fresh) * 100;
    if !forced && last >= SIZE_JUDGED_MIN && lost > last * LOSS_PERCENT_MAX {
        return Err(Refused::Size);
    }
    Ok(())
}

/// Rows' ids and metadata, encoded as the worker takes them.
pub fn encode_items(pool: &Pool, rows: &[u32]) -> Vec<u8> {
    let items = rows
        .iter()
        .filter_map(|row| pool.items.get(usize::try_from(*row).ok()?))
        .cloned()
        .collect();
    encode(&PoolItems { items }).unwrap_or_default()
}
