//! The filter that a caller may put on items. Evaluated in `skerry-decide`.
//!
//! On wires a filter is a flat list in prefix order, and its bounds are checked when it is built
//! again: no bytes of a peer can make a decoder or an evaluation recurse deeper than they say.

use crate::value::Value;
use serde::{Deserialize, Serialize};

/// Conditions in one filter, at most.
pub const CONDITIONS_MAX: usize = 32;
/// Nesting of `and`, `or`, `not`, at most.
pub const DEPTH_MAX: usize = 8;
/// Nesting of a [`Filter`] tree, at most: each `and` or `or` may hold an object with several
/// entries, which is an [`Filter::All`] of its own.
pub const TREE_DEPTH_MAX: usize = 2 * DEPTH_MAX + 2;

/// A filter over item attributes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Flat", try_from = "Flat")]
pub enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Field { field: Box<str>, test: Test },
}

/// A condition on one field. On a list it means *any element*; a missing field makes it false
/// (`Exists(false)` aside).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Test {
    Eq(Value),
    In(Vec<Value>),
    NotIn(Vec<Value>),
    Gt(Value),
    Gte(Value),
    Lt(Value),
    Lte(Value),
    Exists(bool),
}

/// A filter in prefix order.
#[derive(Serialize, Deserialize)]
struct Flat(Vec<Op>);

#[derive(Serialize, Deserialize)]
enum Op {
    /// The number of filters that follow and belong to it.
    All(u32),
    Any(u32),
    Not,
    Field {
        field: Box<str>,
        test: Test,
    },
}

impl From<Filter> for Flat {
    fn from(filter: Filter) -> Self {
        fn push(filter: Filter, ops: &mut Vec<Op>) {
            let count = |list: &Vec<Filter>| u32::try_from(list.len()).unwrap_or(u32::MAX);
            match filter {
                Filter::All(list) => {
                    ops.push(Op::All(count(&list)));
                    list.into_iter().for_each(|filter| push(filter, ops));
                }
                Filter::Any(list) => {
                    ops.push(Op::Any(count(&list)));
                    list.into_iter().for_each(|filter| push(filter, ops));
                }
                Filter::Not(inner) => {
                    ops.push(Op::Not);
                    push(*inner, ops);
                }
                Filter::Field { field, test } => ops.push(Op::Field { field, test }),
            }
        }
        let mut ops = Vec::new();
        push(filter, &mut ops);
        Self(ops)
    }
}

impl TryFrom<Flat> for Filter {
    type Error = &'static str;

    fn try_from(flat: Flat) -> Result<Self, Self::Error> {
        fn list(
            count: u32,
            ops: &mut dyn Iterator<Item = Op>,
            depth: usize,
        ) -> Result<Vec<Filter>, &'static str> {
            (0..count).map(|_| pull(ops, depth + 1)).collect()
        }
        fn pull(ops: &mut dyn Iterator<Item = Op>, depth: usize) -> Result<Filter, &'static str> {
            if depth > TREE_DEPTH_MAX {
                return Err("the filter is nested too deeply");
            }
            Ok(match ops.next().ok_or("the filter is cut off")? {
                Op::All(count) => Filter::All(list(count, ops, depth)?),
                Op::Any(count) => Filter::Any(list(count, ops, depth)?),
                Op::Not => Filter::Not(Box::new(pull(ops, depth + 1)?)),
                Op::Field { field, test } => Filter::Field { field, test },
            })
        }
        let conditions = flat
            .0
            .iter()
            .filter(|op| matches!(op, Op::Field { .. }))
            .count();
        if conditions > CONDITIONS_MAX {
            return Err("the filter has too many conditions");
        }
        let mut ops = flat.0.into_iter();
        let filter = pull(&mut ops, 0)?;
        if ops.next().is_some() {
            return Err("something follows the filter");
        }
        Ok(filter)
    }
}
