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
    },
    Build,
    /// Asks the first `queries` queries `repeat` times, one by one, on one thread.
    Search {
        ef: usize,
        k: usize,
        queries: usize,
        repeat: usize,
    },
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
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Searched {
    /// Of one pass over the queries.
    pub cpu_s: f64,
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
            (Request::Build, r#"{"op":"build"}"#),
            (
                Request::Load {
                    base: "b".into(),
                    queries: "q".into(),
                    dim: 4,
                },
                r#"{"op":"load","base":"b","queries":"q","dim":4}"#,
            ),
            (
                Request::Search {
                    ef: 64,
                    k: 10,
                    queries: 5,
                    repeat: 2,
                },
                r#"{"op":"search","ef":64,"k":10,"queries":5,"repeat":2}"#,
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
