//! The distinct values of one kind in one field, in order, and the rows of each.
//!
//! Values that many rows share have a bitmap; the rows of all others lie in one array in the order of
//! the values, so that a range of them is one slice. Memory is thus the values, 4 bytes each, and at
//! most about 4 bytes for each pair of a value and a row, however many values there are. What was
//! added since the last packing lies in a tree beside, a fixed share at most.
//!
//! Invariants: values ascend strictly; each has a bitmap or a stretch of the array, never both and
//! never none; rows ascend in each. No bitmap has runs: taking rows from a run, or adding some, takes
//! time in the square of their number (roaring 0.12), and a bitmap without is never above a bit a row.

use super::NewRow;
use roaring::{MultiOps, RoaringBitmap};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A value gets a bitmap where it has at least this many rows in each stretch of 65,536 rows that it
/// is in, on average: from there on a container of the bitmap is smaller than 4 bytes a row.
const DENSE_ROWS_MIN: usize = 32;
/// Pairs of value and row that may wait for packing: so many, or that share of the packed ones.
const RECENT_PAIRS: usize = 8_192;
const RECENT_SHARE: usize = 4;
/// A union of more than one row in so many is made in an array of bits, a smaller one by sorting.
const BITS_SHARE: usize = 256;

/// Values in order, packed.
pub trait Column: Default {
    type Key: ?Sized + Ord;
    type Owned: Ord + Borrow<Self::Key>;
    fn owned(key: &Self::Key) -> Self::Owned;
    fn len(&self) -> usize;
    fn get(&self, at: usize) -> Option<&Self::Key>;
    fn push(&mut self, key: &Self::Key);
    fn shrink(&mut self);
    /// Bytes of memory.
    fn bytes(&self) -> usize;
    /// Bytes of memory of a value outside of the column, beside itself.
    fn bytes_of(owned: &Self::Owned) -> usize;
}

/// Whole numbers, or what stands for the order of others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers(pub Vec<i64>);

/// Texts in byte order, one after another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Texts {
    pub ends: Vec<usize>,
    pub text: String,
}

/// A range of values. Never empty by construction, as ranges in a tree must be.
#[derive(Debug, Clone)]
pub struct Span<O>(pub Bound<O>, pub Bound<O>);

/// The values of one kind, and the rows of each.
pub struct Terms<C: Column> {
    pub keys: C,
    /// Where the rows of each value end in `rows`; they start where those before it end.
    pub ends: Vec<u32>,
    pub rows: Vec<u32>,
    /// Bitmaps of the values, by place, that have no stretch of `rows`.
    pub dense: Vec<(usize, RoaringBitmap)>,
    pairs: usize,
    recent: BTreeMap<C::Owned, Vec<u32>>,
    recent_pairs: usize,
}

/// Rows on their way to a bitmap.
pub struct Union<'a> {
    rows: u32,
    sparse: Vec<&'a [u32]>,
    dense: Vec<&'a RoaringBitmap>,
}

/// A part of a merger: terms, and the new row of each of their rows.
pub type Part<'a, C> = (&'a Terms<C>, &'a NewRow<'a>);

/// The rows of one value in one part.
#[derive(Clone, Copy)]
enum Postings<'a> {
    Sparse(&'a [u32]),
    Dense(&'a RoaringBitmap),
}

impl Column for Numbers {
    type Key = i64;
    type Owned = i64;

    fn owned(key: &i64) -> i64 {
        *key
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, at: usize) -> Option<&i64> {
        self.0.get(at)
    }

    fn push(&mut self, key: &i64) {
        self.0.push(*key);
    }

    fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<i64>()
    }

    fn bytes_of(_: &i64) -> usize {
        0
    }
}

impl Column for Texts {
    type Key = str;
    type Owned = Box<str>;

    fn owned(key: &str) -> Box<str> {
        key.into()
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, at: usize) -> Option<&str> {
        let to = *self.ends.get(at)?;
        self.text.get(start(&self.ends, at)..to)
    }

    fn push(&mut self, key: &str) {
        self.text.push_str(key);
        self.ends.push(self.text.len());
    }

    fn shrink(&mut self) {
        self.ends.shrink_to_fit();
        self.text.shrink_to_fit();
    }

    fn bytes(&self) -> usize {
        self.ends.capacity() * size_of::<usize>() + self.text.capacity()
    }

    fn bytes_of(owned: &Box<str>) -> usize {
        owned.len()
    }
}

impl<C: Column> Default for Terms<C> {
    fn default() -> Self {
        Self::packed(C::default(), Vec::new(), Vec::new(), Vec::new())
    }
}

impl<C: Column> Terms<C> {
    /// From parts that keep the invariants.
    pub fn packed(
        keys: C,
        ends: Vec<u32>,
        rows: Vec<u32>,
        dense: Vec<(usize, RoaringBitmap)>,
    ) -> Self {
        let in_bitmaps = dense.iter().map(|(_, rows)| rows.len() as usize);
        Self {
            pairs: rows.len() + in_bitmaps.sum::<usize>(),
            keys,
            ends,
            rows,
            dense,
            recent: BTreeMap::new(),
            recent_pairs: 0,
        }
    }

    /// Whether the row had not this value yet. Rows come in ascending order.
    pub fn add(&mut self, key: &C::Key, row: u32) -> bool {
        match self.recent.get_mut(key) {
            Some(rows) if rows.last() == Some(&row) => return false,
            Some(rows) => rows.push(row),
            None => {
                self.recent.insert(C::owned(key), vec![row]);
            }
        }
        self.recent_pairs += 1;
        true
    }

    /// Packs what was added, where it has become much. Between rows only.
    pub fn settle(&mut self) {
        if self.recent_pairs > RECENT_PAIRS.max(self.pairs / RECENT_SHARE) {
            *self = Self::merged(&[(self, &Some)]);
        }
    }

    pub fn is_packed(&self) -> bool {
        self.recent.is_empty()
    }

    /// The terms of several parts as one.
    pub fn merged(parts: &[Part<'_, C>]) -> Self {
        let mut all: Vec<(&C::Key, usize, Postings<'_>)> = Vec::new();
        for (number, (part, _)) in parts.iter().enumerate() {
            let packed = (0..part.keys.len()).filter_map(|at| {
                let key = part.keys.get(at)?;
                Some((key, number, part.postings(at)?))
            });
            all.extend(packed);
            let recent = part.recent.iter();
            all.extend(recent.map(|(key, rows)| (key.borrow(), number, Postings::Sparse(rows))));
        }
        // Stable, and quick on runs that are in order already.
        all.sort_by(|a, b| a.0.cmp(b.0));
        let mut merged = Self::default();
        let mut rows = Vec::new();
        for same in all.chunk_by(|a, b| a.0 == b.0) {
            rows.clear();
            for (_, number, postings) in same {
                let Some((_, map)) = parts.get(*number) else {
                    continue;
                };
                match postings {
                    Postings::Sparse(old) => {
                        rows.extend(old.iter().filter_map(|row| map(*row)));
                    }
                    Postings::Dense(old) => rows.extend(old.iter().filter_map(map)),
                }
            }
            if let Some((key, _, _)) = same.first() {
                merged.push(key, &mut rows);
            }
        }
        merged.keys.shrink();
        merged.ends.shrink_to_fit();
        merged.rows.shrink_to_fit();
        merged.dense.shrink_to_fit();
        merged
    }

    /// Appends a value greater than all others with its rows, if it has any.
    fn push(&mut self, key: &C::Key, rows: &mut Vec<u32>) {
        rows.sort_unstable();
        rows.dedup();
        if rows.is_empty() {
            return;
        }
        let stretches = rows.chunk_by(|a, b| a >> 16 == b >> 16).count();
        let end = u32::try_from(self.rows.len() + rows.len());
        match end {
            Ok(end) if rows.len() < stretches * DENSE_ROWS_MIN => {
                self.rows.extend_from_slice(rows);
                self.ends.push(end);
            }
            // The array is full, or the bitmap is smaller.
            _ => {
                self.dense.push((self.keys.len(), bitmap_of(rows)));
                self.ends.push(self.ends.last().copied().unwrap_or(0));
            }
        }
        self.keys.push(key);
        self.pairs += rows.len();
    }

    /// The rows of all values in `spans`.
    pub fn within<'a>(&'a self, spans: &[Span<C::Owned>], union: &mut Union<'a>) {
        for span in spans {
            let (from, to) = self.places(span);
            self.gather(from, to, union);
            let recent = self
                .recent
                .range::<C::Owned, _>((span.0.as_ref(), span.1.as_ref()));
            union.sparse.extend(recent.map(|(_, rows)| rows.as_slice()));
        }
    }

    /// The rows of all values in none of `spans`.
    pub fn outside<'a>(&'a self, spans: &[Span<C::Owned>], union: &mut Union<'a>) {
        let mut inside: Vec<_> = spans.iter().map(|span| self.places(span)).collect();
        inside.sort_unstable();
        let mut from = 0;
        for (start, end) in inside {
            self.gather(from, start, union);
            from = from.max(end);
        }
        self.gather(from, self.keys.len(), union);
        let recent = self.recent.iter();
        let recent = recent.filter(|(key, _)| !spans.iter().any(|span| span.contains(key)));
        union.sparse.extend(recent.map(|(_, rows)| rows.as_slice()));
    }

    pub fn bytes(&self) -> usize {
        let dense = self.dense.iter().map(|(_, rows)| bitmap_bytes(rows));
        let recent = self.recent.iter().map(|(key, rows)| {
            C::bytes_of(key) + size_of_val(key) + size_of::<Vec<u32>>() + rows.capacity() * 4
        });
        self.keys.bytes()
            + (self.ends.capacity() + self.rows.capacity()) * size_of::<u32>()
            + dense.sum::<usize>()
            + recent.sum::<usize>()
    }

    /// Packed values of a span: the first, and the one after the last.
    fn places(&self, span: &Span<C::Owned>) -> (usize, usize) {
        let from = match &span.0 {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.partition(|at| at < key.borrow()),
            Bound::Excluded(key) => self.partition(|at| at <= key.borrow()),
        };
        let to = match &span.1 {
            Bound::Unbounded => self.keys.len(),
            Bound::Included(key) => self.partition(|at| at <= key.borrow()),
            Bound::Excluded(key) => self.partition(|at| at < key.borrow()),
        };
        (from, to)
    }

    /// The number of packed values for which `before` holds, which are the first.
    fn partition(&self, before: impl Fn(&C::Key) -> bool) -> usize {
        let (mut from, mut to) = (0, self.keys.len());
        while from < to {
            let middle = from + (to - from) / 2;
            if self.keys.get(middle).is_some_and(&before) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    fn gather<'a>(&'a self, from: usize, to: usize, union: &mut Union<'a>) {
        if from >= to {
            return;
        }
        let ends = self.ends.get(to - 1).map_or(0, |end| *end as usize);
        let sparse = self.rows.get(start(&self.ends, from)..ends);
        union.sparse.extend(sparse.filter(|rows| !rows.is_empty()));
        let first = self.dense.partition_point(|(at, _)| *at < from);
        let dense = self.dense.iter().skip(first);
        union
            .dense
            .extend(dense.take_while(|(at, _)| *at < to).map(|(_, rows)| rows));
    }

    fn postings(&self, at: usize) -> Option<Postings<'_>> {
        let rows = self
            .rows
            .get(start(&self.ends, at)..*self.ends.get(at)? as usize)?;
        if !rows.is_empty() {
            return Some(Postings::Sparse(rows));
        }
        let place = self.dense.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        let (_, rows) = self.dense.get(place)?;
        Some(Postings::Dense(rows))
    }
}

impl<O: Ord> Span<O> {
    pub fn one(key: O) -> Self
    where
        O: Clone,
    {
        Self(Bound::Included(key.clone()), Bound::Included(key))
    }

    fn contains(&self, key: &O) -> bool {
        std::ops::RangeBounds::contains(&(self.0.as_ref(), self.1.as_ref()), key)
    }
}

impl<'a> Union<'a> {
    pub fn new(rows: u32) -> Self {
        Self {
            rows,
            sparse: Vec::new(),
            dense: Vec::new(),
        }
    }

    pub fn add(&mut self, rows: &'a RoaringBitmap) {
        self.dense.push(rows);
    }

    pub fn into_bitmap(self) -> RoaringBitmap {
        let dense = match self.dense.as_slice() {
            [one] => (*one).clone(),
            all => all.iter().copied().union(),
        };
        let count: usize = self.sparse.iter().map(|rows| rows.len()).sum();
        if count == 0 {
            return dense;
        }
        let sparse = if count > self.rows as usize / BITS_SHARE {
            let mut bits = vec![0u8; (self.rows as usize).div_ceil(8)];
            for row in self.sparse.into_iter().flatten() {
                if let Some(bits) = bits.get_mut(*row as usize / 8) {
                    *bits |= 1 << (row % 8);
                }
            }
            RoaringBitmap::from_lsb0_bytes(0, &bits)
        } else {
            let mut rows: Vec<u32> = self.sparse.into_iter().flatten().copied().collect();
            rows.sort_unstable();
            rows.dedup();
            bitmap_of(&rows)
        };
        if dense.is_empty() {
            sparse
        } else {
            dense | sparse
        }
    }
}

/// Of rows in ascending order.
pub fn bitmap_of(rows: &[u32]) -> RoaringBitmap {
    // In order by contract; were they not, inserting them one by one gives the same.
    RoaringBitmap::from_sorted_iter(rows.iter().copied())
        .unwrap_or_else(|_| rows.iter().copied().collect())
}

/// All of so many rows.
pub fn all(rows: u32) -> RoaringBitmap {
    let mut bits = vec![u8::MAX; (rows as usize).div_ceil(8)];
    if let Some(last) = bits.last_mut() {
        *last >>= (8 - rows % 8) % 8;
    }
    RoaringBitmap::from_lsb0_bytes(0, &bits)
}

/// Bytes of memory, roughly: its rows, and 40 for each container.
pub fn bitmap_bytes(rows: &RoaringBitmap) -> usize {
    const CONTAINER_BYTES: usize = 40;
    let containers = rows.statistics().n_containers as usize;
    rows.serialized_size() + containers * CONTAINER_BYTES + size_of::<RoaringBitmap>()
}

/// Where the stretch at a place begins, which is where the one before it ends.
fn start<E: Copy + TryInto<usize>>(ends: &[E], at: usize) -> usize {
    let before = at.checked_sub(1).and_then(|before| ends.get(before));
    before.and_then(|end| (*end).try_into().ok()).unwrap_or(0)
}
