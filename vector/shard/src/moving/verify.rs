//! What each side of a migration holds of the moving slots, kept up to date: see [`Digest`].

use crate::digest::Digest;
use crate::error::Error;
use crate::lead::Leading;
use crate::replica::{Replica, blocking};
use crate::slots::SlotSet;
use crate::store::{Fingerprint, StoreError};
use std::sync::Arc;

/// The sum of a migration's records here, and the number of the last write that is in it. The first
/// call reads them all, later ones what was written since.
pub async fn fingerprint(
    replica: &Arc<Replica>,
    leading: &Arc<Leading>,
    migration: u64,
    slots: SlotSet,
) -> Result<(Fingerprint, u64), Error> {
    let (replica, leading) = (Arc::clone(replica), Arc::clone(leading));
    blocking(move || {
        let store = replica.store();
        let mut held = leading.digest.blocking_lock();
        if let Some((id, digest)) = held.as_mut()
            && *id == migration
        {
            match digest.catch_up(store.as_ref()) {
                // So much was written meanwhile that the log no longer has it: from the beginning.
                Err(StoreError::LogGone(_)) => {}
                done => return Ok(done?),
            }
        }
        *held = None;
        let mut digest = Digest::take(store.as_ref(), slots)?;
        let done = digest.catch_up(store.as_ref())?;
        *held = Some((migration, digest));
        Ok(done)
    })
    .await
}
