//! Keys and values as stored. Ids hold no control characters, so a zero byte separates the parts of
//! a key without ambiguity; numbers in keys are big endian, in values little endian.

use skerry_types::{ItemId, Surface, TenantId, Uid};
use std::sync::Arc;

/// Rewards are kept in millionths.
pub const REWARD_ONE: f64 = 1e6;
/// First byte of every value: the layout that follows.
const LAYOUT: u8 = 1;

/// Statistics of one arm in one bucket, from one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cell {
    pub exposures: u64,
    /// Sums of rewards and of their squares, in millionths.
    pub rewards_millionths: u64,
    pub squares_millionths: u64,
    /// The writer's sequence number of the last change: a replica takes a cell only if it is newer.
    pub seq: u64,
}

/// A cell with its place: what regions send each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellState {
    pub tenant: TenantId,
    pub surface: Surface,
    pub arm: ItemId,
    pub bucket: u32,
    pub region: Arc<str>,
    pub cell: Cell,
}

/// An exposure that waits for its reward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub surface: Surface,
    pub bucket: u32,
    pub rewarded: bool,
}

impl Cell {
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [
            self.exposures,
            self.rewards_millionths,
            self.squares_millionths,
            self.seq,
        ];
        std::iter::once(LAYOUT)
            .chain(numbers.into_iter().flat_map(u64::to_le_bytes))
            .collect()
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let numbers = bytes.strip_prefix(&[LAYOUT])?;
        if numbers.len() != 32 {
            return None;
        }
        let mut numbers = numbers
            .chunks_exact(8)
            .filter_map(|chunk| chunk.try_into().ok().map(u64::from_le_bytes));
        Some(Self {
            exposures: numbers.next()?,
            rewards_millionths: numbers.next()?,
            squares_millionths: numbers.next()?,
            seq: numbers.next()?,
        })
    }
}

impl CellState {
    /// (tenant, 0, surface, 0, arm, 0, bucket, region)
    pub fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(96);
        for part in [
            self.tenant.as_str(),
            self.surface.as_str(),
            self.arm.as_str(),
        ] {
            key.extend_from_slice(part.as_bytes());
            key.push(0);
        }
        key.extend_from_slice(&self.bucket.to_be_bytes());
        key.extend_from_slice(self.region.as_bytes());
        key
    }

    pub fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let mut parts = key.splitn(4, |byte| *byte == 0);
        let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
        let tenant = TenantId::new(text()?).ok()?;
        let surface = Surface::new(text()?).ok()?;
        let arm = ItemId::new(text()?).ok()?;
        let (bucket, region) = parts.next()?.split_first_chunk::<4>()?;
        let region = Arc::from(std::str::from_utf8(region).ok()?);
        Some(Self {
            tenant,
            surface,
            arm,
            bucket: u32::from_be_bytes(*bucket),
            region,
            cell: Cell::decode(value)?,
        })
    }
}

/// (tenant, 0, decision, arm)
pub fn pending_key(tenant: &TenantId, decision: Uid, arm: &ItemId) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(&decision.0.to_be_bytes());
    key.extend_from_slice(arm.as_str().as_bytes());
    key
}

/// (when it expires, the pending key): a sweep reads these in order of time.
pub fn expiry_key(expires_ms: u64, pending: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + pending.len());
    key.extend_from_slice(&expires_ms.to_be_bytes());
    key.extend_from_slice(pending);
    key
}

impl Pending {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![LAYOUT, u8::from(self.rewarded)];
        out.extend_from_slice(&self.bucket.to_le_bytes());
        out.extend_from_slice(self.surface.as_str().as_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (rewarded, rest) = bytes.strip_prefix(&[LAYOUT])?.split_first()?;
        let (bucket, surface) = rest.split_first_chunk::<4>()?;
        let surface = Surface::new(std::str::from_utf8(surface).ok()?).ok()?;
        Some(Self {
            surface,
            bucket: u32::from_le_bytes(*bucket),
            rewarded: *rewarded == 1,
        })
    }
}
