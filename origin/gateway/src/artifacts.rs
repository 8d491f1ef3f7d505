//! What PoPs hold: immutable, named by content, with epochs that only grow.
//!
//! Invariants: an epoch is durable before anything is sent under it; the same content keeps its
//! epoch; an epoch is never below the time at which it was made, so that even an origin with a new
//! state folder does not fall behind what PoPs hold.

use crate::Error;
use crate::state::State;
use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use skerry_types::Millis;
use skerry_wire::frame::{PUSH_BYTES_MAX, PushKind};
use std::sync::Arc;
use tokio::sync::watch;

/// Kinds in the order in which they are sent: what forbids comes before what shows.
pub const ORDER: [PushKind; 5] = [
    PushKind::Config,
    PushKind::Mask,
    PushKind::Popular,
    PushKind::Bandit,
    PushKind::Pool,
];

/// One artifact.
#[derive(Debug, Clone)]
pub struct Published {
    pub kind: PushKind,
    pub epoch: u64,
    pub sha256: [u8; 32],
    pub bytes: Bytes,
    pub made_ms: Millis,
}

/// The newest of each kind.
pub struct Artifacts {
    state: State,
    current: ArcSwap<Vec<Arc<Published>>>,
    publishing: Mutex<()>,
    changed: watch::Sender<u64>,
}

impl Artifacts {
    pub fn new(state: &State) -> Self {
        Self {
            state: state.clone(),
            current: ArcSwap::default(),
            publishing: Mutex::new(()),
            changed: watch::Sender::new(0),
        }
    }

    /// Makes an artifact current. Content that is current already changes nothing.
    pub fn publish(
        &self,
        kind: PushKind,
        bytes: Vec<u8>,
        now: Millis,
    ) -> Result<Arc<Published>, Error> {
        let _one_at_a_time = self.publishing.lock();
        if bytes.len() as u64 > PUSH_BYTES_MAX {
            return Err(Error::Store(format!(
                "the {} artifact has {} bytes",
                kind.as_str(),
                bytes.len()
            )));
        }
        let sha256: [u8; 32] = Sha256::digest(&bytes).into();
        if let Some(current) = self.get(kind)
            && current.sha256 == sha256
        {
            return Ok(current);
        }
        let name = format!("epoch:{}", kind.as_str());
        let stored = self.state.get(&name)?;
        let (last, last_sha) = match stored
            .as_deref()
            .and_then(|stored| stored.split_first_chunk::<8>())
        {
            Some((epoch, sha)) => (u64::from_be_bytes(*epoch), sha),
            None => (0, &[][..]),
        };
        let epoch = if last_sha == sha256 {
            last
        } else {
            now.max(last + 1)
        };
        if epoch != last {
            self.state
                .put(&name, &[&epoch.to_be_bytes()[..], &sha256].concat())?;
        }
        let published = Arc::new(Published {
            kind,
            epoch,
            sha256,
            bytes: Bytes::from(bytes),
            made_ms: now,
        });
        let mut all: Vec<Arc<Published>> = self
            .current
            .load()
            .iter()
            .filter(|one| one.kind != kind)
            .cloned()
            .collect();
        all.push(Arc::clone(&published));
        self.current.store(Arc::new(all));
        self.changed.send_modify(|count| *count += 1);
        Ok(published)
    }

    pub fn get(&self, kind: PushKind) -> Option<Arc<Published>> {
        self.current
            .load()
            .iter()
            .find(|one| one.kind == kind)
            .cloned()
    }

    /// Kind, epoch and digest of all that is current.
    pub fn current(&self) -> Vec<(PushKind, u64, [u8; 32])> {
        self.current
            .load()
            .iter()
            .map(|one| (one.kind, one.epoch, one.sha256))
            .collect()
    }

    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_only_grow_and_follow_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let publish = |content: &[u8], now| {
            let state = State::open(dir.path(), false).unwrap();
            let artifacts = Artifacts::new(&state);
            artifacts
                .publish(PushKind::Mask, content.to_vec(), now)
                .unwrap()
                .epoch
        };
        let cases: [(&[u8], u64, u64); 5] = [
            (b"a", 1_000, 1_000),
            (b"a", 2_000, 1_000),
            (b"b", 2_000, 2_000),
            // A clock that went back.
            (b"c", 500, 2_001),
            (b"a", 501, 2_002),
        ];
        for (content, now, want) in cases {
            assert_eq!(publish(content, now), want);
        }
    }
}
