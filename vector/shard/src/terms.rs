//! Which leader wrote which part of a shard's log, so that a follower whose log went another way (its
//! end came from a leader that nobody else heard) is told so instead of mixing two histories. The
//! leader-epoch check of Kafka's KIP-101, with fencing tokens as epochs.
//!
//! Invariant: tokens and first numbers rise; what a replica has applied lies within its terms.

use crate::error::Error;
use crate::files;
use serde::{Deserialize, Serialize};
use skerry_wire::{codec, grpc as g, value::schema};
use std::path::Path;

/// Terms that are remembered. A follower from before the oldest takes a snapshot.
pub const TERMS_MAX: usize = 1_024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    pub token: u64,
    pub first_seq: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Terms(Vec<Term>);

impl Terms {
    pub fn read(path: &Path) -> Result<Self, Error> {
        let Some(bytes) = files::read_whole(path).map_err(Error::io(path))? else {
            return Ok(Self::default());
        };
        let corrupt = |reason: String| Error::Corrupt {
            path: path.to_path_buf(),
            reason,
        };
        let terms: Vec<Term> = codec::decode_as(schema::SHARD_TERMS, &bytes)
            .map_err(|error| corrupt(error.to_string()))?;
        Self::checked(terms).ok_or_else(|| corrupt("its terms do not rise".to_owned()))
    }

    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let bytes = codec::encode_as(schema::SHARD_TERMS, &self.0);
        let bytes = bytes.map_err(|error| Error::Corrupt {
            path: path.to_path_buf(),
            reason: error.to_string(),
        })?;
        files::write_whole(path, &bytes).map_err(Error::io(path))
    }

    /// Of a peer or a file.
    #[must_use]
    pub fn checked(terms: Vec<Term>) -> Option<Self> {
        let rise = terms.is_sorted_by(|a, b| a.token < b.token && a.first_seq <= b.first_seq);
        (rise && terms.len() <= TERMS_MAX).then_some(Self(terms))
    }

    pub fn of_wire(terms: &[g::Term]) -> Result<Self, Error> {
        let terms = terms.iter().map(|term| Term {
            token: term.token,
            first_seq: term.first_seq,
        });
        Self::checked(terms.collect()).ok_or_else(|| Error::Peer("terms that do not rise".into()))
    }

    #[must_use]
    pub fn to_wire(&self) -> Vec<g::Term> {
        let terms = self.0.iter().map(|term| g::Term {
            token: term.token,
            first_seq: term.first_seq,
        });
        terms.collect()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last leader's token; 0 before there was one.
    #[must_use]
    pub fn last_token(&self) -> u64 {
        self.0.last().map_or(0, |term| term.token)
    }

    /// A new leader begins behind a log that ends at `seq`.
    #[must_use]
    pub fn begin(&self, token: u64, seq: u64) -> Self {
        let mut terms = self.0.clone();
        // A leader that wrote nothing left no trace.
        terms.retain(|term| term.first_seq <= seq && term.token < token);
        terms.push(Term {
            token,
            first_seq: seq + 1,
        });
        let surplus = terms.len().saturating_sub(TERMS_MAX);
        terms.drain(..surplus);
        Self(terms)
    }

    /// The token under which the record `seq` was written; 0 where that is not known.
    #[must_use]
    pub fn token_at(&self, seq: u64) -> u64 {
        let before = self.0.iter().rev().find(|term| term.first_seq <= seq);
        before.map_or(0, |term| term.token)
    }

    /// Whether a log that ends at `seq`, its last record written under `token`, is the beginning of
    /// the log with these terms that ends at `head`.
    #[must_use]
    pub fn begins_with(&self, token: u64, seq: u64, head: u64) -> bool {
        if seq == 0 {
            return true;
        }
        let Some(at) = self.0.iter().position(|term| term.token == token) else {
            return false;
        };
        let first = self.0.get(at).map_or(0, |term| term.first_seq);
        let end = self.0.get(at + 1).map_or(head, |next| next.first_seq - 1);
        (first..=end).contains(&seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A log as a list of tokens, one for each record.
    fn log(terms: &[(u64, u64)]) -> Vec<u64> {
        terms
            .iter()
            .flat_map(|(token, count)| vec![*token; *count as usize])
            .collect()
    }

    proptest! {
        /// Leaders write on top of a part of the log before; any two logs that arise are compared, and
        /// the terms say what a record by record comparison says.
        #[test]
        fn terms_tell_what_records_tell(steps in proptest::collection::vec((0usize..4, 0usize..6, 1u64..4), 1..12)) {
            let mut replicas: Vec<(Vec<u64>, Terms)> = vec![(Vec::new(), Terms::default())];
            for (token, (who, keep, count)) in (1u64..).zip(steps) {
                let (mut records, mut terms) = replicas[who % replicas.len()].clone();
                // The new leader lacks some of the end, as another replica of the old leader would.
                records.truncate(records.len().saturating_sub(keep));
                terms.0.retain(|term| term.first_seq <= records.len() as u64);
                let terms = terms.begin(token, records.len() as u64);
                records.extend(log(&[(token, count)]));
                for (seq, written) in (1u64..).zip(&records) {
                    prop_assert_eq!(terms.token_at(seq), *written);
                }
                replicas.push((records, terms));
            }
            for (mine, terms) in &replicas {
                for (theirs, other) in &replicas {
                    let seq = theirs.len() as u64;
                    let same = mine.starts_with(theirs);
                    prop_assert_eq!(terms.begins_with(other.token_at(seq), seq, mine.len() as u64), same, "{:?} {:?}", mine, theirs);
                }
            }
        }
    }

    #[test]
    fn a_file_gives_back_what_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("TERMS");
        assert!(Terms::read(&path).unwrap().is_empty());
        let terms = Terms::default().begin(3, 0).begin(9, 40);
        terms.write(&path).unwrap();
        assert_eq!(Terms::read(&path).unwrap(), terms);
        assert_eq!(Terms::of_wire(&terms.to_wire()).unwrap(), terms);
        std::fs::write(&path, b"no terms").unwrap();
        assert_eq!(Terms::read(&path).unwrap_err().code(), "shard_corrupt");
    }
}
