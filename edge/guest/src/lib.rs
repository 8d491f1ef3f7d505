//! The edge core as a component of the typed world in wit/.
