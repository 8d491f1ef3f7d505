//! What is known of users beside their events: attributes, by tenant. Their contexts are in
//! `skerry-origin-features`.

use crate::Error;
use crate::state::State;
use fjall::{Database, Keyspace, PersistMode};
use parking_lot::Mutex;
use skerry_types::{Attributes, TenantId, UserId};
use skerry_wire::codec::{decode_as, encode_as};
use skerry_wire::value::schema::USER_ATTRIBUTES;

/// The attributes of users.
pub struct Users {
    db: Database,
    store: Keyspace,
    writing: Mutex<()>,
}

impl Users {
    pub fn open(state: &State) -> Result<Self, Error> {
        Ok(Self {
            db: state.db.clone(),
            store: state.keyspace("users")?,
            writing: Mutex::new(()),
        })
    }

    pub fn get(&self, tenant: &TenantId, user: &UserId) -> Result<Option<Attributes>, Error> {
        match self.store.get(key(tenant, user))? {
            Some(bytes) => Ok(Some(decode_as(USER_ATTRIBUTES, &bytes)?)),
            None => Ok(None),
        }
    }

    /// Writes what `change` makes of a user's attributes (none where there were none). Durable when
    /// it returns.
    pub fn change(
        &self,
        tenant: &TenantId,
        user: &UserId,
        change: impl FnOnce(&mut Attributes),
    ) -> Result<Attributes, Error> {
        let _one_at_a_time = self.writing.lock();
        let mut attributes = self.get(tenant, user)?.unwrap_or_default();
        change(&mut attributes);
        self.store
            .insert(key(tenant, user), encode_as(USER_ATTRIBUTES, &attributes)?)?;
        self.db.persist(PersistMode::SyncData)?;
        Ok(attributes)
    }

    /// Whether there was anything to forget.
    pub fn erase(&self, tenant: &TenantId, user: &UserId) -> Result<bool, Error> {
        let _one_at_a_time = self.writing.lock();
        let key = key(tenant, user);
        let had = self.store.contains_key(&key)?;
        self.store.remove(key)?;
        self.db.persist(PersistMode::SyncData)?;
        Ok(had)
    }
}

fn key(tenant: &TenantId, user: &UserId) -> Vec<u8> {
    [tenant.as_str().as_bytes(), &[0], user.as_str().as_bytes()].concat()
}
