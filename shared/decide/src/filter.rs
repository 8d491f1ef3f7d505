//! Whether an item passes a caller's filter.
//!
//! Invariants: on a list a condition means *any element*; a missing (or null) field makes a
//! condition false; numbers compare as numbers, whole or not; strings compare byte by byte; what
//! has different kinds is neither equal nor ordered. `not_in` on a list is thus true where any
//! element is not in it: `{"not":{"genre":{"in":[...]}}}` is how to say *none*.

use skerry_types::filter::TREE_DEPTH_MAX;
use skerry_types::{Attributes, Filter, Test, Value};
use std::cmp::Ordering;

/// Whether `attributes` pass `filter`. A tree nested more than [`TREE_DEPTH_MAX`] deep, which no
/// border lets in, passes nothing.
#[must_use]
pub fn matches(filter: &Filter, attributes: &Attributes) -> bool {
    depth_at_most(filter, TREE_DEPTH_MAX) && passes(filter, attributes)
}

fn depth_at_most(filter: &Filter, left: usize) -> bool {
    match filter {
        Filter::Field { .. } => true,
        _ if left == 0 => false,
        Filter::All(all) => all.iter().all(|one| depth_at_most(one, left - 1)),
        Filter::Any(any) => any.iter().all(|one| depth_at_most(one, left - 1)),
        Filter::Not(inner) => depth_at_most(inner, left - 1),
    }
}

fn passes(filter: &Filter, attributes: &Attributes) -> bool {
    match filter {
        Filter::All(all) => all.iter().all(|one| passes(one, attributes)),
        Filter::Any(any) => any.iter().any(|one| passes(one, attributes)),
        Filter::Not(inner) => !passes(inner, attributes),
        Filter::Field { field, test } => {
            let value = attributes.get(field).filter(|value| **value != Value::Null);
            match (test, value) {
                (Test::Exists(wanted), value) => value.is_some() == *wanted,
                (_, None) => false,
                (test, Some(value)) => value.each().any(|element| holds(test, element)),
            }
        }
    }
}

/// Whether a condition holds for one element.
fn holds(test: &Test, element: &Value) -> bool {
    match test {
        Test::Eq(wanted) => equal(element, wanted),
        Test::In(any) => any.iter().any(|wanted| equal(element, wanted)),
        Test::NotIn(none) => !none.iter().any(|unwanted| equal(element, unwanted)),
        Test::Gt(bound) => compare(element, bound).is_some_and(Ordering::is_gt),
        Test::Gte(bound) => compare(element, bound).is_some_and(Ordering::is_ge),
        Test::Lt(bound) => compare(element, bound).is_some_and(Ordering::is_lt),
        Test::Lte(bound) => compare(element, bound).is_some_and(Ordering::is_le),
        // Decided by the field, before its elements.
        Test::Exists(wanted) => *wanted,
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        _ => compare(a, b).is_some_and(Ordering::is_eq),
    }
}

/// The order of two numbers or two strings; none between others, nor with a NaN.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

#[cfg(test)]
mod tests;
