//! Identities. External ids are short strings, checked once; hashes of them are what dense
//! structures hold. The tenant is part of every hash that leaves one tenant's own structures.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Longest external id, in bytes of UTF-8.
pub const ID_BYTES_MAX: usize = 256;
/// Number of slots that users, sessions and items are spread over; shards own ranges of slots.
pub const SLOTS: u16 = 16_384;

/// Why a string cannot be an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("an id must not be empty")]
    Empty,
    #[error("an id has at most {ID_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    #[error("an id must not contain control characters")]
    Control,
    #[error("a surface is 1 to 64 characters of a-z, 0-9, '_' and '-'")]
    Surface,
    #[error("not a UUID")]
    Uuid,
    #[error("an id lies outside of the text that holds it")]
    Part,
}

impl IdError {
    /// The stable code that error bodies carry.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Empty => "id_empty",
            Self::TooLong(_) => "id_too_long",
            Self::Control => "id_control_character",
            Self::Surface => "surface_invalid",
            Self::Uuid => "uuid_invalid",
            Self::Part => "id_outside",
        }
    }
}

fn check_text(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(IdError::Control);
    }
    Ok(())
}

/// Reads a text where it lies and hands it to a constructor that checks it.
struct Checked<T>(fn(&str) -> Result<T, IdError>);

impl<T> Visitor<'_> for Checked<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

/// What every text id does, from its `new` and `as_str`.
macro_rules! text_impls {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Checked(Self::new))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.as_str().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.as_str())
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it as an id.
            pub fn new(text: &str) -> Result<Self, IdError> {
                $check(text)?;
                Ok(Self(Arc::from(text)))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        text_impls!($name);
    };
}

fn check_surface(text: &str) -> Result<(), IdError> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(ok) {
        Ok(())
    } else {
        Err(IdError::Surface)
    }
}

text_id!(
    /// Whose data this is. `default` until a key says otherwise.
    TenantId, check_text
);
text_id!(
    /// A user as the app knows them.
    UserId, check_text
);
text_id!(
    /// A visit; enough to personalise for a visitor without a user id.
    SessionId, check_text
);
text_id!(
    /// The idempotency key of an event.
    EventId, check_text
);
text_id!(
    /// Where a list is shown: `home`, `player-end`, ...
    Surface, check_surface
);

impl Default for TenantId {
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

impl Default for Surface {
    fn default() -> Self {
        Self(Arc::from("home"))
    }
}

/// xxh3-64 of an item id: what seen sets, masks and models hold. Used within one tenant only, where
/// two items with one hash are one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ItemHash(pub u64);

/// An item of the catalogue. Its hash comes along: an answer looks some hundred items up by it.
/// The ids of one decision share one text.
#[derive(Clone)]
pub struct ItemId {
    text: Arc<str>,
    from: u32,
    to: u32,
    hash: ItemHash,
}

impl ItemId {
    /// Checks `text` and takes it as an id.
    pub fn new(text: &str) -> Result<Self, IdError> {
        Self::part(&Arc::from(text), 0, text.len())
    }

    /// Checks the bytes `from..to` of a text and takes them as an id, without a copy.
    pub fn part(text: &Arc<str>, from: usize, to: usize) -> Result<Self, IdError> {
        let id = text.get(from..to).ok_or(IdError::Part)?;
        check_text(id)?;
        let place = |at| u32::try_from(at).map_err(|_| IdError::Part);
        Ok(Self {
            text: Arc::clone(text),
            from: place(from)?,
            to: place(to)?,
            hash: ItemHash(xxh3_64(id.as_bytes())),
        })
    }

    /// The same ids with one text of their own. A clone counts at the text that it shares: ids that are
    /// in many lists at once would be counted by every thread, each time at a place far apart.
    pub fn gather<'a>(ids: impl Iterator<Item = &'a Self> + Clone) -> Vec<Self> {
        let mut all = String::with_capacity(ids.clone().map(|id| id.as_str().len()).sum());
        ids.clone().for_each(|id| all.push_str(id.as_str()));
        let text: Arc<str> = all.into();
        let mut from = 0;
        let parts = ids.map(|id| {
            // An id is at most ID_BYTES_MAX long, and no list has as many as would fill 32 bits.
            let to = from + (id.to - id.from);
            let part = Self {
                text: Arc::clone(&text),
                from,
                to,
                hash: id.hash,
            };
            from = to;
            part
        });
        parts.collect()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        let (from, to) = (self.from as usize, self.to as usize);
        self.text.get(from..to).unwrap_or_default()
    }

    #[must_use]
    pub const fn hash(&self) -> ItemHash {
        self.hash
    }
}

text_impls!(ItemId);

impl PartialEq for ItemId {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.as_str() == other.as_str()
    }
}

impl Eq for ItemId {}

impl std::hash::Hash for ItemId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl PartialOrd for ItemId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By text.
impl Ord for ItemId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

/// Maps by item id, and by an id's hash alone.
pub type IdMap<V> = HashMap<ItemId, V, BuildHasherDefault<KeptHasher>>;
pub type ItemHashMap<V> = HashMap<ItemHash, V, BuildHasherDefault<KeptHasher>>;

/// Takes the hash that an id has as it is: operators do not attack their own catalogue.
#[derive(Debug, Clone, Default)]
pub struct KeptHasher(u64);

impl Hasher for KeptHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// One of [`SLOTS`] slots: the top 14 bits of xxh3-64 over (tenant, 0, id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(pub u16);

impl Slot {
    #[must_use]
    pub fn of(tenant: &TenantId, id: &str) -> Self {
        Self::of_parts(tenant.as_str(), id)
    }

    /// [`Slot::of`] for texts that were checked before.
    #[must_use]
    pub fn of_parts(tenant: &str, id: &str) -> Self {
        Self((hash_parts(tenant, id) >> 50) as u16)
    }
}

/// Whose context something belongs to: `u:` and the user id, else `s:` and the session id. Users and
/// sessions of the same name stay apart.
#[must_use]
pub fn subject(user: Option<&UserId>, session: Option<&SessionId>) -> Option<String> {
    match (user, session) {
        (Some(user), _) => Some(format!("u:{user}")),
        (None, Some(session)) => Some(format!("s:{session}")),
        (None, None) => None,
    }
}

/// Key of a subject's context in any store: tenant first, then a control character, which no id
/// can contain, then the subject.
#[must_use]
pub fn context_key(tenant: &TenantId, subject: &str) -> String {
    format!("{tenant}\u{1f}{subject}")
}

/// xxh3-64 over (tenant, 0, id): the stable hash for slots, canaries and ramps.
#[must_use]
pub fn tenant_hash(tenant: &TenantId, id: &str) -> u64 {
    hash_parts(tenant.as_str(), id)
}

fn hash_parts(tenant: &str, id: &str) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(tenant.as_bytes());
    hash.update(&[0]);
    hash.update(id.as_bytes());
    hash.digest()
}

/// A 128-bit identity shown as a UUID: request ids, decision ids, and event ids that the PoP makes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Uid(pub u128);

impl Uid {
    /// A UUIDv7 (RFC 9562) of `now_ms` and 74 bits taken from `random`.
    #[must_use]
    pub fn v7(now_ms: u64, random: u128) -> Self {
        let time = u128::from(now_ms & 0xffff_ffff_ffff) << 80;
        let rand_a = (random >> 64 & 0xfff) << 64;
        let rand_b = random & 0x3fff_ffff_ffff_ffff;
        Self(time | 0x7 << 76 | rand_a | 0x2 << 62 | rand_b)
    }

    /// The 36 characters of the hyphenated form, without allocating.
    #[must_use]
    pub fn text(self) -> [u8; 36] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut out = [b'-'; 36];
        let mut shift = 128u32;
        for (at, byte) in out.iter_mut().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                continue;
            }
            shift -= 4;
            *byte = HEX
                .get((self.0 >> shift & 0xf) as usize)
                .copied()
                .unwrap_or(b'0');
        }
        out
    }

    /// Milliseconds since the Unix epoch, as the id says.
    #[must_use]
    pub fn millis(self) -> u64 {
        (self.0 >> 80) as u64
    }
}

impl From<Uid> for EventId {
    fn from(id: Uid) -> Self {
        Self(Arc::from(
            std::str::from_utf8(&id.text()).unwrap_or_default(),
        ))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({self})")
    }
}

impl std::str::FromStr for Uid {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != 36 {
            return Err(IdError::Uuid);
        }
        let mut value = 0u128;
        for (at, byte) in text.bytes().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(IdError::Uuid);
                }
                continue;
            }
            let digit = (byte as char).to_digit(16).ok_or(IdError::Uuid)?;
            value = value << 4 | u128::from(digit);
        }
        Ok(Self(value))
    }
}

#[cfg(test)]
mod tests;
