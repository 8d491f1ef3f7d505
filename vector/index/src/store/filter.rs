//! Which rows pass a filter. The one place to put a payload index in.

use super::error::StoreError;
use super::sealed::Sealed;
use crate::{IndexError, Spec};
use roaring::RoaringBitmap;
use skerry_decide::filter::matches;
use skerry_types::filter::TREE_DEPTH_MAX;
use skerry_types::{Attributes, Filter};

/// Collects the payloads of a segment that is built, in the order of the rows.
pub struct IndexBuilder {}

impl IndexBuilder {
    pub fn new() -> Self {
        Self {}
    }

    pub fn add(&mut self, _row: u32, _payload: &Attributes) {}

    /// The bytes of section `payload index`; none are no section.
    pub fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }
}

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

/// The rows of a sealed segment that pass, dead ones too.
pub fn matching(sealed: &Sealed, filter: &Filter) -> Result<RoaringBitmap, StoreError> {
    let mut rows = RoaringBitmap::new();
    for row in 0..sealed.rows() as u32 {
        if passes(filter, &sealed.payload(row)?) {
            rows.insert(row);
        }
    }
    Ok(rows)
}

/// Whether one payload passes.
pub fn passes(filter: &Filter, payload: &Attributes) -> bool {
    matches(filter, payload)
}
