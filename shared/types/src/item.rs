//! Items, their attributes and the rights that are applied whenever an answer is served.

use crate::ids::ItemId;
use crate::time::Millis;
use crate::value::Value;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Attributes by name: `title`, `year`, `genre`, ...
pub type Attributes = BTreeMap<Box<str>, Value>;

/// Attributes on their way into an answer: encoded once, where the catalogue is, and read only where
/// they are shown or filtered by. `skerry_wire::value::metadata` writes and reads the bytes; empty
/// bytes are no attributes.
#[derive(Clone, Default)]
pub struct Metadata {
    /// Shared by all items of a list that arrived together.
    bytes: Arc<[u8]>,
    from: u32,
    to: u32,
}

impl Metadata {
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::part(&Arc::from(bytes), 0, bytes.len()).unwrap_or_default()
    }

    /// A part of bytes that hold the metadata of several items; `None` beyond their end.
    #[must_use]
    pub fn part(bytes: &Arc<[u8]>, from: usize, to: usize) -> Option<Self> {
        bytes.get(from..to)?;
        Some(Self {
            bytes: Arc::clone(bytes),
            from: u32::try_from(from).ok()?,
            to: u32::try_from(to).ok()?,
        })
    }

    /// One for each of the pieces, in one copy: what is put into many lists at once would else be
    /// counted at its one place by every thread.
    pub fn gather<'a>(pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<Self> {
        let mut all = Vec::with_capacity(pieces.clone().map(<[u8]>::len).sum());
        pieces
            .clone()
            .for_each(|piece| all.extend_from_slice(piece));
        let all = Arc::from(all);
        let mut from = 0;
        let parts = pieces.map(|piece| {
            let to = from + piece.len();
            let part = Self::part(&all, from, to).unwrap_or_default();
            from = to;
            part
        });
        parts.collect()
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let (from, to) = (self.from as usize, self.to as usize);
        self.bytes.get(from..to).unwrap_or_default()
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metadata({} bytes)", self.as_bytes().len())
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("encoded attributes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Metadata, E> {
                Ok(Metadata::from_bytes(bytes))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// An item of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub id: ItemId,
    pub attributes: Attributes,
    pub rights: Rights,
}

impl Item {
    /// The `title` attribute, or the id.
    #[must_use]
    pub fn title(&self) -> &str {
        self.attributes
            .get("title")
            .and_then(Value::as_str)
            .unwrap_or(self.id.as_str())
    }
}

/// An ISO 3166-1 alpha-2 code, upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Country(pub [u8; 2]);

impl Country {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match *text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("??")
    }
}

/// Who may see an item, and when. The default allows everybody, always.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rights {
    pub hidden: bool,
    /// Where not empty, the item may be shown only inside one of these.
    pub available: Vec<Window>,
    /// Least maturity (age in years) of the viewer, where the viewer's is known.
    pub maturity: Option<u8>,
}

/// A window of availability: `from` inclusive, `until` exclusive; no country means all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    pub from_ms: Option<Millis>,
    pub until_ms: Option<Millis>,
    pub countries: Vec<Country>,
}

impl Rights {
    #[must_use]
    pub fn is_free(&self) -> bool {
        !self.hidden && self.available.is_empty() && self.maturity.is_none()
    }

    /// Whether a viewer in `country` may see the item at `now`. An unknown country satisfies only
    /// windows that name none.
    #[must_use]
    pub fn allow(&self, now: Millis, country: Option<Country>, maturity: Option<u8>) -> bool {
        if self.hidden {
            return false;
        }
        if let (Some(least), Some(viewer)) = (self.maturity, maturity)
            && viewer < least
        {
            return false;
        }
        self.available.is_empty()
            || self
                .available
                .iter()
                .any(|window| window.open(now, country))
    }

    /// The next time after `now` at which [`Rights::allow`] may change its mind.
    #[must_use]
    pub fn next_change(&self, now: Millis) -> Option<Millis> {
        let edges = self
            .available
            .iter()
            .flat_map(|window| [window.from_ms, window.until_ms]);
        edges.flatten().filter(|edge| *edge > now).min()
    }
}

impl Window {
    fn open(&self, now: Millis, country: Option<Country>) -> bool {
        self.from_ms.is_none_or(|from| from <= now)
            && self.until_ms.is_none_or(|until| now < until)
            && (self.countries.is_empty() || country.is_some_and(|c| self.countries.contains(&c)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_metadata_is_what_it_was_piece_by_piece() {
        let cases: [&[&[u8]]; 4] = [&[], &[b""], &[b"a", b"", b"bcd"], &[b"same", b"same"]];
        for pieces in cases {
            let gathered = Metadata::gather(pieces.iter().copied());
            let got: Vec<&[u8]> = gathered.iter().map(Metadata::as_bytes).collect();
            assert_eq!(got, pieces);
        }
    }

    #[test]
    fn rights_by_time_and_country() {
        let de = Country::parse("de");
        let window = |from, until, countries: &[&str]| Window {
            from_ms: from,
            until_ms: until,
            countries: countries.iter().filter_map(|c| Country::parse(c)).collect(),
        };
        let rights = |hidden, available| Rights {
            hidden,
            available,
            maturity: None,
        };
        let cases = [
            ("free", rights(false, vec![]), 5, None, true),
            ("hidden", rights(true, vec![]), 5, de, false),
            (
                "before",
                rights(false, vec![window(Some(6), None, &[])]),
                5,
                de,
                false,
            ),
            (
                "from is inclusive",
                rights(false, vec![window(Some(5), None, &[])]),
                5,
                de,
                true,
            ),
            (
                "until is exclusive",
                rights(false, vec![window(None, Some(5), &[])]),
                5,
                de,
                false,
            ),
            (
                "country",
                rights(false, vec![window(None, None, &["DE"])]),
                5,
                de,
                true,
            ),
            (
                "other country",
                rights(false, vec![window(None, None, &["FR"])]),
                5,
                de,
                false,
            ),
            (
                "unknown country",
                rights(false, vec![window(None, None, &["FR"])]),
                5,
                None,
                false,
            ),
            (
                "any window",
                rights(
                    false,
                    vec![window(None, Some(3), &[]), window(Some(4), None, &[])],
                ),
                5,
                None,
                true,
            ),
        ];
        for (name, rights, now, country, want) in cases {
            assert_eq!(rights.allow(now, country, None), want, "{name}");
        }
        assert_eq!(
            rights(false, vec![window(Some(3), Some(9), &[])]).next_change(4),
            Some(9)
        );
    }
}
