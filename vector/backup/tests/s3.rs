//! The same in a store that speaks S3: a real server, over real HTTP.

mod support;

use skerry_vector_backup::{Snapshots, Stamp};
use support::{collection, lives, put, restored, take};

fn place(name: &str) -> Snapshots {
    let bucket = std::env::var("SKERRY_TEST_S3");
    let bucket = bucket.expect("`cargo xtask test` starts a server and sets SKERRY_TEST_S3");
    let fresh = Stamp::now().chance;
    Snapshots::open_or_make(&format!("{bucket}/{name}-{fresh:x}/deeper")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_live_in_a_bucket() {
    lives(&place("small"), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_segment_goes_in_parts() {
    lives(&place("large"), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_prefixes_of_a_bucket_are_two_places() {
    let root = tempfile::tempdir().unwrap();
    let one = collection(root.path(), 4);
    put(&one, 0..5, 0);
    let [a, b] = ["a", "b"].map(place);
    take(&a, "n1", &[&one], 1).await.unwrap();
    assert_eq!(
        restored(&b, None).await.unwrap_err().code(),
        "backup_missing"
    );
    assert_eq!(restored(&a, None).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_named() {
    let place = Snapshots::open("s3://no-such-bucket-here/x").unwrap();
    let root = tempfile::tempdir().unwrap();
    let one = collection(root.path(), 4);
    put(&one, 0..5, 0);
    let error = take(&place, "n1", &[&one], 1).await.unwrap_err();
    assert_eq!(error.code(), "backup_store");
    assert!(error.to_string().contains("NoSuchBucket"), "{error}");
}
