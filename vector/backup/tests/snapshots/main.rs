//! Snapshots in folders and in memory: what they are, what damage and interruptions do to them.

mod damage;
mod faults;
mod interrupted;
#[path = "../support/mod.rs"]
mod support;
mod together;

use skerry_vector_backup::Snapshots;
use support::lives;

fn folder() -> (tempfile::TempDir, Snapshots) {
    let root = tempfile::tempdir().unwrap();
    let url = format!("file://{}/not/there/yet", root.path().display());
    let place = Snapshots::open_or_make(&url).unwrap();
    (root, place)
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_live_in_a_folder() {
    lives(&folder().1, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_segment_goes_in_parts() {
    lives(&folder().1, true).await;
}

#[test]
fn a_place_is_a_folder_or_a_bucket() {
    let root = tempfile::tempdir().unwrap();
    let here = root.path().display().to_string();
    let url = format!("file://{here}");
    for good in [here.as_str(), url.as_str()] {
        assert!(Snapshots::open(good).is_ok(), "{good}");
    }
    let not_there = format!("{url}/x");
    for (wrong, code) in [
        (not_there.as_str(), "backup_url"),
        ("", "backup_url"),
        ("ftp://host/x", "backup_url"),
        ("file://host/x", "backup_url"),
        ("https://bucket.s3.amazonaws.com", "backup_url"),
    ] {
        assert_eq!(Snapshots::open(wrong).unwrap_err().code(), code, "{wrong}");
    }
    let bucket = Snapshots::open("s3://bucket/x");
    if cfg!(feature = "s3") {
        assert_ne!(bucket.err().map(|error| error.code()), Some("not_built_in"));
    } else {
        let error = bucket.unwrap_err();
        assert_eq!(error.code(), "not_built_in");
        assert!(error.to_string().contains("--features s3"), "{error}");
    }
}
