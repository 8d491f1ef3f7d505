//! All cards by place.

use skerry_origin_core::{Card, Gate, Place};
use std::sync::Arc;

/// Cards of one chunk of a [`Table`].
const CHUNK: usize = 512;

/// All cards by place: a snapshot that questions read without a lock. A change copies one chunk.
#[derive(Debug, Clone, Default)]
pub struct Table(Vec<Arc<Vec<Slot>>>);

/// A card with its gate beside it, so that the rules follow no pointer for most candidates.
type Slot = Option<(Gate, Arc<Card>)>;

impl Table {
    pub fn at(&self, place: Place) -> Option<&Card> {
        self.slot(place).map(|(_, card)| &**card)
    }

    pub fn gate(&self, place: Place) -> Option<Gate> {
        self.slot(place).map(|(gate, _)| *gate)
    }

    fn slot(&self, place: Place) -> Option<&(Gate, Arc<Card>)> {
        let place = place.0 as usize;
        self.0.get(place / CHUNK)?.get(place % CHUNK)?.as_ref()
    }

    pub(super) fn set(&mut self, place: Place, card: Option<Arc<Card>>) {
        let place = place.0 as usize;
        while self.0.len() <= place / CHUNK {
            self.0.push(Arc::new(vec![None; CHUNK]));
        }
        let chunk = self.0.get_mut(place / CHUNK).map(Arc::make_mut);
        if let Some(slot) = chunk.and_then(|chunk| chunk.get_mut(place % CHUNK)) {
            *slot = card.map(|card| (card.gate(), card));
        }
    }
}
