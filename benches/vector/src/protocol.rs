//! What the driver and a worker say to each other: one line of JSON each way.
//!
//! Invariant: `peers/worker.py` speaks the same words; a line that is not understood is an error that
//! shows it, never a default.

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Most bytes of a line that an error shows.
const SHOWN_BYTES_MAX: usize = 200;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Reads both files: row-major little-endian f32 of length 1.
    Load {
        base: String,
        queries: String,
        dim: usize,
        /// Leave the base on disk, and read it while building.
        #[serde(default, skip_serializing_if = "is_false")]
        mapped: bool,
    },
    Build {
        #[serde(default = "one", skip_serializing_if = "is_one")]
        threads: usize,
        /// Where the built index is kept: read from there, where it is there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<String>,
    },
    /// Asks the first `queries` queries `repeat` times, one by one on each thread.
    Search {
        ef: usize,
        k: usize,
        queries: usize,
        repeat: usize,
        #[serde(default = "one", skip_serializing_if = "is_one")]
        threads: usize,
    },
}

/// On one thread, kept nowhere.
pub const BUILD: Request = Request::Build {
    threads: 1,
    index: None,
};

fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_one(threads: &usize) -> bool {
    *threads == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    pub rows: usize,
    pub queries: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Built {
    pub cpu_s: f64,
    /// Resident memory after less before; none where the system does not say.
    pub resident_bytes: Option<i64>,
    /// What a search touches, where the engine knows.
    pub hot_bytes: Option<usize>,
    /// By the clock, and the bytes of the file: where the index is kept.
    #[serde(default)]
    pub wall_s: Option<f64>,
    #[serde(default)]
    pub file_bytes: Option<u64>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Searched {
    /// Of one pass over the queries.
    pub cpu_s: f64,
    #[serde(default)]
    pub wall_s: f64,
    /// The rows found, `k` of each query, nearest first.
    pub rows: Vec<u32>,
}

pub fn to_line<T: Serialize>(value: &T) -> anyhow::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

pub fn from_line<T: DeserializeOwned>(line: &str) -> anyhow::Result<T> {
    serde_json::from_str(line).with_context(|| {
        let shown: String = line.trim_end().chars().take(SHOWN_BYTES_MAX).collect();
        format!("not understood: {shown:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_python_worker() {
        let cases = [
            (BUILD, r#"{"op":"build"}"#),
            (
                Request::Build {
                    threads: 2,
                    index: Some("i".into()),
                },
                r#"{"op":"build","threads":2,"index":"i"}"#,
            ),
            (
                Request::Load {
                    base: "b".into(),
                    queries: "q".into(),
                    dim: 4,
                    mapped: false,
                },
                r#"{"op":"load","base":"b","queries":"q","dim":4}"#,
            ),
            (
                Request::Load {
                    base: "b".into(),
                    queries: "q".into(),
                    dim: 4,
                    mapped: true,
                },
                r#"{"op":"load","base":"b","queries":"q","dim":4,"mapped":true}"#,
            ),
            (
                Request::Search {
                    ef: 64,
                    k: 10,
                    queries: 5,
                    repeat: 2,
                    threads: 1,
                },
                r#"{"op":"search","ef":64,"k":10,"queries":5,"repeat":2}"#,
            ),
            (
                Request::Search {
                    ef: 64,
                    k: 10,
                    queries: 5,
                    repeat: 1,
                    threads: 2,
                },
                r#"{"op":"search","ef":64,"k":10,"queries":5,"repeat":1,"threads":2}"#,
            ),
        ];
        for (request, line) in cases {
            assert_eq!(to_line(&request).unwrap(), format!("{line}\n"));
            assert_eq!(from_line::<Request>(line).unwrap(), request);
        }
    }

    #[test]
    fn answers_are_read_and_nonsense_is_shown() {
        let built: Built =
            from_line(r#"{"cpu_s": 1.5, "resident_bytes": -4096, "hot_bytes": null}"#).unwrap();
        assert_eq!(built.cpu_s, 1.5);
        assert_eq!(built.resident_bytes, Some(-4096));
        assert_eq!(built.hot_bytes, None);
        for line in ["", "Traceback (most recent call last):", r#"{"cpu_s":1}"#] {
            let error = from_line::<Searched>(line).unwrap_err();
            assert!(format!("{error}").contains("not understood"), "{line}");
        }
    }
}
