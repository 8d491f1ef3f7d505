//! The one place where the origin reads clocks and draws chance.

use skerry_types::{Millis, Tick};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall and monotonic time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock adapter")]
    pub fn now(&self) -> Millis {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        hastened(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    #[must_use]
    pub fn tick(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
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

/// 32 bytes from the system's generator; `None` where it fails.
#[must_use]
pub fn secret() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// 128 bits for identities: different for each call and process, not for secrets.
#[must_use]
pub fn entropy() -> u128 {
    static SEED: OnceLock<(u64, u64)> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let seed = SEED.get_or_init(|| {
        let bytes = secret().unwrap_or_default();
        let word = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(u64::from(std::process::id()), |word, byte| {
                    word << 8 ^ word >> 56 ^ u64::from(*byte)
                })
        };
        let (low, high) = bytes.split_at(16);
        (word(low), word(high))
    });
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    u128::from(mix(seed.0.wrapping_add(count))) << 64 | u128::from(mix(seed.1 ^ mix(count)))
}

/// The finaliser of SplitMix64.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
