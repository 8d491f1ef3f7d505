//! Users: attributes, what is known of them, and their erasure.

use super::{Admin, Answer, Reply, internal, no_body, no_query};
use http::{Method, StatusCode};
use serde_json::json;
use skerry_types::{Attributes, UserId};
use skerry_wire::json::{self, Problem, format_time};

pub fn one(admin: &Admin, method: &Method, user: &UserId, query: &str, body: &[u8]) -> Answer {
    no_query(query)?;
    let hub = &admin.hub;
    match *method {
        Method::GET => {
            no_body(body)?;
            get(admin, user)
        }
        Method::PUT => {
            let attributes = json::parse_attributes(body)?;
            let known = hub
                .users
                .get(&hub.tenant, user)
                .map_err(internal)?
                .is_some();
            let stored = hub
                .users
                .change(&hub.tenant, user, |old| *old = attributes)
                .map_err(internal)?;
            let status = if known {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            Ok(reply(user, &stored, &[]).with(status))
        }
        Method::PATCH => {
            let patch = json::parse_attributes_patch(body)?;
            let stored = hub
                .users
                .change(&hub.tenant, user, |attributes| patch.apply(attributes))
                .map_err(internal)?;
            Ok(reply(user, &stored, &[]))
        }
        _ => {
            no_body(body)?;
            let receipt = admin.handle.erase(user).map_err(internal)?;
            let body = json!({
                "receipt": receipt.id.to_string(),
                "user": receipt.user.as_str(),
                "erased_at": format_time(receipt.erased_ms),
                "events": receipt.events,
                "attributes": receipt.attributes,
                "pops": receipt.pops.iter().map(|pop| &**pop).collect::<Vec<_>>(),
            });
            Ok(Reply::json(body.to_string().into_bytes()))
        }
    }
}

fn get(admin: &Admin, user: &UserId) -> Answer {
    let hub = &admin.hub;
    let attributes = hub.users.get(&hub.tenant, user).map_err(internal)?;
    let context = hub
        .features
        .context(&hub.tenant, &format!("u:{user}"))
        .map_err(internal)?;
    if attributes.is_none() && context.is_none() {
        return Err(Problem::not_found(format!(
            "nothing is known of the user {user}"
        )));
    }
    let mut more = Vec::new();
    if let Some(context) = context {
        more.extend_from_slice(b",\"recent\":");
        let recent: Vec<_> = context
            .recent
            .iter()
            .rev()
            .map(|event| {
                json!({
                    "id": event.id.as_str(), "item": event.item.as_str(), "type": event.kind.as_str(),
                    "value": event.value, "at": format_time(event.at_ms),
                })
            })
            .collect();
        more.extend_from_slice(serde_json::Value::from(recent).to_string().as_bytes());
        let rest =
            json!({"seen": context.seen.len(), "as_of": format_time(context.as_of_ms)}).to_string();
        more.push(b',');
        more.extend_from_slice(
            rest.trim_start_matches('{')
                .trim_end_matches('}')
                .as_bytes(),
        );
    }
    Ok(reply(user, &attributes.unwrap_or_default(), &more))
}

fn reply(user: &UserId, attributes: &Attributes, more: &[u8]) -> Reply {
    let mut out = b"{\"id\":".to_vec();
    json::write_string(&mut out, user.as_str());
    out.extend_from_slice(b",\"attributes\":");
    json::attributes_to_json(&mut out, attributes);
    out.extend_from_slice(more);
    out.push(b'}');
    Reply::json(out)
}
