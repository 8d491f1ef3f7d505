//! Filters that name what a collection does not have, and single payloads.

use crate::{IndexError, Spec};
use skerry_decide::filter::matches;
use skerry_types::filter::TREE_DEPTH_MAX;
use skerry_types::{Attributes, Filter};

/// Refuses a filter that names a field which the collection does not have.
pub fn check(spec: &Spec, filter: &Filter) -> Result<(), IndexError> {
    fn walk(spec: &Spec, filter: &Filter, left: usize) -> Result<(), IndexError> {
        match filter {
            // Deeper than any border lets in: it passes nothing, whatever it names.
            _ if left == 0 => Ok(()),
            Filter::All(all) | Filter::Any(all) => {
                all.iter().try_for_each(|one| walk(spec, one, left - 1))
            }
            Filter::Not(inner) => walk(spec, inner, left - 1),
            Filter::Field { field, .. } if spec.fields.contains(field) => Ok(()),
            Filter::Field { field, .. } => Err(IndexError::UnknownField {
                field: field.clone(),
                known: if spec.fields.is_empty() {
                    "none".into()
                } else {
                    spec.fields.join(", ").into()
                },
            }),
        }
    }
    walk(spec, filter, TREE_DEPTH_MAX + 1)
}

/// Whether one payload passes.
pub fn passes(filter: &Filter, payload: &Attributes) -> bool {
    matches(filter, payload)
}
