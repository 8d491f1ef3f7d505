//! Data for the commands that work without a running system: a folder, or the seeded catalogue.

use anyhow::{Context, ensure};
use skerry_origin_gateway::{Sink, Stamp, read_data};
use skerry_origin_training::{Interactions, Row};
use skerry_testkit::{Size, world};
use skerry_types::{Event, EventId, EventKind, Item, ItemId, Taste, TenantId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Items, and what training reads of them and of the events.
pub struct Data {
    pub items: Vec<Item>,
    pub interactions: Interactions,
}

/// Reads a folder; without one makes the seeded catalogue.
pub fn load(folder: Option<PathBuf>, seed: u64) -> anyhow::Result<Data> {
    let Some(folder) = folder else {
        let world = world(seed, Size::default());
        return data(world.items, world.events);
    };
    let sink = Memory::default();
    let stamp = Stamp {
        tenant: TenantId::default(),
        now: 0,
        region: Arc::from("eval"),
    };
    let read = read_data(&folder, &stamp, &sink)
        .with_context(|| format!("cannot read {}", folder.display()))?;
    for error in read.errors.iter().take(3) {
        tracing::warn!(
            file = error.file,
            line = error.line,
            code = error.code,
            "{}",
            error.detail
        );
    }
    data(sink.items.into_inner(), sink.events.into_inner())
}

#[derive(Default)]
struct Memory {
    items: RefCell<Vec<Item>>,
    events: RefCell<Vec<Event>>,
}

impl Sink for Memory {
    fn items(&self, items: Vec<Item>) -> Result<(), skerry_origin_gateway::Error> {
        self.items.borrow_mut().extend(items);
        Ok(())
    }

    fn events(&self, events: Vec<Event>) -> Result<(), skerry_origin_gateway::Error> {
        self.events.borrow_mut().extend(events);
        Ok(())
    }

    fn progress(&self, _: u64) {}
}

fn data(mut items: Vec<Item>, mut events: Vec<Event>) -> anyhow::Result<Data> {
    // As the origin trains: the same rows make the same model.
    items.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let rows_of: HashMap<ItemId, u32> = items.iter().map(|item| item.id.clone()).zip(0..).collect();
    // Events of one time by item, numbers as numbers: archives have seconds at best, and a protocol
    // that holds out "the last" must mean the same one everywhere.
    events.sort_by_cached_key(|event| {
        let item = event.item.as_ref().map_or("", ItemId::as_str).to_owned();
        (event.at_ms, item.parse::<u64>().unwrap_or(u64::MAX), item)
    });
    let mut users: HashMap<String, u32> = HashMap::new();
    let mut rows = Vec::with_capacity(events.len());
    for event in &events {
        let (Some(user), Some(item)) = (&event.user, &event.item) else {
            continue;
        };
        let Some(item) = rows_of.get(item) else {
            continue;
        };
        if !event.kind.is_history() {
            continue;
        }
        let next = u32::try_from(users.len())?;
        let user = *users.entry(user.to_string()).or_insert(next);
        let taste = event.kind.taste(event.value);
        rows.push(Row {
            user,
            item: *item,
            at_ms: event.at_ms,
            taste,
            value: event.value,
        });
    }
    ensure!(!rows.is_empty(), "no events of users on known items");
    let given = items
        .iter()
        .map(|item| (item.id.clone(), item.attributes.clone()))
        .collect();
    Ok(Data {
        interactions: Interactions::new(given, rows)?,
        items,
    })
}

/// A kind with the same taste as the row's: what a context needs of the event.
pub fn kind(row: &Row) -> EventKind {
    match (row.value, row.taste) {
        (Some(_), _) => EventKind::Rating,
        (None, Taste::Positive) => EventKind::Like,
        (None, Taste::Negative) => EventKind::Dislike,
        (None, Taste::Neutral) => EventKind::View,
    }
}

pub fn event_id(number: usize) -> EventId {
    EventId::new(&format!("e{number}")).expect("short and printable")
}
