//! Items of the catalogue.

use super::{Answer, Reply, internal, no_body, no_query};
use crate::hub::Hub;
use http::{Method, StatusCode};
use skerry_types::{Item, ItemId};
use skerry_wire::json::{self, Problem};

pub fn one(hub: &Hub, method: &Method, id: &ItemId, query: &str, body: &[u8]) -> Answer {
    no_query(query)?;
    match *method {
        Method::GET => {
            no_body(body)?;
            hub.catalog
                .get(id)
                .map(|entry| reply(&entry.item))
                .ok_or_else(|| missing(id))
        }
        Method::PUT => {
            let item = json::parse_item(id, body)?;
            let written = hub.catalog.put(vec![item]).map_err(internal)?;
            let status = if written.new > 0 {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            let entry = hub.catalog.get(id).ok_or_else(|| missing(id))?;
            Ok(reply(&entry.item).with(status))
        }
        Method::PATCH => {
            let patch = json::parse_item_patch(id, body)?;
            let changed = hub
                .catalog
                .change(id, |item| patch.apply(item))
                .map_err(internal)?;
            changed
                .map(|entry| reply(&entry.item))
                .ok_or_else(|| missing(id))
        }
        _ => {
            no_body(body)?;
            if !hub.catalog.remove(id).map_err(internal)? {
                return Err(missing(id));
            }
            Ok(Reply::json(Vec::new()).with(StatusCode::NO_CONTENT))
        }
    }
}

pub fn batch(hub: &Hub, query: &str, body: &[u8]) -> Answer {
    no_query(query)?;
    let parsed = json::parse_items(body)?;
    let accepted = parsed.accepted.len();
    hub.catalog
        .put(parsed.accepted.into_iter().map(|(_, item)| item).collect())
        .map_err(internal)?;
    let mut out = Vec::new();
    json::render_accepted(&mut out, accepted, &parsed.rejected);
    let status = if accepted == 0 {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::OK
    };
    Ok(Reply::json(out).with(status))
}

fn reply(item: &Item) -> Reply {
    let mut out = Vec::with_capacity(256);
    json::item_to_json(&mut out, item);
    Reply::json(out)
}

fn missing(id: &ItemId) -> Problem {
    Problem::not_found(format!("there is no item {id}"))
}
