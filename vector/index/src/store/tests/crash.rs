//! Kill -9 at any moment, and torn ends of the log: what was acknowledged is there, what was deleted
//! stays deleted, and a batch that was under way is there whole or not at all.
//!
//! The child is this same test binary. `SKERRY_CRASH_ROUNDS` sets the number of rounds (50),
//! `SKERRY_CRASH_SEED` the seed, which a failure names.

use super::*;
use crate::store::{codec, files, log, record as records};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const THREADS: u64 = 2;
const DIR: &str = "SKERRY_CRASH_CHILD_DIR";
const SEED: &str = "SKERRY_CRASH_CHILD_SEED";

fn options() -> Options {
    Options {
        mutable_rows: 32,
        log_file_bytes: 16 << 10,
        log_tail_bytes: 32 << 10,
        ..busy()
    }
}

/// The batches of one thread of the child, without end.
fn batches(seed: u64, thread: u64) -> impl Iterator<Item = Vec<Write>> {
    let mut random = random(seed * THREADS + thread);
    std::iter::repeat_with(move || {
        let mut batch = BTreeMap::new();
        for _ in 0..random.random_range(1..8) {
            let id = format!("{thread}-{}", random.random_range(0..60));
            let write = if random.random_range(0..3) == 0 {
                Write::Delete(id.as_str().into())
            } else {
                Write::Upsert(record(&id, &mut random))
            };
            batch.insert(id, write);
        }
        batch.into_values().collect()
    })
}

/// Not a test: what the child does until it is killed.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let seed = number(SEED, 0) as u64;
    let collection = Collection::open(&PathBuf::from(dir), options()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let collection = &collection;
            scope.spawn(move || {
                for batch in batches(seed, thread) {
                    let committed = collection.write(batch).unwrap();
                    // Not `println`: what the tests' harness holds back would be lost.
                    let mut out = std::io::stderr().lock();
                    // In one piece: a pipe takes it whole or, after the kill, not at all.
                    let line = format!("ack {thread} {}\n", committed.last_seq);
                    out.write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

type Model = BTreeMap<Box<str>, Record>;

fn apply(model: &mut Model, batch: &[Write]) {
    for write in batch {
        match write {
            Write::Upsert(record) => {
                model.insert(record.id.clone(), record.clone());
            }
            Write::Delete(id) => {
                model.remove(id);
            }
        }
    }
}

/// Runs the child until it has acknowledged `kill_after` batches; how many of each thread it had, and
/// the greatest sequence number.
fn killed(dir: &std::path::Path, seed: u64, kill_after: usize) -> ([usize; 2], u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::crash::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .env(SEED, seed.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acks = [0; 2];
    let (mut last, mut killed) = (0, false);
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let ["ack", thread, seq] = words[..] else {
            panic!("the child says: {line}");
        };
        acks[thread.parse::<usize>().unwrap()] += 1;
        last = last.max(seq.parse().unwrap());
        if acks.iter().sum::<usize>() >= kill_after && !killed {
            // What it wrote until then is still in the pipe.
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself");
    (acks, last)
}

/// Tears the end of the log behind the record that has `last`.
fn tear(dir: &std::path::Path, last: u64, random: &mut StdRng) {
    let file = log::found(dir).unwrap().pop().unwrap();
    let path = dir.join(files::log_name(file.first));
    let mut bytes = std::fs::read(&path).unwrap();
    let mut end = records::FILE_HEADER_BYTES;
    let mut next = file.first;
    // A record may hold a batch that was acknowledged and another one that was not yet.
    while let Ok(record) = records::record_at(&bytes, end)
        && record.first <= last
    {
        next = record.last() + 1;
        end = record.end;
    }
    if bytes.len() <= end {
        // Nothing there: a record that was on its way. Should only its padding be torn, it counts.
        let mut body = Vec::new();
        let none = "none".repeat(random.random_range(1..80));
        codec::put_write(&mut body, &Write::Delete(none.into())).unwrap();
        bytes.truncate(end);
        bytes.extend(records::encode_record(next, 1, &body));
    }
    let at = random.random_range(end..bytes.len());
    match random.random_range(0..4) {
        0 => bytes.truncate(at),
        1 => bytes[at..].fill(0),
        2 => random.fill(&mut bytes[at..]),
        _ => {
            bytes.truncate(at);
            bytes.resize(at + random.random_range(1..5_000), 0);
        }
    }
    std::fs::write(&path, &bytes).unwrap();
}

fn round(dir: &std::path::Path, model: &mut Model, seed: u64) {
    let mut random = random(seed ^ 0xdead);
    let (acks, last) = killed(dir, seed, random.random_range(1..120));
    if random.random_range(0..2) == 0 {
        tear(dir, last, &mut random);
    }
    let report = verify(dir, &mut |_| {}).unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
    let collection = Collection::open(dir, options()).unwrap();
    assert!(collection.seq() >= last);
    let found: Model = all(&collection, 50)
        .into_iter()
        .map(|(record, _)| (record.id.clone(), record))
        .collect();
    assert_eq!(collection.len(), found.len());
    for thread in 0..THREADS {
        let acked = acks[thread as usize];
        let mut each = batches(seed, thread);
        each.by_ref()
            .take(acked)
            .for_each(|batch| apply(model, &batch));
        // The one that was on its way has been logged, or has not.
        let mut also = model.clone();
        apply(&mut also, &each.next().unwrap());
        let own = |all: &Model| -> Model {
            let prefix = format!("{thread}-");
            let own = all.iter().filter(|(id, _)| id.starts_with(&prefix));
            own.map(|(id, record)| (id.clone(), record.clone()))
                .collect()
        };
        if own(&found) != own(model) {
            assert_eq!(
                own(&found),
                own(&also),
                "neither before nor after the last batch"
            );
            *model = also;
        }
    }
    for (id, record) in &*model {
        let best = collection.search(&ask(&record.vector, 200)).unwrap();
        assert!(best.iter().any(|one| one.id == *id), "{id} is not found");
        assert!(best.iter().all(|one| model.contains_key(&one.id)));
        if random.random_range(0..4) != 0 {
            break;
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rounds = number("SKERRY_CRASH_ROUNDS", 50);
    let from = number("SKERRY_CRASH_SEED", 1) as u64;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    Collection::create(dir, dot(), options()).unwrap().close();
    let mut model = Model::new();
    for seed in from..from + rounds as u64 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            round(dir, &mut model, seed);
        }));
        if let Err(panic) = result {
            eprintln!(
                "round {seed} failed; again: SKERRY_CRASH_SEED={from} SKERRY_CRASH_ROUNDS={} \
                 cargo test -p skerry-vector-index survives_kill_9",
                seed + 1 - from
            );
            std::panic::resume_unwind(panic);
        }
    }
}
