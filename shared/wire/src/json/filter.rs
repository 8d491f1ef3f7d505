//! A filter from JSON. The nesting of `and`, `or`, `not` and the number of conditions are bounded
//! here, so that whoever evaluates a filter may recurse.

use super::attributes::scalar;
use super::read::{Mistakes, Path, unknown};
use super::tree::Node;
use super::{FILTER_VALUES_MAX, NAME_BYTES_MAX, codes};
use skerry_types::filter::{CONDITIONS_MAX, DEPTH_MAX};
use skerry_types::{Filter, Test, Value};

const OPERATORS: [&str; 8] = ["eq", "in", "not_in", "gt", "gte", "lt", "lte", "exists"];

/// Reads a filter; `None` for `{}`, which filters nothing, and after a mistake.
pub(super) fn read_filter(
    node: &Node<'_>,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Filter> {
    let mut conditions = 0;
    let filter = group(node, path, 0, &mut conditions, mistakes)?;
    match filter {
        Filter::All(all) if all.is_empty() => None,
        filter => Some(filter),
    }
}

/// One object: all of its entries must hold. `depth` counts the `and`, `or`, `not` around it.
fn group(
    node: &Node<'_>,
    path: &Path<'_>,
    depth: usize,
    conditions: &mut usize,
    mistakes: &mut Mistakes,
) -> Option<Filter> {
    if depth > DEPTH_MAX {
        let detail = || format!("a filter may nest and, or, not {DEPTH_MAX} deep");
        mistakes.note(path, codes::FILTER_TOO_DEEP, detail);
        return None;
    }
    let entries = mistakes.object(node, path)?;
    if entries.is_empty() && depth > 0 {
        mistakes.must(
            path,
            codes::MISSING_FIELD,
            "an object with at least one condition",
        );
    }
    let mut all = Vec::new();
    for (name, node) in entries {
        if mistakes.is_full() {
            return None;
        }
        let path = path.key(name);
        match name.as_ref() {
            "and" => all.extend(groups(node, &path, depth, conditions, mistakes).map(Filter::All)),
            "or" => all.extend(groups(node, &path, depth, conditions, mistakes).map(Filter::Any)),
            "not" => {
                all.extend(
                    group(node, &path, depth + 1, conditions, mistakes)
                        .map(|f| Filter::Not(Box::new(f))),
                );
            }
            field => {
                if mistakes.plain(field, &path, NAME_BYTES_MAX).is_some() {
                    field_tests(field, node, &path, conditions, mistakes, &mut all);
                }
            }
        }
        if *conditions > CONDITIONS_MAX {
            return None;
        }
    }
    if all.len() == 1 {
        all.pop()
    } else {
        Some(Filter::All(all))
    }
}

fn groups(
    node: &Node<'_>,
    path: &Path<'_>,
    depth: usize,
    conditions: &mut usize,
    mistakes: &mut Mistakes,
) -> Option<Vec<Filter>> {
    let list = mistakes.list(node, path, 1..=CONDITIONS_MAX)?;
    let each = list
        .iter()
        .enumerate()
        .map(|(at, node)| group(node, &path.index(at), depth + 1, conditions, mistakes));
    each.collect()
}

/// `{"gte":1990,"lt":2000}`: one condition for each operator.
fn field_tests(
    field: &str,
    node: &Node<'_>,
    path: &Path<'_>,
    conditions: &mut usize,
    mistakes: &mut Mistakes,
    all: &mut Vec<Filter>,
) {
    let Node::Object(tests) = node else {
        mistakes.wrong_type(path, "an object such as {\"eq\": ...}", node);
        return;
    };
    if tests.is_empty() {
        mistakes.must(
            path,
            codes::MISSING_FIELD,
            "an object with at least one operator",
        );
    }
    for (at, (operator, operand)) in tests.iter().enumerate() {
        if mistakes.is_full() {
            return;
        }
        let path = path.key(operator);
        if tests
            .iter()
            .take(at)
            .any(|(earlier, _)| earlier == operator)
        {
            mistakes.note(&path, codes::DUPLICATE_FIELD, || {
                format!("{operator} is given twice")
            });
            return;
        }
        *conditions += 1;
        if *conditions > CONDITIONS_MAX {
            let detail = || format!("a filter has at most {CONDITIONS_MAX} conditions");
            mistakes.note(&path, codes::FILTER_TOO_LARGE, detail);
            return;
        }
        let test = match operator.as_ref() {
            "eq" => scalar(operand, &path, mistakes).map(Test::Eq),
            "gt" => ordered(operand, &path, mistakes).map(Test::Gt),
            "gte" => ordered(operand, &path, mistakes).map(Test::Gte),
            "lt" => ordered(operand, &path, mistakes).map(Test::Lt),
            "lte" => ordered(operand, &path, mistakes).map(Test::Lte),
            "in" => many(operand, &path, mistakes).map(Test::In),
            "not_in" => many(operand, &path, mistakes).map(Test::NotIn),
            "exists" => mistakes.boolean(operand, &path).map(Test::Exists),
            other => {
                mistakes.note(&path, codes::UNKNOWN_FIELD, || {
                    unknown("operator", other, &OPERATORS)
                });
                None
            }
        };
        all.extend(test.map(|test| Filter::Field {
            field: field.into(),
            test,
        }));
    }
}

/// What can be greater or less: a number or a string.
fn ordered(node: &Node<'_>, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Value> {
    if matches!(node, Node::Int(_) | Node::Float(_) | Node::Text(_)) {
        return scalar(node, path, mistakes);
    }
    mistakes.wrong_type(path, "a number or a string", node);
    None
}

fn many(node: &Node<'_>, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Vec<Value>> {
    let list = mistakes.list(node, path, 0..=FILTER_VALUES_MAX)?;
    let mut values = Vec::with_capacity(list.len());
    for (at, node) in list.iter().enumerate() {
        values.push(scalar(node, &path.index(at), mistakes)?);
    }
    Some(values)
}
