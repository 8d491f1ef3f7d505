//! The data sets in the cache folder, as `data/make.py` writes them.

use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};

pub struct DataSet {
    pub name: &'static str,
    pub dim: usize,
    pub base_path: PathBuf,
    pub queries_path: PathBuf,
    pub base: Vec<f32>,
    pub queries: Vec<f32>,
    /// Rows of the exact nearest of each query, nearest first.
    pub truth: Vec<u32>,
    pub nearest: usize,
}

impl DataSet {
    pub fn read(folder: &Path, name: &'static str) -> anyhow::Result<Self> {
        let path = |end: &str| folder.join(format!("{name}.{end}"));
        let text = std::fs::read_to_string(path("json"))
            .with_context(|| format!("cannot read {}", path("json").display()))?;
        let about: serde_json::Value = serde_json::from_str(&text)?;
        let number = |key: &str| about[key].as_u64().unwrap_or_default() as usize;
        let (n, dim) = (number("n"), number("dim"));
        let (queries, nearest) = (number("queries"), number("nearest"));
        ensure!(
            n * dim * queries * nearest > 0,
            "{} lacks a count",
            path("json").display()
        );
        let set = Self {
            name,
            dim,
            base: floats(&path("base.f32"), n * dim)?,
            queries: floats(&path("queries.f32"), queries * dim)?,
            truth: words(&path("truth.u32"), queries * nearest)?
                .map(u32::from_le_bytes)
                .collect(),
            nearest,
            base_path: path("base.f32"),
            queries_path: path("queries.f32"),
        };
        if about["texts"] == "documentation" {
            eprintln!(
                "   {name}: made of documentation alone, without MovieLens: ratios hold, figures \
                 differ from other machines'"
            );
        }
        Ok(set)
    }

    pub fn rows(&self) -> usize {
        self.base.len() / self.dim
    }

    pub fn row(&self, row: usize) -> &[f32] {
        &self.base[row * self.dim..][..self.dim]
    }
}

/// All values of a file, which must have so many.
pub fn floats(path: &Path, count: usize) -> anyhow::Result<Vec<f32>> {
    Ok(words(path, count)?.map(f32::from_le_bytes).collect())
}

fn words(path: &Path, count: usize) -> anyhow::Result<impl Iterator<Item = [u8; 4]>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        bytes.len() == count * 4,
        "{} has {} bytes, not {}: remove it and its .json, and run again",
        path.display(),
        bytes.len(),
        count * 4
    );
    Ok((0..count).map(move |at| [0, 1, 2, 3].map(|byte| bytes[at * 4 + byte])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_as_many_values_as_its_description_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.f32");
        std::fs::write(&path, [0, 0, 128, 63, 0, 0, 0, 192]).unwrap();
        assert_eq!(floats(&path, 2).unwrap(), [1.0, -2.0]);
        for count in [0, 1, 3] {
            let error = floats(&path, count).unwrap_err();
            assert!(error.to_string().contains("has 8 bytes"), "{error}");
        }
    }
}
