//! Builds that are stopped: at any of their steps, and by closing.

use super::*;
use crate::pace::Pace;
use std::sync::atomic::{AtomicUsize, Ordering};

const ROWS: usize = 60;
/// A row is stepped over when it is read for the graph (twice), put in and packed; and when its
/// vector, its id and its payload are written.
const STEPS_OF_BUILDING: usize = 4;
const STEPS_OF_WRITING: usize = 3;

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
        let (print, before) = (collection.fingerprint(|_| true).unwrap(), names(dir.path()));
        let mut stopped_at = 0;
        loop {
            let next = collection.shared.manifest.lock().manifest.next_segment;
            let file = files::unfinished(&dir.path().join(files::segment_name(next)));
            let (steps, writing) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let is_stopped = || {
                writing.fetch_add(usize::from(file.exists()), Ordering::Relaxed);
                steps.fetch_add(1, Ordering::Relaxed) >= stopped_at
            };
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
                let writing = writing.into_inner();
                let building = steps.into_inner() - writing;
                assert!(building >= (ROWS - 1) * STEPS_OF_BUILDING, "{building}");
                assert!(writing >= (ROWS - 1) * STEPS_OF_WRITING, "{writing}");
                break;
            };
            assert_eq!(error.code(), "vector_stopped", "{case}");
            assert_eq!(names(dir.path()), before, "{case}");
            if stopped_at % 9 == 0 {
                collection.close();
                options.build_threads = 1 + stopped_at % 2;
                collection = Collection::open(dir.path(), options.clone()).unwrap();
                assert_eq!(collection.fingerprint(|_| true).unwrap(), print, "{case}");
                assert_eq!(names(dir.path()), before, "{case}");
            }
            stopped_at += 1;
        }
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
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let filled = |dir: &Path, background: bool| {
        let options = Options {
            mutable_rows: 500,
            merge_fan_in: 4,
            cpu_percent: 1,
            background,
            ..busy()
        };
        let collection = Collection::create(dir, dot(), options).unwrap();
        for part in 0..4 {
            fill(&collection, 500, part);
            collection.seal().unwrap();
        }
        collection
    };
    let at_once = filled(other.path(), false);
    let began = Instant::now();
    at_once.compact().unwrap();
    let took = began.elapsed();
    // It has taken this time several times over, and rests for nearly all of it.
    let collection = filled(dir.path(), true);
    let seq = collection.seq();
    assert_eq!(collection.wait_for(seq + 1, 8 * took), seq);
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
