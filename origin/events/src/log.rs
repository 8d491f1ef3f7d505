//! What the log holds, and reading it. Writing is in `commit.rs`, by one thread.

use crate::{Error, keys};
use fjall::{Database, Keyspace};
use serde::{Deserialize, Serialize};
use skerry_types::{Event, Millis, TenantId};
use skerry_wire::codec::{decode_as, encode_as};
use skerry_wire::value::schema::EVENT_RECORD;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When this origin stored it.
    pub stored_ms: Millis,
    /// The event's id, kept when the event itself is erased.
    pub id: Box<str>,
    /// Whether an import brought it.
    pub imported: bool,
    /// `None` once its user was erased.
    pub event: Option<Event>,
}

/// Reads the log; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(crate) events: Keyspace,
    pub(crate) ids: Keyspace,
    pub(crate) subjects: Keyspace,
    /// Of the whole log: the last position.
    pub(crate) meta: Keyspace,
    /// Of one tenant: count, pruning cursor, erased users.
    pub(crate) tenants: Keyspace,
}

impl Reader {
    pub(crate) fn open(db: &Database) -> Result<Self, Error> {
        let open = |name| crate::keyspace(db, name);
        Ok(Self {
            events: open("events")?,
            ids: open("event_ids")?,
            subjects: open("event_subjects")?,
            meta: open("event_meta")?,
            tenants: open("event_tenants")?,
        })
    }

    /// The event at a position; `None` where there is none, or it was erased.
    pub fn event(&self, tenant: &TenantId, seq: u64) -> Result<Option<Event>, Error> {
        let key = keys::event(tenant, seq);
        match self.events.get(&key)? {
            Some(bytes) => Ok(decode(&key, &bytes)?.event),
            None => Ok(None),
        }
    }

    /// Up to `limit` events of a user or session after a position, oldest accepted first.
    pub fn by_user(
        &self,
        tenant: &TenantId,
        subject: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, Error> {
        let prefix = keys::subject_prefix(tenant, subject);
        let mut from = prefix.clone();
        from.extend_from_slice(&after.saturating_add(1).to_be_bytes());
        let mut until = prefix;
        until.extend_from_slice(&[0xff; 9]);
        let mut found = Vec::new();
        for entry in self.subjects.range(from..until) {
            if found.len() >= limit {
                break;
            }
            let key = entry.key()?;
            let Some(seq) = keys::seq_of(&key) else {
                continue;
            };
            if let Some(event) = self.event(tenant, seq)? {
                found.push((seq, event));
            }
        }
        Ok(found)
    }

    /// Calls `each` with up to `limit` events of a tenant after a position, in order. Returns how
    /// many there were and the last position read.
    pub fn replay(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
        each: &mut dyn FnMut(u64, Event),
    ) -> Result<(usize, u64), Error> {
        let from = keys::event(tenant, after.saturating_add(1));
        let until = keys::event(tenant, u64::MAX);
        let (mut count, mut last) = (0, after);
        for entry in self.events.range(from..=until) {
            if count >= limit {
                break;
            }
            let (key, bytes) = entry.into_inner()?;
            last = keys::seq_of(&key).unwrap_or(last);
            if let Some(event) = decode(&key, &bytes)?.event {
                each(last, event);
                count += 1;
            }
        }
        Ok((count, last))
    }

    /// Tenants that have events.
    pub fn tenants(&self) -> Result<Vec<TenantId>, Error> {
        let mut tenants: Vec<TenantId> = Vec::new();
        let mut from: Vec<u8> = Vec::new();
        while let Some(entry) = self.events.range(from..).next() {
            let Some(tenant) = keys::tenant_of(&entry.key()?) else {
                break;
            };
            from = tenant.as_str().as_bytes().to_vec();
            from.push(1);
            tenants.push(tenant);
        }
        Ok(tenants)
    }

    /// Events of a tenant, erased ones not counted.
    pub fn count(&self, tenant: &TenantId) -> Result<u64, Error> {
        Ok(self
            .tenants
            .get(count_key(tenant))?
            .map_or(0, |bytes| number(&bytes)))
    }

    /// Erased users and sessions of a tenant, and when.
    pub fn erased(&self, tenant: &TenantId) -> Result<Vec<(String, Millis)>, Error> {
        let prefix = erased_prefix(tenant);
        let mut erased = Vec::new();
        for entry in self.tenants.prefix(&prefix) {
            let (key, value) = entry.into_inner()?;
            let subject = key.get(prefix.len()..).unwrap_or_default();
            erased.push((
                String::from_utf8_lossy(subject).into_owned(),
                number(&value),
            ));
        }
        Ok(erased)
    }

    /// When a user or session was erased.
    pub fn erased_at(&self, tenant: &TenantId, subject: &str) -> Result<Option<Millis>, Error> {
        Ok(self
            .tenants
            .get(erased_key(tenant, subject))?
            .map(|bytes| number(&bytes)))
    }

    /// The last position given out.
    pub fn last_seq(&self) -> Result<u64, Error> {
        Ok(self.meta.get("seq")?.map_or(0, |bytes| number(&bytes)))
    }
}

pub fn count_key(tenant: &TenantId) -> Vec<u8> {
    keys::id(tenant, "count")
}

pub fn pruned_key(tenant: &TenantId) -> Vec<u8> {
    keys::id(tenant, "pruned")
}

/// What the keys of a tenant's erased users start with.
pub fn erased_prefix(tenant: &TenantId) -> Vec<u8> {
    let mut key = keys::id(tenant, "erased");
    key.push(0);
    key
}

pub fn erased_key(tenant: &TenantId, subject: &str) -> Vec<u8> {
    let mut key = erased_prefix(tenant);
    key.extend_from_slice(subject.as_bytes());
    key
}

pub fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

pub fn decode(key: &[u8], bytes: &[u8]) -> Result<Record, Error> {
    decode_as(EVENT_RECORD, bytes).map_err(|error| Error::Corrupt {
        key: String::from_utf8_lossy(key).into_owned(),
        reason: error.to_string(),
    })
}

pub fn encode(record: &Record) -> Result<Vec<u8>, Error> {
    encode_as(EVENT_RECORD, record).map_err(|error| Error::Store(error.to_string()))
}
