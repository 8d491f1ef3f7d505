//! Builds that are stopped: at any of their steps, and by closing.

use super::*;
use crate::pace::Pace;
use std::sync::atomic::{AtomicUsize, Ordering};

const ROWS: usize = 60;
/// A row is stepped over when it is read for the graph (twice), put in, packed, and written: vector,
/// id and payload.
const STEPS_OF_ROW: usize = 7;

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with("wal-")).collect();
    names.sort();
    names
}

fn fill(collection: &Collection, rows: usize, seed: u64) {
    let mut random = random(seed);
    let upsert = |n| Write::Upsert(record(&format!("{seed}-{n}"), &mut random));
    collection.write((0..rows).map(upsert).collect()).unwrap();
}

#[test]
fn a_build_that_is_stopped_anywhere_loses_nothing_and_leaves_nothing() {
    for (compacts, metric) in [(false, Metric::Dot), (true, Metric::Cosine)] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = quiet();
        options.mutable_rows = ROWS;
        let mut collection =
            Collection::create(dir.path(), spec(metric, Stored::F16), options.clone()).unwrap();
        for part in 0..3 {
            fill(&collection, ROWS / 3, part);
            if compacts {
                collection.seal().unwrap();
            }
        }
        // The last is full, so that what is sealed is frozen.
        fill(&collection, 1, 9);
        let gone = Write::Delete("1-1".into());
        collection.write(vec![gone]).unwrap();
        let (print, files) = (collection.fingerprint(|_| true).unwrap(), names(dir.path()));
        let mut stopped_at = 0;
        loop {
            let steps = AtomicUsize::new(0);
            let is_stopped = || steps.fetch_add(1, Ordering::Relaxed) >= stopped_at;
            let pace = Pace::new(&is_stopped, &|_| {}, 100);
            let result = if compacts {
                let view = collection.shared.memory.view.load_full();
                let numbers: Vec<u64> =
                    view.sealed.iter().map(|one| one.segment.number()).collect();
                assert_eq!(numbers.len(), 3);
                upkeep::compact(&collection.shared, &numbers, pace)
            } else {
                upkeep::seal(&collection.shared, pace)
            };
            let case = format!("compacts: {compacts}, stopped at {stopped_at}");
            assert_eq!(collection.fingerprint(|_| true).unwrap(), print, "{case}");
            let Err(error) = result else {
                break;
            };
            assert_eq!(error.code(), "vector_stopped", "{case}");
            assert_eq!(names(dir.path()), files, "{case}");
            if stopped_at % 9 == 0 {
                collection.close();
                options.build_threads = 1 + stopped_at % 2;
                collection = Collection::open(dir.path(), options.clone()).unwrap();
                assert_eq!(collection.fingerprint(|_| true).unwrap(), print, "{case}");
                assert_eq!(names(dir.path()), files, "{case}");
            }
            stopped_at += 1;
        }
        assert!(
            stopped_at >= (ROWS - 1) * STEPS_OF_ROW,
            "compacts: {compacts}: only {stopped_at} steps"
        );
        assert_eq!(collection.stats().segments, 1);
        collection.close();
        assert!(verify(dir.path(), &mut |_| {}).unwrap().is_sound());
        let collection = Collection::open(dir.path(), options).unwrap();
        assert_eq!(collection.fingerprint(|_| true).unwrap(), print);
    }
}

/// What closing may take: far less than the builds here would.
const CLOSING_MAX: Duration = Duration::from_secs(5);

#[test]
fn closing_gives_up_a_compaction_which_rests_while_it_builds() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        mutable_rows: 500,
        merge_fan_in: 4,
        // Minutes, where it is kept to while the graph is built.
        cpu_percent: 1,
        ..busy()
    };
    let collection = Collection::create(dir.path(), dot(), options).unwrap();
    for part in 0..4 {
        fill(&collection, 500, part);
        collection.seal().unwrap();
    }
    let seq = collection.seq();
    assert_eq!(collection.wait_for(seq + 1, Duration::from_secs(2)), seq);
    let print = collection.fingerprint(|_| true).unwrap();
    let began = Instant::now();
    collection.close();
    assert!(began.elapsed() < CLOSING_MAX, "{:?}", began.elapsed());
    let collection = Collection::open(dir.path(), quiet()).unwrap();
    assert_eq!(collection.stats().segments, 4, "it was at work still");
    assert_eq!(collection.fingerprint(|_| true).unwrap(), print);
    collection.close();
    assert!(verify(dir.path(), &mut |_| {}).unwrap().is_sound());
}

#[test]
fn closing_gives_up_a_seal() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = busy();
    options.mutable_rows = 30_000;
    let collection = Collection::create(dir.path(), dot(), options.clone()).unwrap();
    for part in 0..3 {
        fill(&collection, 10_000, part);
    }
    // One more than there is room for: what was before is frozen, and sealed from now on.
    fill(&collection, 1, 3);
    let print = collection.fingerprint(|_| true).unwrap();
    let began = Instant::now();
    collection.close();
    assert!(began.elapsed() < CLOSING_MAX, "{:?}", began.elapsed());
    options.background = false;
    let collection = Collection::open(dir.path(), options).unwrap();
    assert_eq!(collection.stats().segments, 0, "it was at work still");
    assert_eq!(collection.fingerprint(|_| true).unwrap(), print);
}

#[test]
fn any_number_of_threads_seals_the_same_bytes() {
    let sealed = |build_threads: usize| {
        let dir = tempfile::tempdir().unwrap();
        let mut options = quiet();
        (options.mutable_rows, options.build_threads) = (3_000, build_threads);
        let collection = Collection::create(dir.path(), dot(), options).unwrap();
        fill(&collection, 2_500, 1);
        collection.seal().unwrap();
        std::fs::read(dir.path().join("segment-1.skv")).unwrap()
    };
    assert!(sealed(1) == sealed(3));
}
