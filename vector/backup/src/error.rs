//! Why there is no snapshot, or nothing was restored. Each code has a page under `docs/errors/`.

use object_store::path::Path;
use skerry_vector_index::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{url:?} is no place for snapshots: {reason}")]
    Url { url: String, reason: String },
    #[error(
        "{what} is not built into this binary: build it with `cargo xtask build --features {feature}`"
    )]
    NotBuiltIn {
        what: &'static str,
        feature: &'static str,
    },
    #[error("{object}: the store does not do it: {source}")]
    Store {
        object: String,
        source: object_store::Error,
    },
    #[error("{object}: the store does not let us: {source}")]
    Denied {
        object: String,
        source: object_store::Error,
    },
    #[error("{0}")]
    Missing(String),
    #[error("{object} is damaged: {what}")]
    Corrupt { object: String, what: String },
    #[error("{object} was written by a newer version: {what}")]
    Newer { object: String, what: String },
    #[error("{object} belongs to another collection: {what}")]
    Foreign { object: String, what: String },
    #[error("{holder} is at work here: try again when it has ended")]
    Busy { holder: String },
    #[error("it was called off")]
    Cancelled,
    #[error(transparent)]
    Collection(#[from] StoreError),
}

/// Every code of this crate's own; its page is `docs/errors/CODE.md`.
pub const CODES: &[&str] = &[
    "backup_busy",
    "backup_cancelled",
    "backup_corrupt",
    "backup_denied",
    "backup_foreign",
    "backup_missing",
    "backup_newer",
    "backup_store",
    "backup_url",
    "not_built_in",
];

impl Error {
    /// The stable code that logs and refusals carry.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Url { .. } => "backup_url",
            Self::NotBuiltIn { .. } => "not_built_in",
            Self::Store { .. } => "backup_store",
            Self::Denied { .. } => "backup_denied",
            Self::Missing(_) => "backup_missing",
            Self::Corrupt { .. } => "backup_corrupt",
            Self::Newer { .. } => "backup_newer",
            Self::Foreign { .. } => "backup_foreign",
            Self::Busy { .. } => "backup_busy",
            Self::Cancelled => "backup_cancelled",
            Self::Collection(error) => error.code(),
        }
    }

    /// Whether the caller asked for what cannot be done here: to ask again is in vain.
    #[must_use]
    pub const fn is_callers(&self) -> bool {
        matches!(self, Self::Url { .. } | Self::NotBuiltIn { .. })
    }

    pub(crate) fn store(object: &Path) -> impl FnOnce(object_store::Error) -> Self + '_ {
        use object_store::Error as E;
        move |source| {
            let object = object.to_string();
            match source {
                E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                    Self::Denied { object, source }
                }
                source => Self::Store { object, source },
            }
        }
    }

    /// As [`Error::store`], for an object that something names: it must be there.
    pub(crate) fn named(object: &Path) -> impl FnOnce(object_store::Error) -> Self + '_ {
        move |source| match source {
            object_store::Error::NotFound { .. } => Self::corrupt(object, "it is missing"),
            source => Self::store(object)(source),
        }
    }

    pub(crate) fn corrupt(object: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt {
            object: object.to_string(),
            what: what.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_and_a_place_in_the_list() {
        for code in CODES {
            let path = format!("../../docs/errors/{code}.md");
            let page = std::fs::read_to_string(&path).expect(&path);
            assert!(page.starts_with(&format!("# {code}\n")), "{path}");
        }
        let source = include_str!("error.rs").split('"').skip(1).step_by(2);
        for code in source.filter(|text| text.starts_with("backup_") && text.len() > 7) {
            assert!(CODES.contains(&code), "{code} is not in the list");
        }
    }
}
