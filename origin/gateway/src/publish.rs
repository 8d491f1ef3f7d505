//! Making what PoPs hold from what the origin knows, and remaking it when that changes.

use crate::Error;
use crate::hub::Hub;
use crate::service::Service;
use crate::trends::{Base, Ranked};
use skerry_origin_core::{Arms, Place};
use skerry_types::{ItemId, Surface};
use skerry_wire::codec::encode_as;
use skerry_wire::frame::PushKind;
use skerry_wire::value::schema::BANDIT_SNAPSHOT;
use skerry_wire::value::{
    BanditBlob, ConfigBlob, PoolBlob, PopularBlob, PopularFor, PopularItem, PopularList,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Items of the popular list.
pub const POPULAR_MAX: usize = 200;
/// Arms of a surface that come from outside the model: new items that nobody knows yet.
const COLD_ARMS_MAX: usize = 50;
/// Changed titles and attributes reach the pool after this long, in milliseconds.
const CARDS_MS: u64 = 5_000;
/// How often it is asked whether events moved the popular lists, in milliseconds.
const POPULAR_TICK_MS: u64 = 1_000;
/// Bandit parameters are integrated this often, where they changed, in milliseconds.
const BANDIT_MS: u64 = 3_000;
const SEALING_KEY: &str = "sealing_key";

/// Everything that depends on the model and the catalogue. Blocking.
pub fn all(hub: &Hub) -> Result<(), Error> {
    config(hub)?;
    mask(hub)?;
    if let Some(service) = hub.service.load_full() {
        popular(hub, &service, Always::Yes)?;
        bandit(hub, &service)?;
        pool(hub, &service)?;
    }
    Ok(())
}

fn publish<T: skerry_wire::codec::Schema + serde::Serialize>(
    hub: &Hub,
    kind: PushKind,
    value: &T,
) -> Result<(), Error> {
    let bytes = skerry_wire::encode(value)?;
    hub.artifacts.publish(kind, bytes, hub.now()).map(|_| ())
}

pub fn config(hub: &Hub) -> Result<(), Error> {
    let sealing_key = match hub
        .state
        .get(SEALING_KEY)?
        .and_then(|key| key.try_into().ok())
    {
        Some(key) => key,
        None => {
            let key = crate::clock::secret()
                .ok_or_else(|| Error::Store("the system gives no random numbers".to_owned()))?;
            hub.state.put(SEALING_KEY, &key)?;
            key
        }
    };
    let options = &hub.options;
    let config = ConfigBlob {
        pop: Arc::from(""),
        region: Arc::from(""),
        sealing_key,
        surfaces: options.surfaces.clone(),
        public_names_users: options.public_names_users,
        keys: options.api_keys.clone(),
        fresh_active_ms: options.fresh_active_ms,
        fresh_idle_ms: options.fresh_idle_ms,
    };
    publish(hub, PushKind::Config, &config)
}

pub fn mask(hub: &Hub) -> Result<(), Error> {
    publish(hub, PushKind::Mask, &hub.catalog.mask())
}

/// Whether lists are sent that show the same as those that PoPs have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Always {
    Yes,
    No,
}

/// The general list, and those of surfaces: what is trending in the model and since it was trained.
fn popular(hub: &Hub, service: &Service, always: Always) -> Result<(), Error> {
    let about = &service.about;
    hub.trends.follow(
        hub.log.reader(),
        about.seq,
        hub.options.train.trend_half_life * count(about.events),
    )?;
    let priors = &service.model.parts().priors;
    let trend = |row: u32| {
        let prior = priors.get(row as usize);
        prior.map_or(0.0, |prior| f64::from(prior.trend).exp_m1())
    };
    let best = service.model.trending(POPULAR_MAX);
    let base = Base {
        as_of_ms: about.as_of_ms,
        best: best
            .iter()
            .filter_map(|(row, _)| Some((service.model.id(*row)?.clone(), trend(*row))))
            .collect(),
        trend: &|item| service.model.index_of(item).map_or(0.0, trend),
    };
    let exists = |item: &ItemId| hub.catalog.card(item).is_some();
    let lists = hub.trends.lists(&base, POPULAR_MAX, exists);
    let blob = PopularBlob {
        lists: lists.iter().map(|ranked| list(hub, ranked)).collect(),
    };
    if always == Always::No && shows_the_same(hub, &blob) {
        return Ok(());
    }
    publish(hub, PushKind::Popular, &blob)
}

fn list(hub: &Hub, ranked: &Ranked) -> PopularFor {
    // Items whose rights are restricted are in the list: the mask decides when it is served.
    let items = ranked.items.iter().filter_map(|(id, score)| {
        let card = hub.catalog.card(id)?;
        Some(PopularItem {
            id: card.id.clone(),
            score: *score,
            fields: card.metadata.clone(),
        })
    });
    let list = PopularList {
        as_of_ms: ranked.as_of_ms,
        items: items.collect(),
    };
    PopularFor {
        surface: ranked.surface.clone(),
        locale: None,
        list,
    }
}

/// Whether PoPs have lists of the same items with the same metadata in the same order.
fn shows_the_same(hub: &Hub, fresh: &PopularBlob) -> bool {
    let Some(current) = hub.artifacts.get(PushKind::Popular) else {
        return false;
    };
    let Ok(current) = skerry_wire::decode::<PopularBlob>(&current.bytes) else {
        return false;
    };
    let same = |(a, b): (&PopularFor, &PopularFor)| {
        let shown = |one: &PopularItem| (one.id.clone(), one.fields.clone());
        a.surface == b.surface
            && a.list
                .items
                .iter()
                .map(shown)
                .eq(b.list.items.iter().map(shown))
    };
    current.lists.len() == fresh.lists.len() && current.lists.iter().zip(&fresh.lists).all(same)
}

#[expect(clippy::cast_precision_loss, reason = "a count of events")]
fn count(events: u64) -> f64 {
    events as f64
}

fn pool(hub: &Hub, service: &Service) -> Result<(), Error> {
    let (rows, pool) = service.model.edge_pool(hub.options.pool_items);
    let blob = PoolBlob {
        model: service.model.version(),
        region: Arc::clone(&hub.options.region),
        made_ms: service.about.made_ms,
        as_of_ms: service.about.as_of_ms,
        arrays: pool.to_bytes(),
        items: rows
            .iter()
            .filter_map(|row| service.model.id(*row))
            .map(|id| hub.catalog.pool_item(id))
            .collect(),
    };
    publish(hub, PushKind::Pool, &blob)
}

/// Integrates the parameters of each surface and makes them current, here and at the PoPs.
pub fn bandit(hub: &Hub, service: &Service) -> Result<(), Error> {
    let arms = arms(hub, service);
    let default = [Surface::default()];
    let mut explored: HashMap<Surface, Arc<Arms>> = HashMap::new();
    let places: Vec<Place> = arms.iter().map(|arm| hub.catalog.place(arm)).collect();
    for surface in hub.options.surfaces.iter().chain(&default) {
        let snapshot = hub.ledger.snapshot(&hub.tenant, surface, &arms, hub.now());
        let places = places.clone();
        explored.insert(surface.clone(), Arc::new(Arms { snapshot, places }));
    }
    let mut blob = BanditBlob::default();
    for (surface, arms) in &explored {
        let snapshot = encode_as(BANDIT_SNAPSHOT, &arms.snapshot)?;
        blob.snapshots.push((surface.clone(), snapshot));
    }
    blob.snapshots.sort_by(|a, b| a.0.cmp(&b.0));
    hub.bandits.store(Arc::new(explored));
    publish(hub, PushKind::Bandit, &blob)
}

/// What is worth exploring: items that the model does not know yet, then what is trending.
fn arms(hub: &Hub, service: &Service) -> Vec<ItemId> {
    let cold = hub.catalog.all();
    let cold = cold.iter().filter(|entry| {
        !entry.item.rights.hidden && service.model.index_of(&entry.item.id).is_none()
    });
    let mut arms: Vec<ItemId> = cold
        .map(|entry| entry.item.id.clone())
        .take(COLD_ARMS_MAX)
        .collect();
    let trending = service
        .model
        .trending(skerry_decide::bandit::ARMS_MAX - arms.len());
    arms.extend(
        trending
            .iter()
            .filter_map(|(row, _)| service.model.id(*row).cloned()),
    );
    arms
}

/// Remakes what changes: the mask at once, metadata, popular lists and bandit parameters a little
/// later.
pub async fn keep_current(hub: Arc<Hub>, stop: CancellationToken) {
    let mut rights = hub.catalog.rights_changed();
    let mut cards = hub.catalog.cards_changed();
    let mut cards_due: Option<tokio::time::Instant> = None;
    let mut bandit_due = tokio::time::interval(Duration::from_millis(BANDIT_MS));
    bandit_due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut popular_due = tokio::time::interval(Duration::from_millis(
        POPULAR_TICK_MS.min(hub.options.popular_ms.max(1)),
    ));
    popular_due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let cards_timer = async {
            match cards_due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            changed = rights.changed() => {
                if changed.is_err() { break; }
                blocking(&hub, "mask", mask).await;
            }
            changed = cards.changed() => {
                if changed.is_err() { break; }
                cards_due.get_or_insert_with(|| in_ms(CARDS_MS));
            }
            () = cards_timer => {
                cards_due = None;
                blocking(&hub, "pool", |hub| match hub.service.load_full() {
                    Some(service) => {
                        popular(hub, &service, Always::No).and_then(|()| pool(hub, &service))
                    }
                    None => Ok(()),
                }).await;
            }
            _ = popular_due.tick() => {
                if hub.service.load().is_some()
                    && hub.trends.take_due(hub.now(), hub.options.popular_ms)
                {
                    blocking(&hub, "popular", |hub| match hub.service.load_full() {
                        Some(service) => popular(hub, &service, Always::No),
                        None => Ok(()),
                    }).await;
                }
            }
            _ = bandit_due.tick() => {
                if hub.rewards_changed.swap(false, std::sync::atomic::Ordering::Relaxed) {
                    blocking(&hub, "bandit", |hub| match hub.service.load_full() {
                        Some(service) => bandit(hub, &service),
                        None => Ok(()),
                    }).await;
                }
            }
        }
    }
}

fn in_ms(ms: u64) -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_millis(ms)
}

async fn blocking(hub: &Arc<Hub>, what: &'static str, work: fn(&Hub) -> Result<(), Error>) {
    let hub = Arc::clone(hub);
    match tokio::task::spawn_blocking(move || work(&hub)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, what, "an artifact was not published"),
        Err(error) => tracing::error!(%error, what, "publishing an artifact failed"),
    }
}
