//! The model in service with its vector search, and the model files.

use crate::Error;
use crate::catalog::Catalog;
use crate::state::{set_aside, write_whole};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use skerry_decide::score::HistoryStep;
use skerry_origin_core::{CandidateRow, Place, PortError};
use skerry_origin_ranker::{Model, UserState};
use skerry_types::{ItemId, Millis};
use skerry_vector_index::{Index, Metric};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Model files kept, the one in service included.
const FILES_MAX: usize = 3;
/// Names the model in service.
const POINTER: &str = "CURRENT";

/// What is known of a model beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Digest of the file, in hex; its name too.
    pub sha256: String,
    /// The N of `ranker@N`.
    pub number: u64,
    pub made_ms: Millis,
    /// Acceptance of the newest event that it learned from.
    pub as_of_ms: Millis,
    /// Position in the log that it learned up to.
    pub seq: u64,
    pub events: u64,
    pub items: u64,
    pub users: u64,
}

/// A model, searchable.
pub struct Service {
    pub model: Model,
    pub about: About,
    index: Index,
    /// Place of each row's item in the catalogue.
    places: Vec<Place>,
}

impl Service {
    pub fn new(model: Model, about: About, catalog: &Catalog) -> Result<Self, Error> {
        let (vectors, dim) = model.item_vectors();
        let index = Index::build(dim, Metric::Dot, vectors)
            .map_err(|error| Error::Train(error.to_string()))?;
        let ids = (0..).map_while(|row| model.id(row));
        let places = ids.map(|id| catalog.place(id)).collect();
        Ok(Self {
            model,
            about,
            index,
            places,
        })
    }

    /// Place of a row's item in the catalogue.
    pub fn place(&self, row: u32) -> Option<Place> {
        self.places.get(row as usize).copied()
    }

    pub fn near(&self, query: &[f32], k: usize) -> Result<Vec<(u32, f32)>, PortError> {
        self.index.near(query, k).map_err(unavailable)
    }

    pub fn near_where(
        &self,
        query: &[f32],
        k: usize,
        allow: &dyn Fn(u32) -> bool,
    ) -> Result<Vec<(u32, f32)>, PortError> {
        self.index.near_where(query, k, allow).map_err(unavailable)
    }
}

/// The model as the pipeline sees it.
impl skerry_origin_core::Model for Service {
    type Profile = UserState;

    fn version(&self) -> Arc<str> {
        self.model.version()
    }

    fn row(&self, id: &ItemId) -> Option<u32> {
        self.model.index_of(id)
    }

    fn id(&self, row: u32) -> Option<&ItemId> {
        self.model.id(row)
    }

    fn fold_in(&self, history: &[HistoryStep]) -> UserState {
        self.model.fold_in(history)
    }

    fn profile_of(&self, vector: &[f32]) -> Option<UserState> {
        self.model.state_of(vector)
    }

    fn query<'p>(&self, profile: &'p UserState) -> Option<&'p [f32]> {
        profile.query()
    }

    fn candidates(
        &self,
        profile: &UserState,
        near: &[(u32, f32)],
        k: usize,
        allow: &dyn Fn(u32) -> bool,
    ) -> Vec<CandidateRow> {
        self.model.candidates_where(profile, near, k, allow)
    }

    fn rank(&self, profile: &UserState, rows: &[CandidateRow]) -> Result<Vec<f32>, PortError> {
        skerry_origin_core::Model::rank(&self.model, profile, rows)
    }

    fn because(&self, profile: &UserState, row: u32) -> Option<u32> {
        self.model.because(profile, row)
    }

    fn trending(&self, k: usize) -> Vec<(u32, f32)> {
        self.model.trending(k)
    }
}

fn unavailable(error: impl std::fmt::Display) -> PortError {
    PortError {
        what: "vector index",
        detail: error.to_string(),
    }
}

/// Stores a model's bytes under their digest; the pointer moves last.
pub fn save(dir: &Path, bytes: &[u8], mut about: About) -> Result<About, Error> {
    let dir = dir.join("models");
    std::fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
    about.sha256 = hex(&Sha256::digest(bytes));
    write_whole(&file(&dir, &about.sha256), bytes)?;
    let pointer =
        serde_json::to_vec_pretty(&about).map_err(|error| Error::Train(error.to_string()))?;
    write_whole(&dir.join(POINTER), &pointer)?;
    // Old files are only in the way: not being able to remove them is no failure.
    let mut files: Vec<(std::time::SystemTime, PathBuf)> = std::fs::read_dir(&dir)
        .map_err(Error::io(&dir))?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let path = entry.path();
            (path.extension()? == "model").then_some(())?;
            Some((entry.metadata().ok()?.modified().ok()?, path))
        })
        .collect();
    files.sort_by(|a, b| b.cmp(a));
    for (_, path) in files.iter().skip(FILES_MAX) {
        let _ = std::fs::remove_file(path);
    }
    Ok(about)
}

/// Loads the model in service; `None` where there is none. With `repair`, damage is set aside and
/// counts as none.
pub fn load(dir: &Path, repair: bool, catalog: &Catalog) -> Result<Option<Service>, Error> {
    let dir = dir.join("models");
    match read(&dir, catalog) {
        Err(Error::Corrupt { path, reason }) if repair => {
            tracing::warn!(path = %path.display(), %reason, "the damaged model was set aside");
            if path.exists() {
                set_aside(&path)?;
            }
            let pointer = dir.join(POINTER);
            if pointer.exists() {
                set_aside(&pointer)?;
            }
            Ok(None)
        }
        read => read,
    }
}

fn read(dir: &Path, catalog: &Catalog) -> Result<Option<Service>, Error> {
    let pointer = dir.join(POINTER);
    let text = match std::fs::read(&pointer) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(pointer)(error)),
    };
    let about: About = serde_json::from_slice(&text).map_err(|error| Error::Corrupt {
        path: pointer.clone(),
        reason: error.to_string(),
    })?;
    if about.sha256.len() != 64 || !about.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::Corrupt {
            path: pointer,
            reason: "sha256 is not a digest".to_owned(),
        });
    }
    let path = file(dir, &about.sha256);
    let damaged = |reason: String| Error::Corrupt {
        path: path.clone(),
        reason,
    };
    let bytes = std::fs::read(&path).map_err(|error| damaged(error.to_string()))?;
    if hex(&Sha256::digest(&bytes)) != about.sha256 {
        return Err(damaged("the content does not match its digest".to_owned()));
    }
    let model = Model::from_bytes(&bytes).map_err(|error| damaged(error.to_string()))?;
    Service::new(model, about, catalog).map(Some)
}

fn file(dir: &Path, sha256: &str) -> PathBuf {
    dir.join(format!("{sha256}.model"))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            use std::fmt::Write;
            let _ = write!(text, "{byte:02x}");
            text
        })
}
