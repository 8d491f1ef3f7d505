//! The PoP's clocks and its source of chance: the one place where they are read.

use rustls::crypto::SecureRandom;
use skerry_types::{Millis, Tick};
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A monotonic clock from when the PoP was built, and the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    #[must_use]
    pub fn tick(&self) -> Tick {
        Tick(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the adapter that reads the wall clock"
    )]
    pub fn now_ms() -> Millis {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        hastened(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// `SKERRY_TEST_CLOCK=BASE_MS:SPEED`, heeded with `SKERRY_TEST=1` only: the wall clock runs SPEED
/// times as fast since BASE_MS, so that a day can be replayed in a minute. Budgets do not.
fn hastened(real_ms: Millis) -> Millis {
    static CLOCK: OnceLock<Option<(Millis, u64)>> = OnceLock::new();
    let clock = CLOCK.get_or_init(|| {
        if std::env::var("SKERRY_TEST").ok()? != "1" {
            return None;
        }
        let text = std::env::var("SKERRY_TEST_CLOCK").ok()?;
        let (base, speed) = text.split_once(':')?;
        Some((base.parse().ok()?, speed.parse().ok()?))
    });
    match *clock {
        Some((base, speed)) => {
            base.saturating_add(real_ms.saturating_sub(base).saturating_mul(speed))
        }
        None => real_ms,
    }
}

/// Random bytes from the crypto provider: keys, and seeds of [`Entropy`].
pub fn fill_random(bytes: &mut [u8]) {
    let provider = rustls::crypto::ring::default_provider();
    if SecureRandom::fill(provider.secure_random, bytes).is_err() {
        // Without the system's source nothing here is secret, but requests still differ.
        let now = Clock::now_ms().to_le_bytes();
        bytes
            .iter_mut()
            .zip(now.iter().cycle())
            .for_each(|(byte, seed)| *byte = *seed);
    }
}

/// 128 bits for each request: request ids and the seeds of draws. A thread's own counter under a
/// secret key, so that no request waits for the system's source.
#[derive(Debug)]
pub struct Entropy {
    key: [u8; 16],
    count: u64,
}

impl Entropy {
    #[must_use]
    pub fn new() -> Self {
        let mut key = [0; 16];
        fill_random(&mut key);
        Self { key, count: 0 }
    }

    pub fn draw(&mut self) -> (u64, u64) {
        self.count += 1;
        let mut input = [0; 24];
        let (key, count) = input.split_at_mut(16);
        key.copy_from_slice(&self.key);
        count.copy_from_slice(&self.count.to_le_bytes());
        let hash = xxhash_rust::xxh3::xxh3_128(&input);
        ((hash >> 64) as u64, hash as u64)
    }
}
