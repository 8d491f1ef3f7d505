//! Which values a condition asks for, as ranges of the columns of values.
//!
//! Invariant: a value is in the ranges exactly where `skerry_decide::filter` says that the condition
//! holds for it: whole numbers compare with whole numbers exactly, with others as floats (several
//! whole numbers above 2^53 are then equal to one float); NaN is neither equal nor ordered; strings
//! compare byte by byte; what has different kinds is neither equal nor ordered.

use super::terms::Span;
use skerry_types::Value;
use std::ops::Bound;

/// Below this, whole numbers and floats are the same numbers.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// One after the last key of a column of numbers.
const END: i128 = i64::MAX as i128 + 1;
const START: i128 = i64::MIN as i128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Eq,
    Gt,
    Gte,
    Lt,
    Lte,
}

/// A number as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    Whole(i64),
    /// See [`order`].
    Other(i64),
}

/// The values that a condition asks for.
#[derive(Debug, Default)]
pub struct Wanted {
    null: bool,
    no: bool,
    yes: bool,
    pub whole: Vec<Span<i64>>,
    pub other: Vec<Span<i64>>,
    pub texts: Vec<Span<Box<str>>>,
}

impl Number {
    /// `None` where it is no number, or NaN.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Int(int) => Some(Self::Whole(*int)),
            Value::Float(float) if float.is_nan() => None,
            // -0 is 0 too.
            Value::Float(float) if float.fract() == 0.0 && float.abs() < WHOLE_MAX => {
                Some(Self::Whole(*float as i64))
            }
            Value::Float(float) => Some(Self::Other(order(*float))),
            _ => None,
        }
    }
}

/// A whole number that is ordered as the float is among floats (IEEE 754, 5.10); not for NaN.
pub fn order(float: f64) -> i64 {
    let bits = float.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

impl Wanted {
    pub fn one(op: Op, value: &Value) -> Self {
        let mut wanted = Self::default();
        wanted.add(op, value);
        wanted
    }

    /// What is equal to any of `values`.
    pub fn any(values: &[Value]) -> Self {
        let mut wanted = Self::default();
        values.iter().for_each(|value| wanted.add(Op::Eq, value));
        wanted
    }

    /// Whether null, false, true, and what is equal to nothing are asked for.
    pub fn scalars(&self) -> [bool; 4] {
        [self.null, self.no, self.yes, false]
    }

    fn add(&mut self, op: Op, value: &Value) {
        match value {
            Value::Null => self.null |= op == Op::Eq,
            Value::Bool(false) => self.no |= op == Op::Eq,
            Value::Bool(true) => self.yes |= op == Op::Eq,
            Value::Int(int) => {
                let whole = i128::from(*int);
                self.whole.extend(span(op, whole, whole + 1));
                self.add_other(op, *int as f64);
            }
            Value::Float(float) if float.is_nan() => {}
            Value::Float(float) => {
                let at_least = first(|whole| whole as f64 >= *float);
                let above = first(|whole| whole as f64 > *float);
                self.whole.extend(span(op, at_least, above));
                self.add_other(op, *float);
            }
            Value::Text(text) => self.texts.push(texts(op, text)),
            Value::List(_) => {}
        }
    }

    fn add_other(&mut self, op: Op, float: f64) {
        let at = i128::from(order(float));
        self.other.extend(span(op, at, at + 1));
    }
}

/// The keys that an operator asks for, where `at_least` is the first that is not below the bound and
/// `above` the first above it.
fn span(op: Op, at_least: i128, above: i128) -> Option<Span<i64>> {
    let (from, to) = match op {
        Op::Eq => (at_least, above),
        Op::Gt => (above, END),
        Op::Gte => (at_least, END),
        Op::Lt => (START, at_least),
        Op::Lte => (START, above),
    };
    let (first, last) = (i64::try_from(from).ok()?, i64::try_from(to - 1).ok()?);
    (first <= last).then_some(Span(Bound::Included(first), Bound::Included(last)))
}

/// The first whole number for which `holds`, which holds for all above it; [`END`] where for none.
fn first(holds: impl Fn(i64) -> bool) -> i128 {
    let (mut from, mut to) = (START, END);
    while from < to {
        let middle = from + (to - from) / 2;
        if i64::try_from(middle).is_ok_and(&holds) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    from
}

fn texts(op: Op, text: &str) -> Span<Box<str>> {
    let text: Box<str> = text.into();
    match op {
        Op::Eq => Span::one(text),
        Op::Gt => Span(Bound::Excluded(text), Bound::Unbounded),
        Op::Gte => Span(Bound::Included(text), Bound::Unbounded),
        Op::Lt => Span(Bound::Unbounded, Bound::Excluded(text)),
        Op::Lte => Span(Bound::Unbounded, Bound::Included(text)),
    }
}
