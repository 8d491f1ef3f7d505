//! Keys of the log's keyspaces. The tenant stands first in each; ids hold no control characters, so
//! a zero byte separates parts without ambiguity, and sequence numbers are big endian, so that byte
//! order is the order of acceptance.

use skerry_types::{Event, TenantId};

/// (tenant, 0, sequence)
pub fn event(tenant: &TenantId, seq: u64) -> Vec<u8> {
    let mut key = tenant_prefix(tenant);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// (tenant, 0, event id)
pub fn id(tenant: &TenantId, id: &str) -> Vec<u8> {
    let mut key = tenant_prefix(tenant);
    key.extend_from_slice(id.as_bytes());
    key
}

/// (tenant, 0, subject, 0): what the sequence numbers of a subject's events follow.
pub fn subject_prefix(tenant: &TenantId, subject: &str) -> Vec<u8> {
    let mut key = id(tenant, subject);
    key.push(0);
    key
}

/// (tenant, 0, subject, 0, sequence); `None` for an event of nobody.
pub fn by_subject(event: &Event, seq: u64) -> Option<Vec<u8>> {
    let mut key = subject_prefix(&event.tenant, &event.subject()?);
    key.extend_from_slice(&seq.to_be_bytes());
    Some(key)
}

pub fn tenant_prefix(tenant: &TenantId) -> Vec<u8> {
    let mut key = Vec::with_capacity(tenant.as_str().len() + 48);
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.push(0);
    key
}

/// The sequence number that ends a key.
pub fn seq_of(key: &[u8]) -> Option<u64> {
    let at = key.len().checked_sub(8)?;
    Some(u64::from_be_bytes(key.get(at..)?.try_into().ok()?))
}

/// The tenant that starts a key.
pub fn tenant_of(key: &[u8]) -> Option<TenantId> {
    let end = key.iter().position(|byte| *byte == 0)?;
    TenantId::new(std::str::from_utf8(key.get(..end)?).ok()?).ok()
}
