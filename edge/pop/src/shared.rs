//! What all threads of a PoP share.

use crate::cache::ResponseCache;
use crate::clock::Clock;
use crate::held::Held;
use crate::kv::Kv;
use crate::meter::Meter;
use crate::origin::Origin;
use crate::spool::{Pending, Spool, SpoolError};

pub struct Shared {
    pub clock: Clock,
    pub cache: ResponseCache,
    pub kv: Kv,
    pub held: Held,
    pub spool: Spool,
    pub origin: Origin,
    pub meter: Meter,
}

impl Shared {
    /// Appends to the spool, counted.
    pub async fn append(&self, events: Vec<Pending>) -> Result<(), SpoolError> {
        let count = events.len() as u64;
        let result = self.spool.append(events).await;
        self.meter.events(count, result);
        result
    }

    /// What a load balancer must know before it sends anybody here; empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        if self.held.has_pool() {
            Vec::new()
        } else {
            vec!["pool"]
        }
    }
}
