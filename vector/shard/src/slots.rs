//! Sets of slots, and the slot of a record.
//!
//! Invariant: the ranges of a set are in ascending order, do not touch, and end below
//! [`SLOTS`]; bytes of a peer are checked for it before they become a set.

use serde::{Deserialize, Serialize};
use skerry_types::Slot;
use skerry_types::ids::SLOTS;

/// Stands between the tenant and the id in a record's id. No id contains a control character.
pub const TENANT_END: char = '\u{1f}';

/// The slot of a record: that of its tenant and id (`tenant 0x1f id`; the default tenant where there
/// is no such sign).
#[must_use]
pub fn slot_of(record: &str) -> Slot {
    let (tenant, id) = record.split_once(TENANT_END).unwrap_or(("default", record));
    Slot::of_parts(tenant, id)
}

/// First and last slot of a range.
pub type SlotRange = (u16, u16);

/// Some of the 16,384 slots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<SlotRange>", into = "Vec<SlotRange>")]
pub struct SlotSet {
    ranges: Vec<SlotRange>,
    count: u32,
}

impl TryFrom<Vec<SlotRange>> for SlotSet {
    type Error = &'static str;

    fn try_from(ranges: Vec<SlotRange>) -> Result<Self, Self::Error> {
        let mut free_from = 0u32;
        let mut count = 0;
        for (at, (first, last)) in ranges.iter().enumerate() {
            let (first, last) = (u32::from(*first), u32::from(*last));
            let apart = at == 0 || first > free_from;
            if first > last || last >= u32::from(SLOTS) || !apart {
                return Err("ranges of slots must be in order, apart, and below 16,384");
            }
            free_from = last + 1;
            count += last + 1 - first;
        }
        Ok(Self { ranges, count })
    }
}

impl From<SlotSet> for Vec<SlotRange> {
    fn from(set: SlotSet) -> Self {
        set.ranges
    }
}

impl FromIterator<u16> for SlotSet {
    /// Slots in any order; those beyond the last slot are left out.
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut slots: Vec<u16> = slots.into_iter().filter(|slot| *slot < SLOTS).collect();
        slots.sort_unstable();
        slots.dedup();
        let mut ranges: Vec<SlotRange> = Vec::new();
        for slot in &slots {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *slot => *last = *slot,
                _ => ranges.push((*slot, *slot)),
            }
        }
        Self {
            ranges,
            count: slots.len() as u32,
        }
    }
}

impl SlotSet {
    /// Every slot.
    #[must_use]
    pub fn all() -> Self {
        (0..SLOTS).collect()
    }

    /// All slots from `first` to `last`; empty where there are none.
    #[must_use]
    pub fn range(first: u16, last: u16) -> Self {
        (first..=last).collect()
    }

    #[must_use]
    pub fn contains(&self, slot: Slot) -> bool {
        let at = self.ranges.partition_point(|(_, last)| *last < slot.0);
        self.ranges
            .get(at)
            .is_some_and(|(first, _)| *first <= slot.0)
    }

    #[must_use]
    pub const fn len(&self) -> u32 {
        self.count
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[must_use]
    pub fn ranges(&self) -> &[SlotRange] {
        &self.ranges
    }

    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.iter()
            .filter(|slot| !other.contains(Slot(*slot)))
            .collect()
    }

    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|slot| self.contains(Slot(slot)))
    }

    /// The upper `count` of the slots.
    #[must_use]
    pub fn last(&self, count: u32) -> Self {
        let skip = self.count.saturating_sub(count) as usize;
        self.iter().skip(skip).collect()
    }
}

impl std::fmt::Display for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for SlotSet {
    type Err = &'static str;

    /// `0-1023,2048`, in any order.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "slots are written as 0-1023,2048, each below 16384";
        let mut slots = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u16>().map_err(|_| WRONG);
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last >= SLOTS {
                return Err(WRONG);
            }
            slots.extend(first..=last);
        }
        Ok(slots.into_iter().collect())
    }
}
