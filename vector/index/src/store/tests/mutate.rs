//! Damaged files: each gives a typed error or the right answer, never a panic and never a wrong one.
//!
//! `SKERRY_MUTATIONS` sets how many (3,000), `SKERRY_MUTATION_SEED` the first seed, which a failure
//! names.

use super::*;
use crate::store::files;
use crate::store::fuzzing::reseal;
use std::collections::BTreeMap;
use std::path::Path;

/// What a collection holds, after each sequence number.
type States = Vec<BTreeMap<Box<str>, (Record, u64)>>;

/// A folder with segments, tombstones and several logs.
fn make(dir: &Path) -> States {
    let options = Options {
        mutable_rows: 64,
        log_tail_bytes: 4 << 10,
        ..quiet()
    };
    let collection = Collection::create(dir, dot(), options).unwrap();
    let mut random = random(77);
    let mut states: States = vec![BTreeMap::new()];
    for n in 0..150 {
        let id = format!("id-{}", random.random_range(0..70));
        let mut state = states.last().unwrap().clone();
        let write = if random.random_range(0..5) == 0 {
            state.remove(&*id);
            Write::Delete(id.into())
        } else {
            let record = record(&id, &mut random);
            state.insert(record.id.clone(), (record.clone(), n + 1));
            Write::Upsert(record)
        };
        states.push(state);
        collection.write(vec![write]).unwrap();
        if n == 60 || n == 120 {
            collection.seal().unwrap();
        }
    }
    collection.close();
    states
}

fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
    if bytes.is_empty() {
        return;
    }
    let at = random.random_range(0..bytes.len());
    let end = (at + random.random_range(1..200)).min(bytes.len());
    match random.random_range(0..7) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes.truncate(at),
        2 => bytes[at..end].fill(0),
        3 => bytes[at..end].fill(0xff),
        4 => random.fill(&mut bytes[at..end]),
        5 => {
            bytes.drain(at..end);
        }
        _ => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
    }
}

/// Everything that a reader can do. Panics are the failure.
fn read(dir: &Path) -> Result<Vec<(Record, u64)>, StoreError> {
    let report = verify(dir, &mut |_| {});
    let sound = report.as_ref().is_ok_and(VerifyReport::is_sound);
    let collection = Collection::open(dir, quiet())?;
    let result: Result<_, StoreError> = (|| {
        collection.log_since(collection.stats().checkpoint, 1 << 20)?;
        collection.fingerprint(|_| true)?;
        let found = collection.search(&ask(&[0.5; DIM], 100))?;
        let mut all = Vec::new();
        let mut page = collection.scan(None, 40, &|_| true)?;
        all.append(&mut page.records);
        while let Some(next) = page.next {
            page = collection.scan(Some(&next), 40, &|_| true)?;
            all.append(&mut page.records);
        }
        all.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        let mut ids: Vec<_> = found.into_iter().map(|one| (one.id, one.seq)).collect();
        ids.sort();
        Ok((all, ids))
    })();
    // A write meets the id tables.
    let put = Write::Upsert(record("id-1", &mut random(3)));
    let written = collection.write(vec![put, Write::Delete("id-2".into())]);
    let compacted = collection.compact();
    let (all, ids): (Vec<(Record, u64)>, Vec<_>) = result?;
    if sound {
        assert_eq!(
            ids,
            all.iter()
                .map(|(r, seq)| (r.id.clone(), *seq))
                .collect::<Vec<_>>()
        );
        written?;
        compacted?;
    }
    Ok(all)
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    std::fs::create_dir_all(to).unwrap();
    for (name, _) in files::list(from).unwrap() {
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

fn one(made: &Path, names: &[String], states: &States, root: &Path, seed: u64) -> bool {
    let mut random = random(seed);
    let dir = root.join("damaged");
    copy(made, &dir);
    let name = &names[random.random_range(0..names.len())];
    let path = dir.join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    let before = bytes.clone();
    for _ in 0..random.random_range(1..3) {
        mutate(&mut bytes, &mut random);
    }
    let resealed = random.random_range(0..2) == 0;
    if resealed {
        reseal(name, &mut bytes);
    }
    std::fs::write(&path, &bytes).unwrap();
    match read(&dir) {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            true
        }
        // With its checksums made right again a file may say something else.
        Ok(_) if resealed => false,
        Ok(all) => {
            let is_state = |state: &BTreeMap<_, _>| state.values().eq(all.iter());
            let whole = is_state(states.last().unwrap());
            // The last log may end earlier: what a torn end looks like.
            let last_log = files::kind(name) == files::kind(names.last().unwrap());
            let earlier = last_log && states.iter().any(is_state);
            assert!(
                whole || earlier,
                "{name}: a wrong answer, {}",
                bytes == before
            );
            false
        }
    }
}

#[test]
fn damage_gives_typed_errors_or_right_answers() {
    // In memory where that is possible: nothing here is about what a disk keeps.
    let memory = tempfile::tempdir_in("/dev/shm");
    let root = memory.or_else(|_| tempfile::tempdir()).unwrap();
    let made = root.path().join("made");
    let states = make(&made);
    let count = number("SKERRY_MUTATIONS", 3_000) as u64;
    let from = number("SKERRY_MUTATION_SEED", 1) as u64;
    let mut names: Vec<String> = files::list(&made)
        .unwrap()
        .into_iter()
        .map(|one| one.0)
        .collect();
    names.retain(|name| name != files::LOCK_FILE);
    assert!(
        names.iter().any(|name| name.starts_with("dead-")),
        "{names:?}"
    );
    assert!(
        names.iter().filter(|name| name.starts_with("wal-")).count() > 2,
        "{names:?}"
    );
    let mut refused = 0;
    for seed in from..from + count {
        let result = std::panic::catch_unwind(|| one(&made, &names, &states, root.path(), seed));
        match result {
            Ok(error) => refused += usize::from(error),
            Err(panic) => {
                eprintln!(
                    "mutation {seed} failed; again: SKERRY_MUTATION_SEED={seed} SKERRY_MUTATIONS=1 \
                     cargo test -p skerry-vector-index damage_gives"
                );
                std::panic::resume_unwind(panic);
            }
        }
    }
    eprintln!("{refused} of {count} mutations were refused");
    assert!(count < 100 || refused * 4 > count as usize);
}
