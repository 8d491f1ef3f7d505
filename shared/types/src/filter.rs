//! The filter that a caller may put on items. Evaluated in `skerry-decide`.

use crate::value::Value;
use serde::{Deserialize, Serialize};

/// Conditions in one filter, at most.
pub const CONDITIONS_MAX: usize = 32;
/// Nesting of `and`, `or`, `not`, at most.
pub const DEPTH_MAX: usize = 8;

/// A filter over item attributes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
