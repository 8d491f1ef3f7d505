//! The payload index as bytes, little-endian, fields in the ascending order of their names:
//!
//! ```text
//! index   layout u32 = 1, then the fields
//! field   exists, empty, several, null, false, true, odd: 7 bitmaps
//!         whole numbers, other numbers, texts: 3 terms
//! bitmap  length u32, the bitmap in Roaring's portable format, without runs: a few bytes of those
//!         would stand for 8 KiB
//! terms   values u64, rows u64, bitmaps u64
//!         numbers: values x i64      texts: values x length u32, then their bytes in UTF-8
//!         values x u32: where the rows of each end
//!         rows x u32
//!         bitmaps x (place of the value u64, bitmap)
//! ```
//!
//! Invariants: bytes that read are an index that keeps all invariants of its parts, so that nothing
//! behind needs to doubt it; memory is taken only for what is there, never for what is claimed.

use super::terms::{Column, Numbers, Terms, Texts};
use super::{Field, Marks, PayloadIndex};
use crate::ROWS_MAX;
use roaring::RoaringBitmap;

const LAYOUT: u32 = 1;

/// Bytes that are no payload index, and what about them is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the payload index is damaged: {0}")]
pub struct Damaged(pub &'static str);

impl PayloadIndex {
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = LAYOUT.to_le_bytes().to_vec();
        for (_, field) in &self.fields {
            for mark in field.marks.list() {
                put_bitmap(mark, &mut out);
            }
            put_terms(&field.whole, &mut out, put_numbers);
            put_terms(&field.other, &mut out, put_numbers);
            put_terms(&field.texts, &mut out, put_texts);
        }
        out
    }

    /// Reads an index of `fields`, which must be those that it was made of, over `rows` rows.
    pub fn from_bytes(fields: &[Box<str>], rows: u32, bytes: &[u8]) -> Result<Self, Damaged> {
        if rows as usize > ROWS_MAX {
            return Err(Damaged("it has too many rows"));
        }
        let mut index = Self::new(fields);
        index.rows = rows;
        let mut bytes = Bytes { left: bytes, rows };
        if bytes.u32()? != LAYOUT {
            return Err(Damaged("its layout is unknown"));
        }
        for (_, field) in &mut index.fields {
            let mut marks = Marks::default();
            for mark in marks.list_mut() {
                *mark = bytes.bitmap()?;
            }
            *field = Field {
                marks,
                whole: bytes.terms(Bytes::numbers)?,
                other: bytes.terms(Bytes::numbers)?,
                texts: bytes.terms(Bytes::texts)?,
            };
        }
        if !bytes.left.is_empty() {
            return Err(Damaged("something follows it"));
        }
        Ok(index)
    }
}

fn put_terms<C: Column>(terms: &Terms<C>, out: &mut Vec<u8>, put_keys: fn(&C, &mut Vec<u8>)) {
    let packed;
    let terms = if terms.is_packed() {
        terms
    } else {
        packed = Terms::merged(&[(terms, &Some)]);
        &packed
    };
    for count in [terms.keys.len(), terms.rows.len(), terms.dense.len()] {
        out.extend((count as u64).to_le_bytes());
    }
    put_keys(&terms.keys, out);
    out.extend(terms.ends.iter().flat_map(|end| end.to_le_bytes()));
    out.extend(terms.rows.iter().flat_map(|row| row.to_le_bytes()));
    for (place, rows) in &terms.dense {
        out.extend((*place as u64).to_le_bytes());
        put_bitmap(rows, out);
    }
}

fn put_numbers(keys: &Numbers, out: &mut Vec<u8>) {
    out.extend(keys.0.iter().flat_map(|key| key.to_le_bytes()));
}

fn put_texts(keys: &Texts, out: &mut Vec<u8>) {
    let mut before = 0;
    for end in &keys.ends {
        // A payload is far below 4 GiB, and so is a text of it.
        out.extend(((end - before) as u32).to_le_bytes());
        before = *end;
    }
    out.extend(keys.text.as_bytes());
}

fn put_bitmap(rows: &RoaringBitmap, out: &mut Vec<u8>) {
    // A bitmap of 32-bit rows has at most 0.6 GB.
    out.extend((rows.serialized_size() as u32).to_le_bytes());
    // Writing to memory does not fail.
    let _ = rows.serialize_into(&mut *out);
}

/// What is left to read, of an index over so many rows.
struct Bytes<'a> {
    left: &'a [u8],
    rows: u32,
}

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let (taken, left) = self
            .left
            .split_at_checked(count)
            .ok_or(Damaged("it is cut off"))?;
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (taken, left) = self
            .left
            .split_first_chunk::<N>()
            .ok_or(Damaged("it is cut off"))?;
        self.left = left;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, Damaged> {
        self.array().map(u32::from_le_bytes)
    }

    fn count(&mut self) -> Result<usize, Damaged> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| Damaged("it is cut off"))
    }

    /// So many values of N bytes.
    fn list<const N: usize, T>(
        &mut self,
        count: usize,
        read: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Damaged> {
        let bytes = count.checked_mul(N).ok_or(Damaged("it is cut off"))?;
        let bytes = self.take(bytes)?.as_chunks::<N>().0;
        Ok(bytes.iter().map(|bytes| read(*bytes)).collect())
    }

    fn numbers(&mut self, count: usize) -> Result<Numbers, Damaged> {
        self.list(count, i64::from_le_bytes).map(Numbers)
    }

    fn texts(&mut self, count: usize) -> Result<Texts, Damaged> {
        let mut length = 0usize;
        let lengths = self.list(count, u32::from_le_bytes)?;
        let ends = lengths.into_iter().map(|one| {
            length = length.saturating_add(one as usize);
            length
        });
        let ends = ends.collect();
        let text = std::str::from_utf8(self.take(length)?);
        let text = text.map_err(|_| Damaged("a text is not UTF-8"))?.to_owned();
        Ok(Texts { ends, text })
    }

    fn bitmap(&mut self) -> Result<RoaringBitmap, Damaged> {
        let length = self.u32()? as usize;
        let mut bytes = self.take(length)?;
        let rows =
            RoaringBitmap::deserialize_from(&mut bytes).map_err(|_| Damaged("a bitmap is none"))?;
        if !bytes.is_empty() {
            return Err(Damaged("something follows a bitmap"));
        }
        if rows.statistics().n_run_containers > 0 {
            return Err(Damaged("a bitmap has runs"));
        }
        if rows.max().is_some_and(|row| row >= self.rows) {
            return Err(Damaged("a row is beyond the last"));
        }
        Ok(rows)
    }

    fn terms<C: Column>(
        &mut self,
        keys: fn(&mut Self, usize) -> Result<C, Damaged>,
    ) -> Result<Terms<C>, Damaged> {
        let (values, sparse, bitmaps) = (self.count()?, self.count()?, self.count()?);
        let keys = keys(self, values)?;
        for at in 0..values {
            // A text that is cut within a character is none.
            let key = keys.get(at).ok_or(Damaged("a value is cut off"))?;
            let before = at.checked_sub(1).and_then(|before| keys.get(before));
            if before.is_some_and(|before| before >= key) {
                return Err(Damaged("values are not in order"));
            }
        }
        let ends = self.list(values, u32::from_le_bytes)?;
        let rows = self.list(sparse, u32::from_le_bytes)?;
        let mut dense = Vec::new();
        for _ in 0..bitmaps {
            let place = self.count()?;
            let rows = self.bitmap()?;
            if rows.is_empty() {
                return Err(Damaged("a value has no rows"));
            }
            dense.push((place, rows));
        }
        self.check_rows(&ends, &rows, &dense)?;
        Ok(Terms::packed(keys, ends, rows, dense))
    }

    /// That each value has a stretch of rows in order or a bitmap, and nothing is left over.
    fn check_rows(
        &self,
        ends: &[u32],
        rows: &[u32],
        dense: &[(usize, RoaringBitmap)],
    ) -> Result<(), Damaged> {
        let mut dense = dense.iter();
        let mut from = 0;
        for (place, end) in ends.iter().enumerate() {
            let stretch = rows
                .get(from..*end as usize)
                .ok_or(Damaged("rows of a value are beyond the last"))?;
            if stretch.is_empty() && dense.next().is_none_or(|(at, _)| *at != place) {
                return Err(Damaged("a value has no rows"));
            }
            if !stretch.is_sorted_by(|a, b| a < b) {
                return Err(Damaged("rows are not in order"));
            }
            if stretch.last().is_some_and(|row| *row >= self.rows) {
                return Err(Damaged("a row is beyond the last"));
            }
            from = *end as usize;
        }
        if from != rows.len() || dense.next().is_some() {
            return Err(Damaged("rows belong to no value"));
        }
        Ok(())
    }
}
