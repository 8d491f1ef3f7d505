//! What objects are called. A name is made of what it holds, never of what a file claims.

use crate::manifest::{Part, PartFile};
use object_store::path::Path;
use std::fmt;

/// What the place belongs to.
pub const PLACE: &str = "PLACE";
/// Manifests, and what belongs to one snapshot alone.
pub const SNAPSHOTS: &str = "snapshots";
/// What snapshots share.
pub const SEGMENTS: &str = "segments";
/// Who is at work.
pub const LOCKS: &str = "locks";
const MANIFEST_END: &str = ".manifest";

/// The time at which a snapshot was begun, and chance: `20261129T153630Z-1a2b3c4d`. In the order of
/// their texts snapshots are in the order of time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(Box<str>);

impl SnapshotId {
    #[must_use]
    pub fn new(now_ms: u64, chance: u128) -> Self {
        let ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
        let time = time.strftime("%Y%m%dT%H%M%SZ");
        // Milliseconds first: ids are in the order of time within a second too.
        let (ms, chance) = (now_ms % 1_000, chance & 0xf_ffff);
        Self(format!("{time}-{ms:03x}{chance:05x}").into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for SnapshotId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "dddddddd_dddddd_-xxxxxxxx";
        let fits = |(byte, shape): (u8, u8)| match shape {
            b'd' => byte.is_ascii_digit(),
            b'x' => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            b'_' => byte == b'T' || byte == b'Z',
            other => byte == other,
        };
        if text.len() == SHAPE.len() && text.bytes().zip(SHAPE.bytes()).all(fits) {
            Ok(Self(text.into()))
        } else {
            Err(format!(
                "{text:?} is no snapshot, such as 20261129T153630Z-1a2b3c4d"
            ))
        }
    }
}

pub fn place() -> Path {
    Path::from(PLACE)
}

pub fn manifest(id: &SnapshotId) -> Path {
    Path::from(format!("{SNAPSHOTS}/{id}{MANIFEST_END}"))
}

/// The snapshot that an object is the manifest of.
pub fn of_manifest(object: &Path) -> Option<SnapshotId> {
    let name = object.as_ref().strip_prefix(SNAPSHOTS)?.strip_prefix('/')?;
    name.strip_suffix(MANIFEST_END)?.parse().ok()
}

/// A segment by its number, length and content; any other file by its snapshot.
pub fn file(id: &SnapshotId, part: &str, name: &str, bytes: u64, identity: Option<u128>) -> Path {
    Path::from(match identity {
        Some(identity) => {
            let stem = name.strip_suffix(".skv").unwrap_or(name);
            format!("{SEGMENTS}/{part}/{stem}-{bytes}-{identity:032x}.skv")
        }
        None => format!("{SNAPSHOTS}/{id}/{part}/{name}"),
    })
}

pub fn of_file(id: &SnapshotId, part: &Part, entry: &PartFile) -> Path {
    file(id, &part.name, &entry.name, entry.bytes, entry.identity)
}

/// A part's name becomes a folder.
pub fn is_part(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_order_as_time_and_come_back(a in 0u64..4_000_000_000_000, b in 0u64..4_000_000_000_000, chance: u128) {
            let [first, second] = [a, b].map(|ms| SnapshotId::new(ms, chance));
            prop_assert_eq!(first.as_str().parse::<SnapshotId>(), Ok(first.clone()));
            prop_assert_eq!(of_manifest(&manifest(&first)), Some(first.clone()));
            if a < b {
                prop_assert!(first < second);
            }
        }

        #[test]
        fn no_text_becomes_a_path_that_leads_away(text in "\\PC*") {
            if let Ok(id) = text.parse::<SnapshotId>() {
                prop_assert_eq!(id.as_str().len(), 25);
            }
            prop_assert!(!is_part(&text) || !text.contains(['/', '.']));
        }
    }

    #[test]
    fn a_segment_has_one_name_in_all_snapshots_and_others_do_not() {
        let [a, b] = [1_000, 2_000].map(|ms| SnapshotId::new(ms, 7));
        let name = |id, name, identity| file(id, "shard-0000", name, 9, identity).to_string();
        let segment = name(&a, "segment-3.skv", Some(5));
        assert_eq!(segment, name(&b, "segment-3.skv", Some(5)));
        assert_eq!(
            segment,
            format!("segments/shard-0000/segment-3-9-{:032x}.skv", 5)
        );
        assert_ne!(segment, name(&a, "segment-3.skv", Some(6)));
        assert_eq!(
            name(&a, "MANIFEST", None),
            "snapshots/19700101T000001Z-00000007/shard-0000/MANIFEST"
        );
        for wrong in ["", "snapshots", "19700101T000001Z-0000000G", "../x"] {
            assert!(wrong.parse::<SnapshotId>().is_err(), "{wrong}");
        }
    }
}
