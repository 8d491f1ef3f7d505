//! Which users each PoP served lately, so that a PoP that connects gets their contexts back. Kept
//! for a day, at most [`USERS_MAX`] a PoP and [`POPS_MAX`] PoPs; written now and then, never waited for.

use crate::Error;
use crate::state::State;
use fjall::{Database, Keyspace};
use parking_lot::Mutex;
use skerry_types::{Millis, UserId};
use std::collections::HashMap;

/// Users remembered for one PoP.
pub const USERS_MAX: usize = 100_000;
/// PoPs remembered.
const POPS_MAX: usize = 1_000;
/// For this long, in milliseconds.
const KEPT_MS: Millis = 24 * 3600 * 1000;

#[derive(Default)]
struct Served {
    /// When each user was served last, and whether that is not written yet.
    users: HashMap<UserId, (Millis, bool)>,
}

/// The memory of who was served where.
pub struct Pops {
    db: Database,
    store: Keyspace,
    pops: Mutex<HashMap<Box<str>, Served>>,
}

impl Pops {
    pub fn open(state: &State) -> Result<Self, Error> {
        let store = state.keyspace("pop_users")?;
        let mut pops: HashMap<Box<str>, Served> = HashMap::new();
        for entry in store.iter() {
            let (key, value) = entry.into_inner()?;
            let Some((pop, user)) = std::str::from_utf8(&key)
                .ok()
                .and_then(|key| key.split_once('\0'))
            else {
                continue;
            };
            let at = value.as_ref().try_into().map_or(0, Millis::from_be_bytes);
            if let Ok(user) = UserId::new(user) {
                pops.entry(pop.into())
                    .or_default()
                    .users
                    .insert(user, (at, false));
            }
        }
        Ok(Self {
            db: state.db.clone(),
            store,
            pops: Mutex::new(pops),
        })
    }

    /// Notes that a PoP served a user.
    pub fn served(&self, pop: &str, user: &UserId, now: Millis) {
        let mut pops = self.pops.lock();
        if !pops.contains_key(pop) {
            if pops.len() >= POPS_MAX {
                return;
            }
            pops.insert(pop.into(), Served::default());
        }
        let Some(served) = pops.get_mut(pop) else {
            return;
        };
        let has_room = served.users.len() < USERS_MAX;
        match served.users.get_mut(user) {
            // To the minute is enough.
            Some((at, _)) if now.saturating_sub(*at) < 60_000 => {}
            Some(seen) => *seen = (now, true),
            None if has_room => {
                served.users.insert(user.clone(), (now, true));
            }
            None => {}
        }
    }

    /// Users whom a PoP served in the last day, latest first.
    pub fn users(&self, pop: &str, now: Millis) -> Vec<UserId> {
        let pops = self.pops.lock();
        let Some(served) = pops.get(pop) else {
            return Vec::new();
        };
        let mut users: Vec<(&UserId, Millis)> = served
            .users
            .iter()
            .map(|(user, (at, _))| (user, *at))
            .collect();
        users.retain(|(_, at)| at.saturating_add(KEPT_MS) >= now);
        users.sort_unstable_by_key(|(_, at)| std::cmp::Reverse(*at));
        users.into_iter().map(|(user, _)| user.clone()).collect()
    }

    /// Whether a PoP served a user in the last day.
    pub fn has(&self, pop: &str, user: &UserId) -> bool {
        self.pops
            .lock()
            .get(pop)
            .is_some_and(|served| served.users.contains_key(user))
    }

    /// Forgets an erased user.
    pub fn erase(&self, user: &UserId) -> Result<(), Error> {
        let mut batch = self.db.batch();
        for (pop, served) in self.pops.lock().iter_mut() {
            if served.users.remove(user).is_some() {
                batch.remove(&self.store, format!("{pop}\0{user}"));
            }
        }
        Ok(batch.commit()?)
    }

    /// Writes what changed and drops what is older than a day.
    pub fn write(&self, now: Millis) -> Result<(), Error> {
        let mut batch = self.db.batch();
        for (pop, served) in self.pops.lock().iter_mut() {
            served.users.retain(|user, (at, unwritten)| {
                let keep = at.saturating_add(KEPT_MS) >= now;
                if !keep {
                    batch.remove(&self.store, format!("{pop}\0{user}"));
                } else if std::mem::take(unwritten) {
                    batch.insert(&self.store, format!("{pop}\0{user}"), at.to_be_bytes());
                }
                keep
            });
        }
        Ok(batch.commit()?)
    }
}
