//! The side that gives: waits until the receiver has caught up, and lets the slots go.
//!
//! Invariant: writes wait for a move at most [`GATE_MS_MAX`] + [`DRAIN_MS_MAX`] + [`VERIFY_MS_MAX`] and
//! the swap: whatever reads all records is done with the gate open.

use super::{RETRY_MS, Work, abort, verify};
use crate::clock;
use crate::coordination::CoordinationError;
use crate::coordination::Fence;
use crate::error::Error;
use crate::lead::Receiver;
use crate::node::Shared;
use crate::store::Fingerprint;
use crate::table::Migration;
use crate::wire::grpc as g;
use skerry_types::Tick;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::OwnedRwLockWriteGuard;
use tokio_util::sync::CancellationToken;

/// How often the giving side looks whether the receiver has caught up, in milliseconds.
const LOOK_MS: u64 = 20;
/// How long writes may wait at the gate for those under way, and for the receiver's last records, in
/// milliseconds.
const GATE_MS_MAX: u64 = 2_000;
const DRAIN_MS_MAX: u64 = 2_000;
/// How long a comparison may hold writes back, in milliseconds.
const VERIFY_MS_MAX: u64 = 1_000;
/// How long the records may be read before, with the gate open, in milliseconds.
const READ_MS_MAX: u64 = 600_000;
/// A side that brings its sum up to date faster than this has little left, in milliseconds.
const SHORT_MS: u64 = 100;
/// Rounds until both have.
const ROUNDS_MAX: u32 = 10;
/// Migrations that fail their verification so often are given up.
const MISMATCHES_MAX: u32 = 3;

/// Writes wait while it lives; says for how long.
struct Shut<'a> {
    shared: &'a Shared,
    since: Tick,
    _gate: OwnedRwLockWriteGuard<()>,
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.shared.meter.gate_was_shut(self.since);
    }
}

impl Work {
    pub(super) async fn give(&self, ended: &CancellationToken) {
        let mut mismatches = BTreeMap::new();
        while !ended.is_cancelled() {
            let receiver = self.leading.receiver.lock().clone();
            let giving = self.giving();
            if giving.is_none() && self.receiving().is_none() {
                *self.leading.digest.lock().await = None;
            }
            if let (Some(migration), Some(receiver)) = (giving, receiver)
                && receiver.migration == migration.id
                && receiver.dual
            {
                match self.flip(&migration, &receiver).await {
                    Ok(()) => {}
                    Err(Error::Peer(reason)) => {
                        let count: &mut u32 = mismatches.entry(migration.id).or_default();
                        *count += 1;
                        tracing::error!(migration = migration.id, %reason, count, "verification failed");
                        // The stream's end makes the receiver begin afresh, and so does this side.
                        *self.leading.receiver.lock() = None;
                        *self.leading.digest.lock().await = None;
                        if *count >= MISMATCHES_MAX {
                            let aborted = abort(&self.shared, migration.id).await;
                            tracing::error!(
                                migration = migration.id,
                                ok = aborted.is_ok(),
                                "migration given up"
                            );
                        }
                    }
                    Err(error) => {
                        tracing::warn!(migration = migration.id, code = error.code(), %error, "not flipped yet");
                        clock::sleep_ms(RETRY_MS).await;
                    }
                }
            }
            tokio::select! {
                () = ended.cancelled() => {}
                () = clock::sleep_ms(LOOK_MS) => {}
            }
        }
    }

    /// Verifies with the gate open, shuts it, verifies what was written since, and puts the new table
    /// in force.
    async fn flip(&self, migration: &Migration, receiver: &Receiver) -> Result<(), Error> {
        self.read_all(migration, receiver).await?;
        let since = clock::now();
        let gate = Arc::clone(&self.leading.gate).write_owned();
        let shut = Shut {
            shared: &self.shared,
            since,
            _gate: clock::within(GATE_MS_MAX, gate)
                .await
                .ok_or(Error::Deadline)?,
        };
        let seq = self.replica.seq();
        self.drained(migration, seq).await?;
        let (mine, (theirs, base_seq)) = self.compare(migration, receiver, VERIFY_MS_MAX).await?;
        if mine != theirs {
            return Err(Error::Peer(format!(
                "{} records with hash {:x} here, {} with {:x} there",
                mine.count, mine.hash, theirs.count, theirs.hash
            )));
        }
        let fences = vec![
            self.leading.lease.fence(),
            Fence {
                shard: migration.to,
                token: receiver.token,
            },
        ];
        let table = self.table().ok_or(CoordinationError::NoTable)?;
        let draft = table.flip(migration.id, base_seq)?;
        let done = loop {
            let coordination = self.shared.coordination();
            match coordination
                .compare_and_swap(draft.clone(), fences.clone())
                .await
            {
                // Not known whether it happened: only the same again, or its refusal, says so.
                Err(error @ (CoordinationError::Unavailable(_) | CoordinationError::Denied(_))) => {
                    tracing::warn!(%error, "the flip is in doubt: writes wait");
                    if self.leading.lease.is_lost() {
                        break Err(error);
                    }
                    clock::sleep_ms(RETRY_MS).await;
                }
                other => break other,
            }
        };
        match done {
            Ok(table) => {
                self.shared.adopt(&table);
                drop(shut);
                tracing::info!(
                    migration = migration.id,
                    records = mine.count,
                    epoch = table.epoch(),
                    "slots have changed hands"
                );
                Ok(())
            }
            Err(error) => {
                // The table as it is now, before a write can look at an older one.
                while self.shared.refresh().await.is_err() && !self.leading.lease.is_lost() {
                    clock::sleep_ms(RETRY_MS).await;
                }
                drop(shut);
                Err(error.into())
            }
        }
    }

    async fn drained(&self, migration: &Migration, seq: u64) -> Result<(), Error> {
        let mut stirred = self.leading.stirred.subscribe();
        let deadline = clock::now().plus_ms(DRAIN_MS_MAX);
        loop {
            let acked = self
                .leading
                .receiver
                .lock()
                .as_ref()
                .map(|r| (r.migration, r.acked));
            match acked {
                Some((id, acked)) if id == migration.id && acked >= seq => return Ok(()),
                Some((id, _)) if id == migration.id => {}
                _ => return Err(Error::Unreachable("the receiver has gone".to_owned())),
            }
            let left_ms = deadline.since_ms(clock::now());
            if left_ms == 0 {
                return Err(Error::Deadline);
            }
            let _ = clock::within(left_ms, stirred.changed()).await;
        }
    }

    /// Both sides read what they hold, until little was written since.
    async fn read_all(&self, migration: &Migration, receiver: &Receiver) -> Result<(), Error> {
        for _ in 0..ROUNDS_MAX {
            let began = clock::now();
            self.compare(migration, receiver, READ_MS_MAX).await?;
            if clock::now().since_ms(began) < SHORT_MS {
                return Ok(());
            }
        }
        Err(Error::Deadline)
    }

    /// The sums of both sides; they are equal only while no write is under way.
    async fn compare(
        &self,
        migration: &Migration,
        receiver: &Receiver,
        ms_max: u64,
    ) -> Result<(Fingerprint, (Fingerprint, u64)), Error> {
        let slots = migration.slots.clone();
        let both = async {
            tokio::join!(
                verify::fingerprint(&self.replica, &self.leading, migration.id, slots),
                self.ask_fingerprint(migration, receiver)
            )
        };
        let (mine, theirs) = clock::within(ms_max, both).await.ok_or(Error::Deadline)?;
        Ok((mine?.0, theirs?))
    }

    async fn ask_fingerprint(
        &self,
        migration: &Migration,
        receiver: &Receiver,
    ) -> Result<(Fingerprint, u64), Error> {
        let view = self.shared.view().ok_or(CoordinationError::NoTable)?;
        let addr = view.addr(&receiver.node);
        let addr =
            addr.ok_or_else(|| Error::Unreachable(format!("{} has no address", receiver.node)))?;
        let ranges = migration.slots.ranges().iter();
        let request = g::FingerprintRequest {
            shard: migration.to.0,
            token: receiver.token,
            slots: ranges
                .flat_map(|(first, last)| [u32::from(*first), u32::from(*last)])
                .collect(),
            migration: migration.id,
        };
        let reply = self.shared.peers.client(addr)?.fingerprint(request).await?;
        let reply = reply.into_inner();
        let found = Fingerprint {
            count: reply.count,
            hash: reply.hash,
        };
        Ok((found, reply.seq))
    }
}
