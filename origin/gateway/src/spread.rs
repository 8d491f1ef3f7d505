//! When one PoP reports a user's events, other PoPs that served that user lately get the new
//! context. Nothing is sent where only one PoP is connected.

use crate::hub::News;
use skerry_origin_events::{Consumer, IMPORTED, Reader, Stored};
use skerry_types::UserId;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Receivers that each connection has.
const RECEIVERS_EACH: usize = 2;

/// The consumer.
pub struct Spread(pub broadcast::Sender<News>);

impl Consumer for Spread {
    fn apply(&self, _: &Reader, batch: &[Stored]) {
        if self.0.receiver_count() <= RECEIVERS_EACH {
            return;
        }
        let mut users: HashMap<&UserId, &Arc<str>> = HashMap::new();
        for stored in batch {
            let event = &stored.event;
            if let Some(user) = &event.user
                && event.kind.is_history()
                && &*event.pop != IMPORTED
            {
                users.insert(user, &event.pop);
            }
        }
        if !users.is_empty() {
            let users = users
                .into_iter()
                .map(|(user, pop)| (user.clone(), Arc::clone(pop)))
                .collect();
            // The last PoP may have gone in between.
            let _ = self.0.send(News::Contexts {
                users: Arc::new(users),
            });
        }
    }

    fn flush(&self, _: u64) {}
}
