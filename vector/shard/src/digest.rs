//! What moving slots hold, as a sum that is kept up to date: taken page by page while writes go on, then
//! brought up to date from the log, so that the comparison under a shut gate reads the last few writes
//! alone.
//!
//! Invariants: after [`Digest::catch_up`] without writes meanwhile, the sum is that of the records that
//! are there; it depends on neither their order nor their numbers. Costs 16 bytes a record while a move
//! is under way.

use crate::slots::{SlotSet, slot_of};
use crate::store::{Fingerprint, Store, StoreError, hash_of};
use crate::wire::id_of;
use std::collections::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_64;

/// Records of a page while it is taken.
const PAGE_RECORDS: usize = 2_000;
/// Log of one step, in bytes.
const LOG_BYTES: usize = 4 << 20;

pub struct Digest {
    slots: SlotSet,
    /// Hashes of id and record when it was taken, by the first.
    taken: Vec<(u64, u64)>,
    /// Those that were written since; none where the record is gone.
    since: HashMap<u64, Option<u64>>,
    sum: Fingerprint,
    /// The log up to here is in it.
    through: u64,
}

impl Digest {
    /// Reads all records of `slots`. Blocks.
    pub fn take(store: &dyn Store, slots: SlotSet) -> Result<Self, StoreError> {
        // What is written from here on may be in a page or not: it is looked at again.
        let through = store.seq();
        let keep = |id: &str| slots.contains(slot_of(id));
        let mut taken = Vec::new();
        let mut sum = Fingerprint::default();
        let mut after: Option<Box<str>> = None;
        loop {
            let page = store.scan(after.as_deref(), PAGE_RECORDS, &keep)?;
            for record in &page.records {
                let hash = hash_of(record);
                taken.push((xxh3_64(record.id.as_bytes()), hash));
                sum.add(hash);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        taken.sort_unstable();
        Ok(Self {
            slots,
            taken,
            since: HashMap::new(),
            sum,
            through,
        })
    }

    /// Brings it up to date; the sum then, and the number of the last write that is in it. Blocks.
    pub fn catch_up(&mut self, store: &dyn Store) -> Result<(Fingerprint, u64), StoreError> {
        let head = store.seq();
        while self.through < head {
            let records = store.log_since(self.through, LOG_BYTES)?;
            let Some(last) = records.last() else { break };
            let last = last.seq;
            let ids: HashSet<&str> = records
                .iter()
                .map(|record| id_of(&record.write))
                .filter(|id| self.slots.contains(slot_of(id)))
                .collect();
            for id in ids {
                // As it is now: a later write of it comes again.
                let now = store.get(id)?.map(|(record, _)| hash_of(&record));
                self.replace(xxh3_64(id.as_bytes()), now);
            }
            self.through = last;
        }
        Ok((self.sum, self.through))
    }

    fn replace(&mut self, id: u64, now: Option<u64>) {
        let taken = || {
            let at = self.taken.partition_point(|(known, _)| *known < id);
            let found = self.taken.get(at).filter(|(known, _)| *known == id);
            found.map(|(_, hash)| *hash)
        };
        let before = self.since.get(&id).copied().unwrap_or_else(taken);
        if let Some(before) = before {
            self.sum.take_out(before);
        }
        if let Some(now) = now {
            self.sum.add(now);
        }
        self.since.insert(id, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use proptest::prelude::*;
    use skerry_vector_index::{Metric, Record, Spec, Stored, Write};

    fn write(id: u8, version: Option<u8>) -> Write {
        let id: Box<str> = format!("i{id}").into();
        match version {
            Some(version) => Write::Upsert(Record {
                id,
                vector: vec![f32::from(version), 1.0],
                payload: Default::default(),
            }),
            None => Write::Delete(id),
        }
    }

    fn store(log_max: usize) -> Memory {
        let spec = Spec {
            dim: 2,
            metric: Metric::Dot,
            stored: Stored::F32,
            fields: Vec::new(),
        };
        Memory::new(spec, log_max)
    }

    proptest! {
        /// Two stores get the same writes, with other numbers; whenever each digest was taken and caught
        /// up, they agree, and a single record that differs shows.
        #[test]
        fn it_is_the_sum_of_what_is_there(
            writes in proptest::collection::vec((0u8..40, proptest::option::of(any::<u8>())), 1..120),
            taken in 0usize..120, caught in 0usize..120, odd in 0u8..40,
        ) {
            let slots = SlotSet::range(0, 9_000);
            let (mine, theirs) = (store(10_000), store(10_000));
            theirs.write(vec![write(250, None)]).unwrap();
            let mut digest = None;
            for (at, (id, version)) in writes.iter().enumerate() {
                if at == taken % writes.len() {
                    digest = Some(Digest::take(&mine, slots.clone()).unwrap());
                }
                if at == caught % writes.len() && let Some(digest) = &mut digest {
                    digest.catch_up(&mine).unwrap();
                }
                mine.write(vec![write(*id, *version)]).unwrap();
            }
            for (id, version) in &writes {
                theirs.write(vec![write(*id, *version)]).unwrap();
            }
            let mut mine_now = digest.unwrap();
            let (sum, through) = mine_now.catch_up(&mine).unwrap();
            prop_assert_eq!(through, mine.seq());
            let mut fresh = Digest::take(&theirs, slots.clone()).unwrap();
            prop_assert_eq!(fresh.catch_up(&theirs).unwrap().0, sum);

            let moves = slots.contains(slot_of(&format!("i{odd}")));
            theirs.write(vec![write(odd, Some(1)), write(200, None)]).unwrap();
            let before = fresh.catch_up(&theirs).unwrap().0;
            theirs.write(vec![write(odd, Some(2))]).unwrap();
            let after = fresh.catch_up(&theirs).unwrap().0;
            prop_assert_eq!(before != after, moves, "a record elsewhere does not count");
        }
    }

    #[test]
    fn a_log_that_does_not_reach_back_is_an_error() {
        let short = store(2);
        let mut digest = Digest::take(&short, SlotSet::range(0, 16_383)).unwrap();
        for id in 0..5 {
            short.write(vec![write(id, Some(1))]).unwrap();
        }
        assert_eq!(
            digest.catch_up(&short).unwrap_err().code(),
            "shard_log_gone"
        );
    }
}
