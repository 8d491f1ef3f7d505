//! From the log and the catalogue to a model in service: read, train off the runtime, store, load.

use crate::hub::Hub;
use crate::kinds::Kinds;
use crate::service::{self, About, Service};
use crate::{Error, Progress};
use skerry_origin_training::{Interactions, Row, TrainOptions, train};
use skerry_types::{ItemId, Millis, Taste};
use std::collections::HashMap;
use std::sync::Arc;

/// Events read from the log at once.
const READ_EVENTS_MAX: usize = 20_000;

/// What training reads, and how far the log went.
struct Data {
    interactions: Interactions,
    seq: u64,
    as_of_ms: Millis,
}

/// Trains on all that is stored and puts the model into service. Blocking: minutes on much data.
pub fn run(hub: &Hub, progress: &Progress) -> Result<Arc<Service>, Error> {
    let data = read(hub)?;
    if data.interactions.rows().is_empty() {
        return Err(Error::NoData);
    }
    let number = hub
        .service
        .load()
        .as_ref()
        .map_or(0, |service| service.about.number)
        .max(stored_number(hub)?)
        + 1;
    let options = TrainOptions {
        number,
        ..hub.options.train
    };
    let report = |stage: skerry_origin_training::Stage, share: f32| {
        progress(crate::Step::Train {
            stage: stage.as_str(),
            share,
        });
    };
    let model = train(&data.interactions, &options, &report)
        .map_err(|error| Error::Train(error.to_string()))?;
    hub.state.put("model_number", &number.to_be_bytes())?;
    let about = About {
        sha256: String::new(),
        number,
        made_ms: hub.now(),
        as_of_ms: data.as_of_ms,
        seq: data.seq,
        events: data.interactions.rows().len() as u64,
        items: data.interactions.items().len() as u64,
        users: data.interactions.users() as u64,
    };
    let about = service::save(&hub.state.dir, &model.to_bytes(), about)?;
    let service = Arc::new(Service::new(model, about, &hub.catalog)?);
    hub.service.store(Some(Arc::clone(&service)));
    tracing::info!(model = %service.model.version(), events = service.about.events, "a model is in service");
    Ok(service)
}

fn stored_number(hub: &Hub) -> Result<u64, Error> {
    Ok(hub
        .state
        .get("model_number")?
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes))
}

/// Every item of the catalogue, and every event on one of them that says something about a user, in
/// the order of time and, within one time, of acceptance.
fn read(hub: &Hub) -> Result<Data, Error> {
    let items: Vec<_> = hub
        .catalog
        .all()
        .iter()
        .map(|entry| (entry.item.id.clone(), entry.item.attributes.clone()))
        .collect();
    let rows_of: HashMap<&ItemId, u32> = items.iter().map(|(id, _)| id).zip(0..).collect();
    let mut users: HashMap<String, u32> = HashMap::new();
    let mut rows: Vec<Row> = Vec::new();
    let (mut after, mut as_of_ms) = (0, 0);
    let reader = hub.log.reader();
    let kinds = Kinds::new(&hub.options.events);
    loop {
        let (_, last) = reader.replay(&hub.tenant, after, READ_EVENTS_MAX, &mut |_, event| {
            as_of_ms = as_of_ms.max(event.accepted_ms);
            let Some(item) = event.item.as_ref().and_then(|item| rows_of.get(item)) else {
                return;
            };
            if !kinds.is_history(&event) {
                return;
            }
            let Some(subject) = event.subject() else {
                return;
            };
            let next = u32::try_from(users.len()).unwrap_or(u32::MAX);
            let user = *users.entry(subject).or_insert(next);
            let taste: Taste = kinds.taste(&event);
            rows.push(Row {
                user,
                item: *item,
                at_ms: event.at_ms,
                taste,
                value: event.value,
            });
        })?;
        if last == after {
            break;
        }
        after = last;
    }
    // Stable: rows of one time stay in the order of acceptance.
    rows.sort_by_key(|row| row.at_ms);
    drop(rows_of);
    let interactions =
        Interactions::new(items, rows).map_err(|error| Error::Train(error.to_string()))?;
    Ok(Data {
        interactions,
        seq: after,
        as_of_ms,
    })
}
