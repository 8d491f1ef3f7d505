//! The one place where this crate reads a clock and draws a number.

use uuid::Uuid;

/// A time and chance, for the names of what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since 1970.
    pub now_ms: u64,
    pub chance: u128,
}

impl Stamp {
    #[must_use]
    pub fn now() -> Self {
        let id = Uuid::now_v7();
        let [a, b, c, d, e, f, ..] = id.into_bytes();
        Self {
            now_ms: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
            chance: id.as_u128(),
        }
    }
}
