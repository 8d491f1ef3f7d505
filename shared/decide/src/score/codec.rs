//! Bytes of an [`EdgePool`]: a versioned header, then flat little-endian arrays. Decoding checks
//! meaning (lengths, finite floats, ranges); integrity of the transfer is the push's SHA-256.

use super::foldin::{DIM, FoldIn};
use super::pool::{Blend, EdgePool, FOLLOWERS_MAX, ROWS_MAX};

const MAGIC: [u8; 4] = *b"SKPL";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 28;

/// Why bytes are not a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("not an item pool")]
    Magic,
    #[error("item pool of format {found}, this build reads {VERSION}")]
    Version { found: u16 },
    #[error("item pool is {found} bytes long, its header says {expected}")]
    Length { found: usize, expected: usize },
    #[error("item pool has a bad {field}")]
    Field { field: &'static str },
}

impl PoolError {
    /// Stable name for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Magic => "pool_magic",
            Self::Version { .. } => "pool_version",
            Self::Length { .. } => "pool_length",
            Self::Field { .. } => "pool_field",
        }
    }
}

impl EdgePool {
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "ROWS_MAX * FOLLOWERS_MAX fits 32 bits"
    )]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes_of(self.len(), self.followers.len()));
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(DIM as u16).to_le_bytes());
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.followers.len() as u32).to_le_bytes());
        for floats in [
            &[self.blend.vector, self.blend.order, self.blend.prior][..],
            self.fold.rows(),
            &self.scales,
            &self.priors,
            &self.strongest,
        ] {
            floats
                .iter()
                .for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
        }
        self.starts
            .iter()
            .for_each(|start| out.extend_from_slice(&start.to_le_bytes()));
        self.followers
            .iter()
            .for_each(|row| out.extend_from_slice(&row.to_le_bytes()));
        out.extend_from_slice(&self.shares);
        out.extend(self.vectors.iter().map(|value| value.to_le_bytes()[0]));
        out
    }

    /// # Errors
    /// [`PoolError`] names what is wrong; no bytes make it panic or allocate beyond their length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PoolError> {
        let mut input = Reader(bytes);
        if input.array::<4>() != Some(MAGIC) {
            return Err(PoolError::Magic);
        }
        let short = || PoolError::Length {
            found: bytes.len(),
            expected: HEADER_BYTES,
        };
        let found = u16::from_le_bytes(input.array().ok_or_else(short)?);
        if found != VERSION {
            return Err(PoolError::Version { found });
        }
        let dim = u16::from_le_bytes(input.array().ok_or_else(short)?);
        let rows = u32::from_le_bytes(input.array().ok_or_else(short)?) as usize;
        let links = u32::from_le_bytes(input.array().ok_or_else(short)?) as usize;
        if usize::from(dim) != DIM {
            return Err(PoolError::Field { field: "dimension" });
        }
        if rows > ROWS_MAX || links > rows * FOLLOWERS_MAX {
            return Err(PoolError::Field { field: "count" });
        }
        let expected = bytes_of(rows, links);
        if bytes.len() != expected {
            return Err(PoolError::Length {
                found: bytes.len(),
                expected,
            });
        }
        let mut floats = |count, field| input.floats(count).ok_or(PoolError::Field { field });
        let blend = floats(3, "blend")?;
        let shared = floats(DIM * DIM, "fold-in matrix")?;
        let scales = floats(rows, "scale")?;
        let priors = floats(rows, "prior")?;
        let strongest = floats(rows, "follower weight")?;
        let [vector, order, prior] = blend[..] else {
            return Err(PoolError::Field { field: "blend" });
        };
        let fold = FoldIn::new(&shared).ok_or(PoolError::Field {
            field: "fold-in matrix",
        })?;
        if scales.iter().chain(&strongest).any(|value| *value < 0.0) {
            return Err(PoolError::Field { field: "scale" });
        }
        let starts = input.words(rows + 1).ok_or(PoolError::Field {
            field: "follower start",
        })?;
        let ends_meet =
            starts.first() == Some(&0) && starts.last().map(|last| *last as usize) == Some(links);
        let steps = starts
            .iter()
            .zip(starts.iter().skip(1))
            .map(|(from, to)| to.checked_sub(*from));
        if !ends_meet
            || !steps
                .into_iter()
                .all(|step| step.is_some_and(|step| step as usize <= FOLLOWERS_MAX))
        {
            return Err(PoolError::Field {
                field: "follower start",
            });
        }
        let followers = input
            .shorts(links)
            .ok_or(PoolError::Field { field: "follower" })?;
        if followers.iter().any(|row| usize::from(*row) >= rows) {
            return Err(PoolError::Field { field: "follower" });
        }
        let shares = input
            .take(links)
            .ok_or(PoolError::Field {
                field: "follower share",
            })?
            .to_vec();
        let vectors = input
            .take(rows * DIM)
            .ok_or(PoolError::Field { field: "vector" })?;
        let vectors = vectors
            .iter()
            .map(|byte| i8::from_le_bytes([*byte]))
            .collect();
        let blend = Blend {
            vector,
            order,
            prior,
        };
        Ok(Self {
            fold,
            blend,
            vectors,
            scales,
            priors,
            starts,
            followers,
            shares,
            strongest,
        })
    }
}

fn bytes_of(rows: usize, links: usize) -> usize {
    HEADER_BYTES + DIM * DIM * 4 + rows * (DIM + 12) + (rows + 1) * 4 + links * 3
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// `None` where one is not finite, too.
    fn floats(&mut self, count: usize) -> Option<Vec<f32>> {
        let bytes = self.take(count.checked_mul(4)?)?;
        let floats: Vec<f32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        floats
            .iter()
            .all(|value| value.is_finite())
            .then_some(floats)
    }

    fn words(&mut self, count: usize) -> Option<Vec<u32>> {
        let bytes = self.take(count.checked_mul(4)?)?;
        Some(
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| u32::from_le_bytes(*bytes))
                .collect(),
        )
    }

    fn shorts(&mut self, count: usize) -> Option<Vec<u16>> {
        let bytes = self.take(count.checked_mul(2)?)?;
        Some(
            bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| u16::from_le_bytes(*bytes))
                .collect(),
        )
    }
}
