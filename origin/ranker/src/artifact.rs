//! The model's own file format: a versioned header, tagged sections in fixed order, each with its
//! length, then a SHA-256 of everything before it. Meaning is checked after integrity: a file
//! with a right digest and wrong offsets is refused as well.

use crate::features::FEATURES;
use crate::forest::{Forest, Node, Tree};
use crate::model::{Blends, Followers, Model, Parts, Prior};
use sha2::{Digest, Sha256};
use skerry_decide::score::{Blend, DIM, FoldIn, Vector};
use skerry_types::ItemId;

const MAGIC: [u8; 4] = *b"SKRM";
const VERSION: u16 = 1;
const DIGEST_BYTES: usize = 32;
/// Items of a model, at most.
const ITEMS_MAX: usize = 1 << 28;

/// Why there is no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    #[error("not a model")]
    Magic,
    #[error("model of format {found}, this build reads {VERSION}")]
    Version { found: u16 },
    #[error("model is damaged: its digest does not match")]
    Digest,
    #[error("model has a bad {part}")]
    Part { part: &'static str },
}

impl ModelError {
    /// Stable name for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Magic => "model_magic",
            Self::Version { .. } => "model_version",
            Self::Digest => "model_digest",
            Self::Part { .. } => "model_part",
        }
    }
}

/// Whether the parts fit each other and every value is finite.
pub(crate) fn check(parts: &Parts) -> Result<(), ModelError> {
    let items = parts.ids.len();
    let need = |holds: bool, part: &'static str| {
        if holds {
            Ok(())
        } else {
            Err(ModelError::Part { part })
        }
    };
    need(items <= ITEMS_MAX, "ids")?;
    need(parts.factors.len() == items, "factors")?;
    need(
        parts
            .factors
            .as_flattened()
            .iter()
            .all(|value| value.is_finite()),
        "factors",
    )?;
    need(parts.priors.len() == items, "priors")?;
    let finite = |prior: &Prior| {
        [
            prior.popularity,
            prior.rating,
            prior.trend,
            prior.recency,
            prior.year,
        ]
        .iter()
        .all(|value| value.is_finite())
    };
    need(parts.priors.iter().all(finite), "priors")?;
    let Followers {
        starts,
        rows,
        weights,
    } = &parts.followers;
    need(
        starts.len() == items + 1 && starts.first() == Some(&0),
        "followers",
    )?;
    need(
        starts.last().map(|last| *last as usize) == Some(rows.len()),
        "followers",
    )?;
    need(
        starts
            .iter()
            .zip(starts.iter().skip(1))
            .all(|(from, to)| from <= to),
        "followers",
    )?;
    need(
        rows.len() == weights.len() && rows.iter().all(|row| (*row as usize) < items),
        "followers",
    )?;
    need(
        weights
            .iter()
            .all(|weight| weight.is_finite() && *weight >= 0.0),
        "followers",
    )?;
    let blends = [parts.blends.full, parts.blends.edge];
    let finite = |blend: &Blend| {
        blend.vector.is_finite() && blend.order.is_finite() && blend.prior.is_finite()
    };
    need(blends.iter().all(finite), "blend")?;
    need(parts.forest.features() == FEATURES, "forest")
}

impl Model {
    /// SHA-256 of the model's content.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut digest = [0; DIGEST_BYTES];
        let bytes = self.to_bytes();
        digest.copy_from_slice(&bytes[bytes.len() - DIGEST_BYTES..]);
        digest
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let parts = self.parts();
        let mut out = Writer::default();
        out.0.extend_from_slice(&MAGIC);
        out.0.extend_from_slice(&VERSION.to_le_bytes());
        out.0.extend_from_slice(&parts.number.to_le_bytes());
        out.section(b"IDS ", |out| {
            out.count(parts.ids.len());
            for id in &parts.ids {
                out.count(id.as_str().len());
                out.0.extend_from_slice(id.as_str().as_bytes());
            }
        });
        out.section(b"FACT", |out| out.floats(parts.factors.as_flattened()));
        out.section(b"FOLD", |out| out.floats(parts.fold.rows()));
        out.section(b"FOLL", |out| {
            out.words(&parts.followers.starts);
            out.words(&parts.followers.rows);
            out.floats(&parts.followers.weights);
        });
        out.section(b"PRIO", |out| {
            for prior in &parts.priors {
                out.floats(&[
                    prior.popularity,
                    prior.rating,
                    prior.trend,
                    prior.recency,
                    prior.year,
                ]);
                out.0.extend_from_slice(&prior.genres.to_le_bytes());
            }
        });
        out.section(b"TREE", |out| {
            for blend in [parts.blends.full, parts.blends.edge] {
                out.floats(&[blend.vector, blend.order, blend.prior]);
            }
            out.floats(&[parts.forest.base_weight()]);
            out.count(parts.forest.features());
            out.count(parts.forest.trees().len());
            for tree in parts.forest.trees() {
                out.count(tree.leaves.len());
                out.floats(&tree.leaves);
                for node in &tree.nodes {
                    out.0.extend_from_slice(&[node.feature, node.left_leaves]);
                    out.floats(&[node.threshold]);
                }
            }
        });
        seal(out.0)
    }

    /// # Errors
    /// [`ModelError`] names what is wrong. No bytes make it panic, or allocate beyond a small
    /// multiple of their length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        let mut input = Reader(bytes);
        if input.array() != Some(MAGIC) {
            return Err(ModelError::Magic);
        }
        let found = u16::from_le_bytes(input.array().ok_or(ModelError::Digest)?);
        if found != VERSION {
            return Err(ModelError::Version { found });
        }
        let Some((body, digest)) = bytes.split_last_chunk::<DIGEST_BYTES>() else {
            return Err(ModelError::Digest);
        };
        if Sha256::digest(body).as_slice() != digest {
            return Err(ModelError::Digest);
        }
        let mut input = Reader(body.get(MAGIC.len() + 2..).unwrap_or_default());
        let number = input
            .array()
            .map(u64::from_le_bytes)
            .ok_or(ModelError::Part { part: "header" })?;
        let ids = input.section(b"IDS ", "ids", Reader::ids)?;
        let items = ids.len();
        let factors: Vec<Vector> = input.section(b"FACT", "factors", |section| {
            Some(
                section
                    .floats(items.checked_mul(DIM)?)?
                    .as_chunks()
                    .0
                    .to_vec(),
            )
        })?;
        let fold = input.section(b"FOLD", "fold-in matrix", |section| {
            FoldIn::new(&section.floats(DIM * DIM)?)
        })?;
        let followers = input.section(b"FOLL", "followers", |section| section.followers(items))?;
        let priors = input.section(b"PRIO", "priors", |section| {
            (0..items).map(|_| section.prior()).collect()
        })?;
        let (blends, forest) = input.section(b"TREE", "forest", Reader::forest)?;
        if !input.0.is_empty() {
            return Err(ModelError::Part { part: "end" });
        }
        Self::new(Parts {
            number,
            ids,
            factors,
            fold,
            followers,
            priors,
            blends,
            forest,
        })
    }
}

/// Appends the digest.
pub(crate) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn section(&mut self, tag: &[u8; 4], fill: impl FnOnce(&mut Self)) {
        self.0.extend_from_slice(tag);
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 8]);
        fill(self);
        let length = (self.0.len() - at - 8) as u64;
        self.0[at..at + 8].copy_from_slice(&length.to_le_bytes());
    }

    #[expect(clippy::cast_possible_truncation, reason = "bounded by ITEMS_MAX")]
    fn count(&mut self, count: usize) {
        self.0.extend_from_slice(&(count as u32).to_le_bytes());
    }

    fn floats(&mut self, values: &[f32]) {
        values
            .iter()
            .for_each(|value| self.0.extend_from_slice(&value.to_le_bytes()));
    }

    fn words(&mut self, values: &[u32]) {
        values
            .iter()
            .for_each(|value| self.0.extend_from_slice(&value.to_le_bytes()));
    }
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

    fn count(&mut self) -> Option<usize> {
        self.array().map(|bytes| u32::from_le_bytes(bytes) as usize)
    }

    fn floats(&mut self, count: usize) -> Option<Vec<f32>> {
        let bytes = self.take(count.checked_mul(4)?)?;
        Some(
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
        )
    }

    fn float(&mut self) -> Option<f32> {
        self.array().map(f32::from_le_bytes)
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

    /// Reads one section whole: a rest is an error.
    fn section<T>(
        &mut self,
        tag: &[u8; 4],
        part: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    ) -> Result<T, ModelError> {
        let bad = ModelError::Part { part };
        if self.array() != Some(*tag) {
            return Err(bad);
        }
        let length = self
            .array()
            .map(u64::from_le_bytes)
            .and_then(|length| usize::try_from(length).ok());
        let Some(bytes) = length.and_then(|length| self.take(length)) else {
            return Err(bad);
        };
        let mut section = Reader(bytes);
        match read(&mut section) {
            Some(value) if section.0.is_empty() => Ok(value),
            _ => Err(bad),
        }
    }

    fn ids(&mut self) -> Option<Vec<ItemId>> {
        let count = self.count()?;
        // An id takes at least five bytes: no count makes this allocate beyond the input.
        let mut ids = Vec::with_capacity(count.min(self.0.len() / 5));
        for _ in 0..count {
            let length = self.count()?;
            ids.push(ItemId::new(std::str::from_utf8(self.take(length)?).ok()?).ok()?);
        }
        Some(ids)
    }

    fn followers(&mut self, items: usize) -> Option<Followers> {
        let starts = self.words(items.checked_add(1)?)?;
        let links = *starts.last()? as usize;
        Some(Followers {
            starts,
            rows: self.words(links)?,
            weights: self.floats(links)?,
        })
    }

    fn prior(&mut self) -> Option<Prior> {
        Some(Prior {
            popularity: self.float()?,
            rating: self.float()?,
            trend: self.float()?,
            recency: self.float()?,
            year: self.float()?,
            genres: self.array().map(u64::from_le_bytes)?,
        })
    }

    fn blend(&mut self) -> Option<Blend> {
        Some(Blend {
            vector: self.float()?,
            order: self.float()?,
            prior: self.float()?,
        })
    }

    fn forest(&mut self) -> Option<(Blends, Forest)> {
        let blends = Blends {
            full: self.blend()?,
            edge: self.blend()?,
        };
        let base_weight = self.float()?;
        let features = self.count()?;
        let count = self.count()?;
        let mut trees = Vec::with_capacity(count.min(self.0.len() / 8));
        for _ in 0..count {
            let leaves = self.count()?;
            let leaves = self.floats(leaves)?;
            let nodes = (1..leaves.len()).map(|_| {
                let [feature, left_leaves] = self.array()?;
                Some(Node {
                    feature,
                    left_leaves,
                    threshold: self.float()?,
                })
            });
            trees.push(Tree {
                nodes: nodes.collect::<Option<_>>()?,
                leaves,
            });
        }
        Some((blends, Forest::new(trees, features, base_weight)?))
    }
}
