//! The payload index of one segment: which rows pass a filter.
//!
//! For each field that a filter may name it keeps the rows of each distinct value, and answers a
//! filter with a bitmap of rows. Invariants: a row is in the answer exactly where
//! `skerry_decide::filter::matches` holds for its payload; no filter and no stored bytes make it
//! panic. It keeps no payloads: it can say who passes, not why.
//!
//! How the rules of that filter are kept here: whole numbers and others lie in two columns, for a
//! whole number is compared with a whole one exactly and with another as floats. A float that is a
//! whole number below 2^53 is kept as one: nothing tells them apart. What is equal to nothing (NaN)
//! is *odd*, and passes only `not_in`. Rows with several distinct values are known, for `not_in`.

mod bytes;
mod terms;
mod wanted;

use crate::{IndexError, ROWS_MAX};
pub use bytes::Damaged;
use roaring::{MultiOps, RoaringBitmap};
use skerry_types::filter::TREE_DEPTH_MAX;
use skerry_types::{Attributes, Filter, Test, Value};
use terms::{Numbers, Terms, Texts, Union, all, bitmap_bytes, bitmap_of};
use wanted::{Number, Op, Wanted};

/// Which rows of a segment pass a filter. Rows are dense, from 0.
pub struct PayloadIndex {
    /// In ascending order of their names, each once.
    fields: Vec<(Box<str>, Field)>,
    rows: u32,
}

/// The new row of each row; none where it is gone.
pub type NewRow<'a> = dyn Fn(u32) -> Option<u32> + 'a;

/// An index whose rows go into another.
pub type Moved<'a> = (&'a PayloadIndex, &'a NewRow<'a>);

type MovedField<'a> = (&'a Field, &'a NewRow<'a>);

#[derive(Default)]
struct Field {
    marks: Marks,
    whole: Terms<Numbers>,
    /// Finite and infinite numbers that are not in `whole`, as [`wanted::order`] has them.
    other: Terms<Numbers>,
    texts: Terms<Texts>,
}

/// Rows by what their value is.
#[derive(Debug, Default, Clone, PartialEq)]
struct Marks {
    /// A value that is not null.
    exists: RoaringBitmap,
    /// A list of nothing.
    empty: RoaringBitmap,
    /// A list with at least two distinct elements.
    several: RoaringBitmap,
    /// An element is null.
    null: RoaringBitmap,
    no: RoaringBitmap,
    yes: RoaringBitmap,
    /// An element is equal to nothing.
    odd: RoaringBitmap,
}

impl PayloadIndex {
    /// Of no rows yet.
    #[must_use]
    pub fn new(fields: &[Box<str>]) -> Self {
        let mut names = fields.to_vec();
        names.sort_unstable();
        names.dedup();
        let fields = names.into_iter().map(|name| (name, Field::default()));
        Self {
            fields: fields.collect(),
            rows: 0,
        }
    }

    /// Adds the payload of a row, which must not be below [`PayloadIndex::rows`], nor reach
    /// [`ROWS_MAX`]: such a one is not taken. Rows that are left out have no payload.
    pub fn add(&mut self, row: u32, payload: &Attributes) {
        let is_next = (self.rows..ROWS_MAX as u32).contains(&row);
        debug_assert!(is_next, "row {row} after {} rows", self.rows);
        if !is_next {
            return;
        }
        self.rows = row + 1;
        for (name, field) in &mut self.fields {
            if let Some(value) = payload.get(name)
                && *value != Value::Null
            {
                field.add(row, value);
            }
        }
    }

    #[must_use]
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Bytes of memory, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let fields = self.fields.iter();
        fields.map(|(name, field)| name.len() + field.bytes()).sum()
    }

    /// The rows whose payload passes `filter`. A tree nested more than [`TREE_DEPTH_MAX`] deep passes
    /// nothing; a field that was not declared is an error, wherever in the tree it is.
    pub fn matching(&self, filter: &Filter) -> Result<RoaringBitmap, IndexError> {
        if !depth_at_most(filter, TREE_DEPTH_MAX) {
            return Ok(RoaringBitmap::new());
        }
        self.check_fields(filter)?;
        Ok(self.passing(filter))
    }

    /// The index of a segment of `rows` rows, at most [`ROWS_MAX`], that is made of others, without their payloads. Each new
    /// row must come from one old row at most.
    #[must_use]
    pub fn merged(fields: &[Box<str>], rows: u32, parts: &[Moved<'_>]) -> Self {
        let mut merged = Self::new(fields);
        let rows = rows.min(ROWS_MAX as u32);
        merged.rows = rows;
        let kept: Vec<_> = parts
            .iter()
            .map(|(_, map)| move |row| map(row).filter(|row| *row < rows))
            .collect();
        for (name, field) in &mut merged.fields {
            let parts: Vec<MovedField<'_>> = parts
                .iter()
                .zip(&kept)
                .filter_map(|((part, _), map)| Some((part.field(name)?, map as &NewRow<'_>)))
                .collect();
            *field = Field::merged(&parts);
        }
        merged
    }

    /// This index with other row numbers, for a segment of `rows` rows.
    #[must_use]
    pub fn renumber(&self, rows: u32, map: &NewRow<'_>) -> Self {
        let fields: Vec<Box<str>> = self.fields.iter().map(|(name, _)| name.clone()).collect();
        Self::merged(&fields, rows, &[(self, map)])
    }

    fn field(&self, name: &str) -> Option<&Field> {
        let place = self.fields.binary_search_by(|(at, _)| (**at).cmp(name));
        self.fields.get(place.ok()?).map(|(_, field)| field)
    }

    fn check_fields(&self, filter: &Filter) -> Result<(), IndexError> {
        match filter {
            Filter::All(list) | Filter::Any(list) => {
                list.iter().try_for_each(|one| self.check_fields(one))
            }
            Filter::Not(inner) => self.check_fields(inner),
            Filter::Field { field, .. } if self.field(field).is_some() => Ok(()),
            Filter::Field { field, .. } => {
                let names: Vec<&str> = self.fields.iter().map(|(name, _)| &**name).collect();
                let known = if names.is_empty() {
                    "none".into()
                } else {
                    names.join(", ").into()
                };
                Err(IndexError::UnknownField {
                    field: field.clone(),
                    known,
                })
            }
        }
    }

    fn passing(&self, filter: &Filter) -> RoaringBitmap {
        match filter {
            Filter::All(list) => self.passing_all(list),
            Filter::Any(list) => list.iter().map(|one| self.passing(one)).union(),
            Filter::Not(inner) => self.all() - self.passing(inner),
            Filter::Field { field, test } => match self.field(field) {
                Some(field) => field.passing(test, self.rows),
                None => RoaringBitmap::new(),
            },
        }
    }

    fn passing_all(&self, list: &[Filter]) -> RoaringBitmap {
        // Negations last: what they take away is less work than what they leave.
        let (negated, plain): (Vec<&Filter>, Vec<&Filter>) = list
            .iter()
            .partition(|filter| matches!(filter, Filter::Not(_)));
        let mut rows: Option<RoaringBitmap> = None;
        for filter in plain {
            let passing = self.passing(filter);
            let both = match rows {
                None => passing,
                Some(rows) => rows & passing,
            };
            if both.is_empty() {
                return both;
            }
            rows = Some(both);
        }
        let mut rows = rows.unwrap_or_else(|| self.all());
        for filter in negated {
            if let Filter::Not(inner) = filter {
                rows -= self.passing(inner);
            }
        }
        rows
    }

    fn all(&self) -> RoaringBitmap {
        all(self.rows)
    }
}

impl Field {
    fn add(&mut self, row: u32, value: &Value) {
        let mut distinct = 0;
        for element in value.each() {
            let new = match element {
                Value::Null => self.marks.null.insert(row),
                Value::Bool(false) => self.marks.no.insert(row),
                Value::Bool(true) => self.marks.yes.insert(row),
                Value::Text(text) => self.texts.add(text, row),
                Value::Int(_) | Value::Float(_) => match Number::of(element) {
                    Some(Number::Whole(int)) => self.whole.add(&int, row),
                    Some(Number::Other(order)) => self.other.add(&order, row),
                    None => self.marks.odd.insert(row),
                },
                Value::List(_) => self.marks.odd.insert(row),
            };
            distinct += usize::from(new);
        }
        self.marks.exists.insert(row);
        match distinct {
            0 => self.marks.empty.insert(row),
            1 => false,
            _ => self.marks.several.insert(row),
        };
        self.whole.settle();
        self.other.settle();
        self.texts.settle();
    }

    fn passing(&self, test: &Test, rows: u32) -> RoaringBitmap {
        match test {
            Test::Exists(true) => self.marks.exists.clone(),
            Test::Exists(false) => all(rows) - &self.marks.exists,
            Test::Eq(value) => self.within(&Wanted::one(Op::Eq, value), rows),
            Test::In(values) => self.within(&Wanted::any(values), rows),
            Test::NotIn(values) => self.not_in(&Wanted::any(values), rows),
            Test::Gt(value) => self.within(&Wanted::one(Op::Gt, value), rows),
            Test::Gte(value) => self.within(&Wanted::one(Op::Gte, value), rows),
            Test::Lt(value) => self.within(&Wanted::one(Op::Lt, value), rows),
            Test::Lte(value) => self.within(&Wanted::one(Op::Lte, value), rows),
        }
    }

    /// Rows with an element that is wanted.
    fn within(&self, wanted: &Wanted, rows: u32) -> RoaringBitmap {
        let mut union = Union::new(rows);
        for (mark, is_wanted) in self.marks.scalars().into_iter().zip(wanted.scalars()) {
            if is_wanted {
                union.add(mark);
            }
        }
        self.whole.within(&wanted.whole, &mut union);
        self.other.within(&wanted.other, &mut union);
        self.texts.within(&wanted.texts, &mut union);
        union.into_bitmap()
    }

    /// Rows with an element that is not `unwanted`. All that have elements and none of the unwanted;
    /// of those with an unwanted one only such as have several can have another.
    fn not_in(&self, unwanted: &Wanted, rows: u32) -> RoaringBitmap {
        let touched = self.within(unwanted, rows);
        let in_question = &touched & &self.marks.several;
        let mut passing = &self.marks.exists - &self.marks.empty;
        passing -= touched;
        if in_question.is_empty() {
            return passing;
        }
        let mut union = Union::new(rows);
        for (mark, is_unwanted) in self.marks.scalars().into_iter().zip(unwanted.scalars()) {
            if !is_unwanted {
                union.add(mark);
            }
        }
        self.whole.outside(&unwanted.whole, &mut union);
        self.other.outside(&unwanted.other, &mut union);
        self.texts.outside(&unwanted.texts, &mut union);
        passing | (in_question & union.into_bitmap())
    }

    fn merged(parts: &[MovedField<'_>]) -> Self {
        let mut merged = Self::default();
        for (number, mark) in merged.marks.list_mut().into_iter().enumerate() {
            let mut rows: Vec<u32> = Vec::new();
            for (part, map) in parts {
                let old = part.marks.list().into_iter().nth(number).into_iter();
                rows.extend(old.flatten().filter_map(map));
            }
            rows.sort_unstable();
            rows.dedup();
            *mark = bitmap_of(&rows);
        }
        fn of<'a, C: terms::Column + 'a>(
            parts: &'a [MovedField<'a>],
            terms: impl Fn(&'a Field) -> &'a Terms<C>,
        ) -> Terms<C> {
            let parts: Vec<_> = parts
                .iter()
                .map(|(part, map)| (terms(part), *map))
                .collect();
            Terms::merged(&parts)
        }
        merged.whole = of(parts, |field| &field.whole);
        merged.other = of(parts, |field| &field.other);
        merged.texts = of(parts, |field| &field.texts);
        merged
    }

    fn bytes(&self) -> usize {
        let marks = self.marks.list().into_iter().map(bitmap_bytes);
        marks.sum::<usize>() + self.whole.bytes() + self.other.bytes() + self.texts.bytes()
    }
}

impl Marks {
    /// In the order in which they are stored.
    fn list(&self) -> [&RoaringBitmap; 7] {
        let [null, no, yes, odd] = self.scalars();
        [&self.exists, &self.empty, &self.several, null, no, yes, odd]
    }

    fn list_mut(&mut self) -> [&mut RoaringBitmap; 7] {
        [
            &mut self.exists,
            &mut self.empty,
            &mut self.several,
            &mut self.null,
            &mut self.no,
            &mut self.yes,
            &mut self.odd,
        ]
    }

    /// In the order of [`Wanted::scalars`].
    fn scalars(&self) -> [&RoaringBitmap; 4] {
        [&self.null, &self.no, &self.yes, &self.odd]
    }
}

/// As the evaluation of one payload has it: what is nested deeper passes nothing, without a look.
fn depth_at_most(filter: &Filter, left: usize) -> bool {
    match filter {
        Filter::Field { .. } => true,
        _ if left == 0 => false,
        Filter::All(list) | Filter::Any(list) => {
            list.iter().all(|one| depth_at_most(one, left - 1))
        }
        Filter::Not(inner) => depth_at_most(inner, left - 1),
    }
}

#[cfg(test)]
mod tests;
