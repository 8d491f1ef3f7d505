//! The catalogue: items with attributes and rights, durable in the store and whole in memory.
//!
//! Invariants: a change is durable before it is visible, and visible before the call returns; an
//! item that was removed stays in the rights mask as hidden, because pools and lists that name it
//! live on at the edge; [`Catalog::rights_changed`] moves with each change of any item's rights.

mod table;

use crate::Error;
use crate::state::State;
use arc_swap::ArcSwap;
use fjall::{Database, Keyspace, PersistMode};
use parking_lot::{Mutex, RwLock};
use skerry_origin_core::{Card, Place};
use skerry_types::ids::IdMap;
use skerry_types::{Attributes, Item, ItemHash, ItemId, Rights, TenantId};
use skerry_wire::codec::{decode_as, encode_as};
use skerry_wire::value::schema::CATALOG_ITEM;
use skerry_wire::value::{MaskBlob, PoolItem};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
pub use table::Table;
use tokio::sync::watch;

/// Metadata of one item that travels in pools and answers, in bytes of JSON.
pub const CARD_FIELDS_BYTES_MAX: usize = 512;
/// Attributes that come first where not all fit.
/// Genres whose text cards share, at most.
const GENRES_MAX: usize = 4_096;
const FIELDS_FIRST: [&str; 3] = ["title", "year", "genre"];

/// An item and what is derived from it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub item: Item,
    pub card: Arc<Card>,
}

impl Entry {
    fn new(item: Item, genres: &mut Genres) -> Self {
        let mut card = Card::new(&item, card_fields(&item.attributes));
        card.genre = card.genre.map(|genre| shared(genres, genre));
        let card = Arc::new(card);
        Self { item, card }
    }
}

/// Genres of cards, each once: a list is compared by them, and few stay close at hand.
type Genres = HashSet<Arc<str>>;

/// The one text of a genre, as far as [`GENRES_MAX`] reaches.
fn shared(genres: &mut Genres, genre: Arc<str>) -> Arc<str> {
    if let Some(known) = genres.get(&genre) {
        return Arc::clone(known);
    }
    if genres.len() < GENRES_MAX {
        genres.insert(Arc::clone(&genre));
    }
    genre
}

type Items = IdMap<Arc<Entry>>;

/// Places given out so far; one is never taken back.
type Places = IdMap<Place>;

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    pub new: usize,
    pub changed: usize,
    pub same: usize,
}

/// The catalogue of one tenant.
pub struct Catalog {
    tenant: TenantId,
    db: Database,
    store: Keyspace,
    items: RwLock<Items>,
    places: RwLock<Places>,
    table: ArcSwap<Table>,
    /// Removed items: in the mask, nowhere else.
    removed: RwLock<HashMap<ItemHash, ItemId>>,
    /// One writes at a time; with the genres seen so far.
    writing: Mutex<Genres>,
    rights_changed: watch::Sender<u64>,
    cards_changed: watch::Sender<u64>,
}

impl Catalog {
    pub fn open(state: &State, tenant: &TenantId) -> Result<Self, Error> {
        let store = state.keyspace("items")?;
        let mut items = Items::default();
        let mut removed = HashMap::new();
        let mut genres = Genres::default();
        for entry in store.prefix(key(tenant, "")) {
            let (key, bytes) = entry.into_inner()?;
            let stored: Option<Item> =
                decode_as(CATALOG_ITEM, &bytes).map_err(|error| Error::Corrupt {
                    path: state.dir.join("store"),
                    reason: format!(
                        "item {}: {error}",
                        String::from_utf8_lossy(&key).replace('\0', "/")
                    ),
                })?;
            match stored {
                Some(item) => {
                    let entry = Arc::new(Entry::new(item, &mut genres));
                    items.insert(entry.item.id.clone(), entry);
                }
                None => {
                    let id = key
                        .get(tenant.as_str().len() + 1..)
                        .and_then(|id| std::str::from_utf8(id).ok());
                    if let Some(id) = id.and_then(|id| ItemId::new(id).ok()) {
                        removed.insert(id.hash(), id);
                    }
                }
            }
        }
        let mut table = Table::default();
        let mut places = Places::default();
        for (entry, place) in items.values().zip(0..) {
            places.insert(entry.item.id.clone(), Place(place));
            table.set(Place(place), Some(Arc::clone(&entry.card)));
        }
        Ok(Self {
            tenant: tenant.clone(),
            db: state.db.clone(),
            store,
            items: RwLock::new(items),
            places: RwLock::new(places),
            table: ArcSwap::from_pointee(table),
            removed: RwLock::new(removed),
            writing: Mutex::new(genres),
            rights_changed: watch::Sender::new(0),
            cards_changed: watch::Sender::new(0),
        })
    }

    pub fn get(&self, id: &ItemId) -> Option<Arc<Entry>> {
        self.items.read().get(id).cloned()
    }

    pub fn card(&self, id: &ItemId) -> Option<Arc<Card>> {
        self.items
            .read()
            .get(id)
            .map(|entry| Arc::clone(&entry.card))
    }

    /// All cards, as of now.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Where an item is, or will be once it is there.
    pub fn place(&self, id: &ItemId) -> Place {
        if let Some(place) = self.known_place(id) {
            return place;
        }
        let mut places = self.places.write();
        let next = Place(u32::try_from(places.len()).unwrap_or(u32::MAX));
        *places.entry(id.clone()).or_insert(next)
    }

    /// Where an item is; `None` where nobody asked for its place before.
    pub fn known_place(&self, id: &ItemId) -> Option<Place> {
        self.places.read().get(id).copied()
    }

    fn show<'c>(&self, cards: impl Iterator<Item = (&'c ItemId, Option<Arc<Card>>)>) {
        let mut table = Table::clone(&self.table.load());
        for (id, card) in cards {
            table.set(self.place(id), card);
        }
        self.table.store(Arc::new(table));
    }

    pub fn len(&self) -> usize {
        self.items.read().len()
    }

    /// All items by id.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        let mut all: Vec<Arc<Entry>> = self.items.read().values().cloned().collect();
        all.sort_unstable_by(|a, b| a.item.id.cmp(&b.item.id));
        all
    }

    /// Writes items whole.
    pub fn put(&self, items: Vec<Item>) -> Result<Written, Error> {
        self.write(items, &mut self.writing.lock())
    }

    fn write(&self, items: Vec<Item>, genres: &mut Genres) -> Result<Written, Error> {
        let mut written = Written::default();
        let mut fresh: HashMap<ItemId, Arc<Entry>> = HashMap::with_capacity(items.len());
        let mut batch = self.db.batch();
        let (mut rights, mut cards) = (false, false);
        for item in items {
            let old = fresh.get(&item.id).cloned().or_else(|| self.get(&item.id));
            match &old {
                Some(old) if old.item == item => {
                    written.same += 1;
                    continue;
                }
                Some(old) => {
                    written.changed += 1;
                    rights |= old.item.rights != item.rights;
                    cards |= old.item.attributes != item.attributes;
                }
                None => {
                    written.new += 1;
                    rights |=
                        !item.rights.is_free() || self.removed.read().contains_key(&item.id.hash());
                }
            }
            let entry = Entry::new(item, genres);
            batch.insert(
                &self.store,
                key(&self.tenant, entry.item.id.as_str()),
                encode_as(CATALOG_ITEM, &Some(&entry.item))?,
            );
            fresh.insert(entry.item.id.clone(), Arc::new(entry));
        }
        if fresh.is_empty() {
            return Ok(written);
        }
        batch.durability(Some(PersistMode::SyncData)).commit()?;
        let shown = fresh.values();
        self.show(shown.map(|entry| (&entry.item.id, Some(Arc::clone(&entry.card)))));
        {
            let (mut items, mut removed) = (self.items.write(), self.removed.write());
            for (id, entry) in fresh {
                removed.remove(&entry.card.hash);
                items.insert(id, entry);
            }
        }
        self.announce(rights, cards);
        Ok(written)
    }

    /// Changes one item; `None` where there is none.
    pub fn change(
        &self,
        id: &ItemId,
        change: impl FnOnce(&mut Item),
    ) -> Result<Option<Arc<Entry>>, Error> {
        let mut genres = self.writing.lock();
        let Some(old) = self.get(id) else {
            return Ok(None);
        };
        let mut item = old.item.clone();
        change(&mut item);
        self.write(vec![item], &mut genres)?;
        Ok(self.get(id))
    }

    /// Removes an item; false where there was none.
    pub fn remove(&self, id: &ItemId) -> Result<bool, Error> {
        let _one_at_a_time = self.writing.lock();
        if self.get(id).is_none() {
            return Ok(false);
        }
        let mut batch = self.db.batch();
        batch.insert(
            &self.store,
            key(&self.tenant, id.as_str()),
            encode_as(CATALOG_ITEM, &None::<Item>)?,
        );
        batch.durability(Some(PersistMode::SyncData)).commit()?;
        self.show(std::iter::once((id, None)));
        self.removed.write().insert(id.hash(), id.clone());
        self.items.write().remove(id);
        self.announce(true, false);
        Ok(true)
    }

    /// The rights mask: every item that is not free, removed ones as hidden, ascending by hash.
    pub fn mask(&self) -> MaskBlob {
        let restricted = |entry: &Arc<Entry>| (entry.card.hash, entry.item.rights.clone());
        let mut entries: Vec<(ItemHash, Rights)> = self
            .items
            .read()
            .values()
            .filter(|entry| !entry.item.rights.is_free())
            .map(restricted)
            .collect();
        let hidden = || Rights {
            hidden: true,
            ..Rights::default()
        };
        entries.extend(self.removed.read().keys().map(|hash| (*hash, hidden())));
        entries.sort_by_key(|(hash, _)| *hash);
        MaskBlob { entries }
    }

    /// Id and metadata as pools carry them.
    pub fn pool_item(&self, id: &ItemId) -> PoolItem {
        let card = self.card(id);
        let card = card.as_deref();
        PoolItem {
            id: id.clone(),
            genre: card.and_then(|card| card.genre.clone()),
            fields: card.map_or_else(Default::default, |card| card.metadata.clone()),
        }
    }

    pub fn rights_changed(&self) -> watch::Receiver<u64> {
        self.rights_changed.subscribe()
    }

    pub fn cards_changed(&self) -> watch::Receiver<u64> {
        self.cards_changed.subscribe()
    }

    fn announce(&self, rights: bool, cards: bool) {
        if rights {
            self.rights_changed.send_modify(|count| *count += 1);
        }
        if cards {
            self.cards_changed.send_modify(|count| *count += 1);
        }
    }
}

fn key(tenant: &TenantId, id: &str) -> Vec<u8> {
    let mut key = tenant.as_str().as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(id.as_bytes());
    key
}

/// As many attributes as fit, the well-known ones first.
fn card_fields(attributes: &Attributes) -> Attributes {
    let first = FIELDS_FIRST
        .iter()
        .filter_map(|name| attributes.get_key_value(*name));
    let others = attributes
        .iter()
        .filter(|(name, _)| !FIELDS_FIRST.contains(&name.as_ref()));
    let mut fields = Attributes::new();
    let mut left = CARD_FIELDS_BYTES_MAX;
    for (name, value) in first.chain(others) {
        let mut json = Vec::new();
        skerry_wire::json::attributes_to_json(
            &mut json,
            &Attributes::from([(name.clone(), value.clone())]),
        );
        if let Some(rest) = left.checked_sub(json.len()) {
            left = rest;
            fields.insert(name.clone(), value.clone());
        }
    }
    fields
}

#[cfg(test)]
mod tests;
