//! Every call of our own index that the benchmark makes: what its interface changes, changes here.

use crate::worker::Engine;
use anyhow::bail;
use skerry_vector_index::{Index, Metric};

/// The instructions that the kernels use here.
pub fn kernel_name() -> &'static str {
    "hnsw_rs"
}

#[derive(Default)]
pub struct Ours {
    index: Option<Index>,
}

impl Ours {
    pub fn over(dim: usize, base: &[f32]) -> anyhow::Result<Self> {
        let mut made = Self::default();
        made.build(dim, base)?;
        Ok(made)
    }

    /// Points that no search can reach; none where the index cannot tell.
    pub fn unreachable(&self) -> Option<usize> {
        None
    }

    /// The nearest of the rows that may be shown; `allowed` has them ascending.
    pub fn search_where(
        &mut self,
        _base: &[f32],
        query: &[f32],
        k: usize,
        _ef: usize,
        allowed: &[u32],
    ) -> anyhow::Result<Vec<(u32, f32)>> {
        let Some(index) = &self.index else {
            bail!("not built yet");
        };
        Ok(index.near_where(query, k, &|row| allowed.binary_search(&row).is_ok())?)
    }
}

impl Engine for Ours {
    fn build(&mut self, dim: usize, base: &[f32]) -> anyhow::Result<()> {
        self.index = Some(Index::build(dim, Metric::Cosine, base)?);
        Ok(())
    }

    fn search(
        &mut self,
        _base: &[f32],
        query: &[f32],
        k: usize,
        _ef: usize,
        rows: &mut Vec<u32>,
    ) -> anyhow::Result<()> {
        let Some(index) = &self.index else {
            bail!("not built yet");
        };
        rows.extend(index.near(query, k)?.into_iter().map(|(row, _)| row));
        Ok(())
    }

    fn hot_bytes(&self) -> Option<usize> {
        None
    }
}

/// Rows after churn: those that left, and how the index looks once they were replaced and it was
/// compacted. None while the index cannot delete.
pub fn churned(_dim: usize, _base: &[f32], _gone: &[u32], _fresh: &[f32]) -> Option<Ours> {
    None
}
