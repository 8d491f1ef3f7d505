//! The one clock of this crate: monotonic, and tokio's, so that tests can step it.

use skerry_types::Tick;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::Instant;

/// Microseconds since the process first asked.
#[must_use]
pub fn now() -> Tick {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    Tick(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX))
}

pub async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// The outcome, if it comes within `ms`.
pub async fn within<T>(ms: u64, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(ms), work)
        .await
        .ok()
}
