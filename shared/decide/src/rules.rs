//! Which candidates may be shown, and in what order: the same on every rung.

use skerry_types::{ItemHash, Value, filter::Filter};

/// How many of a window of [`WINDOW`] neighbours may share their first genre before a candidate of
/// another genre, if one is near, goes first.
const SAME_GENRE_MAX: usize = 6;
/// Slots looked back at.
const WINDOW: usize = 9;
/// How far ahead another genre is looked for: diversity never costs more places than this.
const LOOKAHEAD: usize = 4;

/// What a request leaves out, checked per item: seen and excluded. Rights and filter need more than
/// a hash and are checked where that is at hand.
#[derive(Debug)]
pub struct LeftOut<'a> {
    seen: &'a [ItemHash],
    exclude: Vec<ItemHash>,
    /// A bit for each of both, by the last bits of its hash: nearly all that is asked for is neither,
    /// and is answered here.
    bits: Vec<u64>,
}

/// Bits for each item left out: one in [`BITS_AN_ITEM`] of the others is looked for in vain.
const BITS_AN_ITEM: usize = 16;

impl<'a> LeftOut<'a> {
    /// `seen` as a context has it: ascending.
    #[must_use]
    pub fn new(seen: &'a [ItemHash], exclude: impl IntoIterator<Item = ItemHash>) -> Self {
        let mut exclude: Vec<ItemHash> = exclude.into_iter().collect();
        exclude.sort_unstable();
        let words = (seen.len() + exclude.len()) * BITS_AN_ITEM / 64;
        let mut bits = vec![0u64; words.next_power_of_two()];
        for item in seen.iter().chain(&exclude) {
            let (word, bit) = place(*item, bits.len());
            if let Some(word) = bits.get_mut(word) {
                *word |= bit;
            }
        }
        Self {
            seen,
            exclude,
            bits,
        }
    }

    #[must_use]
    pub fn has(&self, item: ItemHash) -> bool {
        let (word, bit) = place(item, self.bits.len());
        self.bits.get(word).is_some_and(|word| word & bit != 0)
            && (self.exclude.binary_search(&item).is_ok() || self.seen.binary_search(&item).is_ok())
    }
}

/// Word, of a power of two of them, and bit of an item.
#[inline]
const fn place(item: ItemHash, words: usize) -> (usize, u64) {
    ((item.0 >> 6) as usize & (words - 1), 1 << (item.0 & 63))
}

/// A soft reorder by first genre: the order in which to show `genres.len()` candidates, as indices.
/// It never shortens the list, moves an item at most [`LOOKAHEAD`] places up, and ignores candidates
/// without a genre and genres that the caller filtered for (`named`).
#[must_use]
pub fn diversify(genres: &[Option<&str>], named: &[&str]) -> Vec<usize> {
    let numbers = numbered(genres, named);
    let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
    let mut left: std::collections::VecDeque<usize> = (0..genres.len()).collect();
    let mut order: Vec<usize> = Vec::with_capacity(genres.len());
    // How many of the last WINDOW shown have each number; what has none is never counted.
    let mut counts = vec![0usize; genres.len() + 1];
    while !left.is_empty() {
        let crowded = |at: usize| counts.get(number(at)).is_some_and(|n| *n >= SAME_GENRE_MAX);
        let pick = left
            .iter()
            .take(LOOKAHEAD + 1)
            .position(|at| !crowded(*at))
            .unwrap_or(0);
        let Some(at) = left.remove(pick) else { break };
        order.push(at);
        if let Some(count) = counts.get_mut(number(at)).filter(|_| number(at) > 0) {
            *count += 1;
        }
        let gone = order.len().checked_sub(WINDOW + 1);
        if let Some(gone) = gone.and_then(|at| order.get(at)).map(|at| number(*at))
            && let Some(count) = counts.get_mut(gone).filter(|_| gone > 0)
        {
            *count -= 1;
        }
    }
    order
}

/// A number for each genre, from 1; 0 where there is none and where the caller asked for it.
fn numbered<'g>(genres: &[Option<&'g str>], named: &[&str]) -> Vec<usize> {
    let mut known: Vec<&'g str> = Vec::new();
    let mut numbers = Vec::with_capacity(genres.len());
    for genre in genres {
        numbers.push(match *genre {
            Some(genre) if !named.contains(&genre) => {
                let at = known.iter().position(|one| *one == genre);
                at.unwrap_or_else(|| {
                    known.push(genre);
                    known.len() - 1
                }) + 1
            }
            _ => 0,
        });
    }
    numbers
}

/// The genres that a filter asks for by name: diversity leaves them alone.
#[must_use]
pub fn genres_named(filter: Option<&Filter>) -> Vec<&str> {
    fn walk<'f>(filter: &'f Filter, out: &mut Vec<&'f str>) {
        match filter {
            Filter::All(parts) | Filter::Any(parts) => {
                parts.iter().for_each(|part| walk(part, out))
            }
            Filter::Not(_) => {}
            Filter::Field { field, test } if &**field == "genre" => match test {
                skerry_types::Test::Eq(value) => out.extend(value.as_str()),
                skerry_types::Test::In(values) => {
                    out.extend(values.iter().filter_map(Value::as_str))
                }
                _ => {}
            },
            Filter::Field { .. } => {}
        }
    }
    let mut out = Vec::new();
    if let Some(filter) = filter {
        walk(filter, &mut out);
    }
    out
}

/// An item's first genre, as diversity and genre reasons see it.
#[must_use]
pub fn first_genre(fields: &skerry_types::Attributes) -> Option<&str> {
    fields
        .get("genre")
        .and_then(|genre| genre.each().find_map(Value::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_left_out_is_what_was_named(
            seen in prop::collection::btree_set(0u64..300, 0..200),
            exclude in prop::collection::vec(0u64..300, 0..50),
            factor in prop::sample::select(vec![1u64, 1 << 40, 0x9e37_79b9_7f4a_7c15]),
        ) {
            let hash = |n: u64| ItemHash(n.wrapping_mul(factor));
            let mut known: Vec<ItemHash> = seen.iter().map(|n| hash(*n)).collect();
            known.sort_unstable();
            let out = LeftOut::new(&known, exclude.iter().map(|n| hash(*n)));
            for n in 0..300 {
                prop_assert_eq!(out.has(hash(n)), seen.contains(&n) || exclude.contains(&n), "{}", n);
            }
        }
    }

    #[test]
    fn ten_of_a_kind_let_another_through() {
        let mut genres = vec![Some("Drama"); 10];
        genres.push(Some("Comedy"));
        let order = diversify(&genres, &[]);
        let place = order.iter().position(|at| *at == 10).unwrap();
        assert_eq!(
            place, 6,
            "the comedy moves up {LOOKAHEAD} places at most: {order:?}"
        );
        assert_eq!(
            diversify(&genres, &["Drama"]),
            (0..11).collect::<Vec<_>>(),
            "named in the filter"
        );
    }

    #[test]
    fn seen_and_excluded_are_left_out() {
        let seen = [ItemHash(2), ItemHash(4)];
        let out = LeftOut::new(&seen, [ItemHash(9), ItemHash(1)]);
        let has: Vec<bool> = [1, 2, 3, 4, 9].map(|hash| out.has(ItemHash(hash))).to_vec();
        assert_eq!(has, [true, true, false, true, true]);
    }

    /// The rule in its plainest form: the last nine are counted anew for each place.
    fn plainly(genres: &[Option<&str>], named: &[&str]) -> Vec<usize> {
        let mut left: Vec<usize> = (0..genres.len()).collect();
        let mut order = Vec::new();
        let genre = |at: usize| genres[at].filter(|genre| !named.contains(genre));
        while !left.is_empty() {
            let crowded = |at: usize| {
                let same = |shown: &&usize| genre(at).is_some() && genre(**shown) == genre(at);
                order.iter().rev().take(WINDOW).filter(same).count() >= SAME_GENRE_MAX
            };
            let near = left.iter().take(LOOKAHEAD + 1);
            let pick = near.clone().position(|at| !crowded(*at)).unwrap_or(0);
            order.push(left.remove(pick));
        }
        order
    }

    proptest! {
        #[test]
        fn diversity_follows_its_rule(
            picks in proptest::collection::vec(0usize..4, 0..80),
            named in proptest::collection::vec(0usize..3, 0..2),
        ) {
            let names = [Some("Drama"), Some("Comedy"), Some("Crime"), None];
            let genres: Vec<Option<&str>> = picks.iter().map(|at| names[*at]).collect();
            let named: Vec<&str> = named.iter().filter_map(|at| names[*at]).collect();
            prop_assert_eq!(diversify(&genres, &named), plainly(&genres, &named));
        }

        #[test]
        fn diversity_is_a_bounded_permutation(picks in proptest::collection::vec(0usize..3, 0..80)) {
            let names = [Some("Drama"), Some("Comedy"), None];
            let genres: Vec<Option<&str>> = picks.iter().map(|at| names[*at]).collect();
            let order = diversify(&genres, &[]);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..genres.len()).collect::<Vec<_>>());
            for (place, at) in order.iter().enumerate() {
                prop_assert!(*at <= place + LOOKAHEAD);
            }
        }
    }
}
