//! Cases: what comes back, what followers and snapshots get.

use super::*;
use crate::IndexError;
use std::sync::atomic::{AtomicBool, Ordering};

fn upsert(id: &str) -> Write {
    Write::Upsert(record(id, &mut random(id.len() as u64)))
}

#[test]
fn a_folder_is_one_collection_of_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Collection::open(dir.path(), quiet()).err().unwrap();
    assert_eq!(missing.code(), "vector_missing");
    let collection = Collection::create(dir.path(), dot(), quiet()).unwrap();
    assert_eq!(
        Collection::open(dir.path(), quiet()).err().unwrap().code(),
        "vector_locked"
    );
    assert_eq!(
        verify(dir.path(), &mut |_| {}).unwrap_err().code(),
        "vector_locked"
    );
    collection.close();
    let again = Collection::create(dir.path(), dot(), quiet())
        .err()
        .unwrap();
    assert_eq!(again.code(), "vector_exists");
    let other = spec(Metric::L2, Stored::F32);
    let differs = Collection::open_or_create(dir.path(), other, quiet())
        .err()
        .unwrap();
    assert_eq!(differs.code(), "vector_spec");
    let mut same = dot();
    same.fields = vec!["year".into(), "genre".into(), "year".into()];
    Collection::open_or_create(dir.path(), same, quiet())
        .unwrap()
        .close();
    for (text, code) in [
        ("skerry-vector 9\n", "vector_newer"),
        ("skerry", "vector_corrupt"),
    ] {
        std::fs::write(dir.path().join("FORMAT"), text).unwrap();
        assert_eq!(
            Collection::open(dir.path(), quiet()).err().unwrap().code(),
            code
        );
        assert_eq!(verify(dir.path(), &mut |_| {}).unwrap_err().code(), code);
    }
}

#[test]
fn a_lost_manifest_is_not_an_empty_collection() {
    let dir = tempfile::tempdir().unwrap();
    let collection = Collection::create(dir.path(), dot(), quiet()).unwrap();
    collection.write(vec![upsert("a")]).unwrap();
    collection.close();
    std::fs::remove_file(dir.path().join("MANIFEST")).unwrap();
    for opened in [
        Collection::open(dir.path(), quiet()),
        Collection::open_or_create(dir.path(), dot(), quiet()),
        Collection::create(dir.path(), dot(), quiet()),
    ] {
        assert_eq!(opened.err().unwrap().code(), "vector_corrupt");
    }
}

#[test]
fn a_failed_sync_ends_writing_and_not_searching() {
    let dir = tempfile::tempdir().unwrap();
    let collection = Collection::create(dir.path(), dot(), quiet()).unwrap();
    collection.write(vec![upsert("a")]).unwrap();
    collection.fail_next_sync();
    assert_eq!(
        collection.write(vec![upsert("b")]).unwrap_err().code(),
        "vector_io"
    );
    assert_eq!(
        collection.write(vec![upsert("c")]).unwrap_err().code(),
        "vector_poisoned"
    );
    assert_eq!(
        collection.write(vec![]).unwrap_err().code(),
        "vector_poisoned"
    );
    assert_eq!(collection.search(&ask(&[1.0; DIM], 5)).unwrap().len(), 1);
    collection.close();
    // The one that failed may be there or not; the one before is.
    let collection = Collection::open(dir.path(), quiet()).unwrap();
    assert!(collection.get("a").unwrap().is_some() && collection.get("c").unwrap().is_none());
    collection.write(vec![upsert("d")]).unwrap();
}

#[test]
fn an_invalid_record_before_a_valid_one_is_named_and_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = quiet();
    options.log_file_bytes = 1 << 20;
    let collection = Collection::create(dir.path(), dot(), options.clone()).unwrap();
    for id in ["a", "b", "c"] {
        collection.write(vec![upsert(id)]).unwrap();
    }
    collection.close();
    let path = dir.path().join("wal-00000000000000000001.log");
    let whole = std::fs::read(&path).unwrap();
    let length = (whole.len() - 32) / 3;
    // The length, the checksum, the number and the body of the second record.
    for at in [0, 2, 5, 9, 40] {
        let mut bytes = whole.clone();
        bytes[32 + length + at] ^= 0x41;
        std::fs::write(&path, &bytes).unwrap();
        match Collection::open(dir.path(), options.clone()).err().unwrap() {
            StoreError::Corrupt {
                file, at: place, ..
            } => {
                assert_eq!((file, place), (path.clone(), 32 + length as u64), "{at}");
            }
            other => panic!("{other}"),
        }
    }
    // The last record, however it is torn, is cut; and another one takes its place.
    for cut in [1, 7, 23, 24, 30, length - 8] {
        std::fs::write(&path, &whole[..32 + 2 * length + cut - 1]).unwrap();
        let report = verify(dir.path(), &mut |_| {}).unwrap();
        assert!(
            report.is_sound() && report.torn_bytes == cut as u64 - 1,
            "{report:?}"
        );
        let collection = Collection::open(dir.path(), options.clone()).unwrap();
        assert_eq!(collection.seq(), 2, "{cut}");
        assert_eq!(collection.write(vec![upsert("d")]).unwrap().first_seq, 3);
        collection.close();
        let collection = Collection::open(dir.path(), options.clone()).unwrap();
        assert!(collection.get("d").unwrap().is_some() && collection.len() == 3);
    }
}

#[test]
fn a_follower_takes_the_leaders_log() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let spec = spec(Metric::Cosine, Stored::F16);
    let leader = Collection::create(dir.path(), spec.clone(), quiet()).unwrap();
    let follower = Collection::create(other.path(), spec, quiet()).unwrap();
    let mut random = random(5);
    let write = |count: usize, random: &mut StdRng| {
        for n in 0..count {
            let id = format!("id-{}", n % 30);
            let delete = random.random_range(0..4) == 0;
            let write = if delete {
                Write::Delete(id.into())
            } else {
                Write::Upsert(record(&id, random))
            };
            leader
                .write(vec![write, Write::Delete("none".into())])
                .unwrap();
        }
    };
    write(40, &mut random);
    let slice = leader.log_since(0, 1).unwrap();
    assert_eq!(
        (slice.records.len(), slice.last_seq),
        (2, 80),
        "a batch comes whole"
    );
    let all = leader.log_since(0, usize::MAX).unwrap().records;
    assert_eq!(all.len(), 80);
    assert_eq!(follower.apply(all[..10].to_vec()).unwrap(), 10);
    assert_eq!(
        follower.apply(all[4..14].to_vec()).unwrap(),
        14,
        "repeats are skipped"
    );
    assert_eq!(follower.apply(all[2..6].to_vec()).unwrap(), 14);
    let gap = follower.apply(all[16..18].to_vec()).unwrap_err();
    assert!(
        matches!(gap, StoreError::Gap { last: 14, got: 17 }),
        "{gap}"
    );
    let holes = vec![all[14].clone(), all[16].clone()];
    assert_eq!(follower.apply(holes).unwrap_err().code(), "vector_gap");
    assert_eq!(follower.apply(all[14..].to_vec()).unwrap(), 80);
    let print = |of: &Collection| of.fingerprint(|_| true).unwrap();
    assert_eq!(print(&leader), print(&follower));
    leader.seal().unwrap();
    leader.compact().unwrap();
    assert_eq!(print(&leader), print(&follower), "wherever the records lie");
    assert!(leader.log_since(81, 1).is_err());

    write(200, &mut random);
    leader.seal().unwrap();
    let gone = leader.log_since(80, usize::MAX).unwrap_err();
    assert_eq!(gone.code(), "vector_log_gone", "{gone}");
    let kept = leader.stats().log_bytes;
    assert!(
        (1 << 10..6 << 10).contains(&kept),
        "{kept} bytes of log are kept"
    );
    assert!(leader.log_since(470, usize::MAX).unwrap().records.len() == 10);
    let half = |id: &str| id.len() == 5;
    let part = leader.fingerprint(half).unwrap();
    assert_ne!(part.hash, print(&leader).hash);
    assert_eq!(
        part.count,
        leader.scan(None, 99, &half).unwrap().records.len() as u64
    );
}

#[test]
fn a_snapshot_is_a_collection_and_goes_on_as_one() {
    let root = tempfile::tempdir().unwrap();
    let [dir, folder, back] = ["a", "b", "c"].map(|name| root.path().join(name));
    let collection = Collection::create(&dir, dot(), quiet()).unwrap();
    let mut random = random(9);
    for n in 0..100 {
        let id = format!("{}", n % 60);
        collection
            .write(vec![Write::Upsert(record(&id, &mut random))])
            .unwrap();
        if n % 25 == 0 {
            collection.seal().unwrap();
        }
    }
    collection.write(vec![Write::Delete("7".into())]).unwrap();
    let info = collection.snapshot_to(&folder).unwrap();
    assert_eq!(info, SnapshotInfo::read(&folder).unwrap());
    assert_eq!(info.seq, 101);
    assert_eq!(
        collection.snapshot_to(&folder).unwrap_err().code(),
        "vector_exists"
    );
    let print = collection.fingerprint(|_| true).unwrap();
    collection.write(vec![Write::Delete("8".into())]).unwrap();
    assert!(verify(&folder, &mut |_| {}).unwrap().is_sound());
    let restored = Collection::restore(&folder, &back, quiet()).unwrap();
    assert_eq!(restored.fingerprint(|_| true).unwrap(), print);
    assert_eq!(
        restored
            .apply(collection.log_since(101, 1).unwrap().records)
            .unwrap(),
        102
    );
    assert_eq!(
        restored.fingerprint(|_| true).unwrap(),
        collection.fingerprint(|_| true).unwrap()
    );
    restored.close();
    let again = Collection::restore(&folder, &back, quiet()).err().unwrap();
    assert_eq!(again.code(), "vector_exists");
    for file in &info.files {
        let path = folder.join(&*file.name);
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        std::fs::remove_dir_all(&back).unwrap();
        let error = Collection::restore(&folder, &back, quiet()).err().unwrap();
        assert_eq!(error.code(), "vector_corrupt", "{}", file.name);
        assert!(!back.join("MANIFEST").exists());
        std::fs::write(&path, &whole).unwrap();
        Collection::restore(&folder, &back, quiet()).expect("what was begun is done again");
    }
}

fn bytes_of(file: &std::sync::Arc<CapturedFile>, step: usize) -> Result<Vec<u8>, StoreError> {
    let (mut reader, mut all, mut chunk) = (file.reader(), Vec::new(), vec![0; step]);
    loop {
        match reader.read(&mut chunk)? {
            0 => return Ok(all),
            count => all.extend_from_slice(&chunk[..count]),
        }
    }
}

#[test]
fn a_capture_is_read_although_its_files_go_and_knows_what_it_has() {
    let root = tempfile::tempdir().unwrap();
    let [dir, back] = ["a", "b"].map(|name| root.path().join(name));
    let collection = Collection::create(&dir, dot(), quiet()).unwrap();
    let mut random = random(4);
    for n in 0..40 {
        let id = format!("{}", n % 30);
        let write = Write::Upsert(record(&id, &mut random));
        collection.write(vec![write]).unwrap();
        if n % 15 == 14 {
            collection.seal().unwrap();
        }
    }
    let capture = collection.capture().unwrap();
    let identities = |capture: &Capture| -> Vec<u128> {
        let all = capture.files().iter();
        all.filter_map(|file| file.identity()).collect()
    };
    let before = identities(&capture);
    assert_eq!((before.len(), capture.seq(), capture.rows()), (2, 40, 30));
    assert_ne!(before[0], before[1]);
    assert_eq!(identities(&collection.capture().unwrap()), before);
    let print = collection.fingerprint(|_| true).unwrap();
    collection.compact().unwrap();
    assert_ne!(identities(&collection.capture().unwrap()), before);

    let restore = Restore::begin(&back).unwrap();
    assert_eq!(restore.file("../x").err().unwrap().code(), "vector_corrupt");
    for (at, file) in capture.files().iter().enumerate() {
        let bytes = bytes_of(file, 100 + at * 7_000).unwrap();
        let mut to = restore.file(file.name()).unwrap();
        to.write(&bytes).unwrap();
        assert_eq!(to.end().unwrap(), (file.bytes(), crc32c::crc32c(&bytes)));
    }
    assert!(!back.join("MANIFEST").exists());
    restore.finish().unwrap();
    drop(restore);
    let restored = Collection::open(&back, quiet()).unwrap();
    assert_eq!(restored.fingerprint(|_| true).unwrap(), print);
}

/// A copy of damage would be no copy: every byte of a segment is checked while it is read.
#[test]
fn a_capture_is_not_read_past_damage() {
    let root = tempfile::tempdir().unwrap();
    let collection = Collection::create(root.path(), dot(), quiet()).unwrap();
    let mut random = random(5);
    let writes = (0..600).map(|n| Write::Upsert(record(&format!("{n}"), &mut random)));
    collection.write(writes.collect()).unwrap();
    collection.seal().unwrap();
    let capture = collection.capture().unwrap();
    let segment = |file: &&std::sync::Arc<CapturedFile>| file.identity().is_some();
    let file = capture.files().iter().find(segment).unwrap();
    let path = root.path().join(file.name());
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > 4_096 + 64 * 1_024, "it has more than a block");
    assert_eq!(bytes_of(file, 10_000).unwrap(), whole);
    let write_at = |at: usize, byte: u8| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[byte], at as u64).unwrap();
    };
    let last = whole.len() - 1;
    for at in [0, 4_091, 4_092, 4_095, 4_096, 70_000, last - 4, last] {
        write_at(at, whole[at] ^ 4);
        let error = bytes_of(file, 10_000).unwrap_err();
        assert_eq!(error.code(), "vector_corrupt", "byte {at}: {error}");
        write_at(at, whole[at]);
    }
    assert_eq!(bytes_of(file, 1 << 20).unwrap(), whole);
    let short = std::fs::File::options().write(true).open(&path).unwrap();
    short.set_len(whole.len() as u64 - 1).unwrap();
    assert_eq!(bytes_of(file, 4_096).unwrap_err().code(), "vector_corrupt");
}

/// Readers and writers at once: what is always there is always found, once.
#[test]
fn an_update_is_neither_missed_nor_seen_twice() {
    let dir = tempfile::tempdir().unwrap();
    let collection = Collection::create(dir.path(), dot(), busy()).unwrap();
    let mut begin = random(1);
    let ids: Vec<String> = (0..20).map(|n| format!("id-{n}")).collect();
    let put = |id: &String, random: &mut StdRng| Write::Upsert(record(id, random));
    collection
        .write(ids.iter().map(|id| put(id, &mut begin)).collect())
        .unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = random(2);
            for _ in 0..number("SKERRY_UPDATES", 600) {
                let id = &ids[random.random_range(0..ids.len())];
                collection.write(vec![put(id, &mut random)]).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut rounds = 0;
        while !done.load(Ordering::Acquire) {
            let found = collection.search(&ask(&[0.3; DIM], 40)).unwrap();
            let mut names: Vec<&str> = found.iter().map(|one| &*one.id).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!((names.len(), found.len()), (20, 20));
            for id in &ids {
                assert!(collection.get(id).unwrap().is_some(), "{id}");
            }
            assert_eq!(all(&collection, 7).len(), 20);
            assert_eq!(collection.fingerprint(|_| true).unwrap().count, 20);
            rounds += 1;
        }
        assert!(rounds > 0);
    });
    assert_eq!(collection.stats().faults, Vec::<String>::new());
    assert_eq!(collection.len(), 20);
    collection.close();
    assert!(verify(dir.path(), &mut |_| {}).unwrap().is_sound());
}

#[test]
fn waiting_ends_when_a_number_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let collection = Collection::create(dir.path(), dot(), quiet()).unwrap();
    assert_eq!(collection.wait_for(1, Duration::ZERO), 0);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| collection.wait_for(2, Duration::from_secs(60)));
        collection.write(vec![upsert("a"), upsert("bb")]).unwrap();
        assert_eq!(waits.join().unwrap(), 2);
    });
}

/// Which segments become one: the dead first, then as many of a size as the fan-in says.
#[test]
fn compaction_chooses_the_dead_and_the_small() {
    let options = Options {
        mutable_rows: 100,
        merge_fan_in: 3,
        segment_rows_max: 1_000,
        ..Options::default()
    };
    let check = |name: &str, sizes: &[(u64, usize, usize)], want: &[u64]| {
        assert_eq!(upkeep::choose(sizes, &options), want, "{name}");
    };
    check("nothing", &[], &[]);
    check("20 % dead stay", &[(1, 100, 20)], &[]);
    check("more do not", &[(1, 100, 20), (2, 100, 21)], &[2]);
    check("two of a size stay", &[(1, 100, 0), (2, 90, 0)], &[]);
    check(
        "three do not",
        &[(1, 100, 0), (2, 90, 0), (3, 400, 0), (4, 5, 0)],
        &[4, 2, 1],
    );
    check("sizes apart", &[(1, 100, 0), (2, 300, 0), (3, 900, 0)], &[]);
    check(
        "none gets too great",
        &[(1, 400, 0), (2, 400, 0), (3, 400, 0)],
        &[],
    );
}

#[test]
fn every_code_has_a_page() {
    let index = [
        IndexError::Dim(0),
        IndexError::TooMany(0),
        IndexError::NotFinite {
            row: 0,
            component: 0,
        },
        IndexError::QueryDim { query: 0, index: 0 },
        IndexError::QueryNotFinite { component: 0 },
        IndexError::ZeroNorm { id: "".into() },
        IndexError::QueryZeroNorm,
        IndexError::DuplicateId { id: "".into() },
        IndexError::IdLength(0),
        IndexError::TooManyResults { got: 0 },
        IndexError::TooManyWrites { got: 0 },
        IndexError::QueryVectors { got: 0 },
        IndexError::UnknownField {
            field: "".into(),
            known: "".into(),
        },
        IndexError::PayloadTooLarge {
            id: "".into(),
            bytes: 0,
        },
    ];
    let codes = index.iter().map(IndexError::code);
    for code in codes.chain(StoreError::CODES.iter().copied()) {
        let path = format!("../../docs/errors/{code}.md");
        let page = std::fs::read_to_string(&path).expect(&path);
        assert!(
            page.starts_with(&format!("# {code}\n")) && page.len() > 80,
            "{path}"
        );
    }
}
