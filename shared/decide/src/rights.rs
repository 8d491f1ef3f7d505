//! The rights mask: which items may not be shown now, to whom. Only items with restrictions are in
//! it; an item that it does not name is free.

use skerry_types::{Country, ItemHash, Millis, Rights};

/// Rights of all restricted items, by hash.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    entries: Vec<(ItemHash, Rights)>,
}

impl Mask {
    /// Takes entries in any order; of two for one hash the more restrictive cannot be told apart
    /// from the newer, so the last one counts.
    #[must_use]
    pub fn new(mut entries: Vec<(ItemHash, Rights)>) -> Self {
        entries.reverse();
        entries.sort_by_key(|(hash, _)| *hash);
        entries.dedup_by_key(|(hash, _)| *hash);
        Self { entries }
    }

    #[must_use]
    pub fn forbids(&self, item: ItemHash, now: Millis, country: Option<Country>) -> bool {
        self.entries
            .binary_search_by_key(&item, |(hash, _)| *hash)
            .ok()
            .and_then(|at| self.entries.get(at))
            .is_some_and(|(_, rights)| !rights.allow(now, country, None))
    }

    /// The next time after `now` at which the mask changes its mind by time alone.
    #[must_use]
    pub fn next_change(&self, now: Millis) -> Option<Millis> {
        self.entries
            .iter()
            .filter_map(|(_, rights)| rights.next_change(now))
            .min()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_types::Window;

    #[test]
    fn masks_by_hash_time_and_country() {
        let hidden = Rights {
            hidden: true,
            ..Rights::default()
        };
        let until_9 = Rights {
            available: vec![Window {
                from_ms: None,
                until_ms: Some(9),
                countries: vec![],
            }],
            ..Rights::default()
        };
        let mask = Mask::new(vec![
            (ItemHash(7), hidden.clone()),
            (ItemHash(3), until_9),
            (ItemHash(5), hidden),
        ]);
        let forbidden = |hash, now| mask.forbids(ItemHash(hash), now, None);
        assert!(forbidden(7, 0) && forbidden(5, 0) && !forbidden(4, 0));
        assert!(!forbidden(3, 8) && forbidden(3, 9));
        assert_eq!((mask.next_change(8), mask.next_change(9)), (Some(9), None));
    }

    #[test]
    fn the_last_entry_for_a_hash_counts() {
        let hidden = Rights {
            hidden: true,
            ..Rights::default()
        };
        let mask = Mask::new(vec![
            (ItemHash(1), hidden),
            (ItemHash(1), Rights::default()),
        ]);
        assert!(!mask.forbids(ItemHash(1), 0, None));
    }
}
