use super::*;
use crate::handle::Log;
use parking_lot::Mutex;
use skerry_testkit::like as event;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

#[derive(Default)]
struct Counting {
    applied: AtomicUsize,
    flushed: AtomicUsize,
}

impl Consumer for Counting {
    fn apply(&self, _: &Reader, batch: &[Stored]) {
        self.applied.fetch_add(batch.len(), Ordering::SeqCst);
    }
    fn flush(&self, _: u64) {
        self.flushed.fetch_add(1, Ordering::SeqCst);
    }
}

fn open(dir: &std::path::Path) -> (Log, Arc<Counting>, Database) {
    let db = Database::builder(dir).open().unwrap();
    let counting = Arc::new(Counting::default());
    let log = Log::open(&db, vec![counting.clone()]).unwrap();
    (log, counting, db)
}

#[test]
fn an_event_is_applied_once_across_appends_groups_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = TenantId::default();
    {
        let (log, counting, _db) = open(dir.path());
        let first = log.append(
            vec![
                event("a", "1", "x", 1),
                event("a", "1", "x", 1),
                event("b", "1", "y", 2),
            ],
            Mode::Once,
            10,
        );
        assert_eq!(
            first.unwrap(),
            Appended {
                seq: 2,
                new: 2,
                duplicate: 1,
                ..Appended::default()
            }
        );
        let second = log
            .append(
                vec![event("b", "1", "y", 2), event("c", "2", "y", 3)],
                Mode::Once,
                11,
            )
            .unwrap();
        assert_eq!((second.new, second.duplicate, second.seq), (1, 1, 3));
        assert_eq!(counting.applied.load(Ordering::SeqCst), 3);
    }
    let (log, counting, _db) = open(dir.path());
    let third = log
        .append(
            vec![event("a", "1", "x", 1), event("d", "1", "z", 4)],
            Mode::Once,
            12,
        )
        .unwrap();
    assert_eq!((third.new, third.duplicate, third.seq), (1, 1, 4));
    assert_eq!(counting.applied.load(Ordering::SeqCst), 1);
    assert_eq!(log.reader().count(&tenant).unwrap(), 4);
    let ids: Vec<_> = log
        .reader()
        .by_user(&tenant, "u:1", 1, 10)
        .unwrap()
        .into_iter()
        .map(|(seq, e)| (seq, e.id.to_string()))
        .collect();
    assert_eq!(ids, [(2, "b".to_owned()), (4, "d".to_owned())]);
    log.close();
    assert!(counting.flushed.load(Ordering::SeqCst) > 0);
    assert!(matches!(
        log.append(vec![], Mode::Once, 13),
        Err(Error::Closed)
    ));
}

#[test]
fn an_upsert_replaces_in_place_and_only_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _, _db) = open(dir.path());
    log.append(
        vec![event("a", "1", "x", 1), event("b", "1", "y", 2)],
        Mode::Upsert,
        10,
    )
    .unwrap();
    let mut changed = event("a", "2", "x", 1);
    changed.value = Some(3.0);
    let appended = log
        .append(vec![changed, event("b", "1", "y", 2)], Mode::Upsert, 11)
        .unwrap();
    assert_eq!(
        (
            appended.new,
            appended.replaced,
            appended.duplicate,
            appended.seq
        ),
        (0, 1, 1, 2)
    );
    let tenant = TenantId::default();
    assert_eq!(
        log.reader().by_user(&tenant, "u:1", 0, 10).unwrap().len(),
        1
    );
    assert_eq!(
        log.reader().by_user(&tenant, "u:2", 0, 10).unwrap().len(),
        1
    );
    assert_eq!(log.reader().count(&tenant).unwrap(), 2);
}

#[test]
fn an_erased_user_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let tenant = TenantId::default();
    let (log, _, db) = open(dir.path());
    log.append(
        vec![event("a", "1", "x", 1), event("b", "2", "x", 1)],
        Mode::Once,
        10,
    )
    .unwrap();
    assert_eq!(log.erase(&tenant, "u:1", 20).unwrap().erased, 1);
    assert_eq!(log.reader().count(&tenant).unwrap(), 1);
    assert!(
        log.reader()
            .by_user(&tenant, "u:1", 0, 10)
            .unwrap()
            .is_empty()
    );
    drop(log);
    let log = Log::open(&db, vec![]).unwrap();
    let late = log.append(
        vec![
            event("late", "1", "y", 19),
            event("a", "1", "x", 21),
            event("new", "1", "y", 21),
        ],
        Mode::Upsert,
        30,
    );
    let late = late.unwrap();
    assert_eq!((late.erased, late.duplicate, late.new), (1, 1, 1));
    let mut replayed = Vec::new();
    log.reader()
        .replay(&tenant, 0, 10, &mut |seq, e| {
            replayed.push((seq, e.id.to_string()))
        })
        .unwrap();
    assert_eq!(replayed, [(2, "b".to_owned()), (3, "new".to_owned())]);
}

#[test]
fn ids_are_forgotten_after_seven_days_but_never_those_of_imports() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _, _db) = open(dir.path());
    let mut imported = event("i", "1", "x", 1);
    imported.pop = IMPORTED.into();
    log.append(
        vec![event("a", "1", "x", 1), imported.clone()],
        Mode::Once,
        10,
    )
    .unwrap();
    let later = 10 + DEDUPE_MS;
    // Any append prunes first what is due by then.
    log.append(vec![event("tick", "9", "x", 1)], Mode::Once, later)
        .unwrap();
    let again = log
        .append(
            vec![event("a", "1", "x", 1), imported],
            Mode::Once,
            later + 1,
        )
        .unwrap();
    assert_eq!((again.new, again.duplicate), (1, 1));
}

#[test]
fn what_was_acknowledged_survives_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    {
        let (log, _, _db) = open(dir.path());
        for n in 0..50 {
            log.append(vec![event(&format!("e{n}"), "1", "x", n)], Mode::Once, n)
                .unwrap();
        }
        // What kill -9 leaves: the files as they are while the log is open.
        copy_folder(dir.path(), copy.path());
    }
    for entry in std::fs::read_dir(copy.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "jnl") {
            // A batch that was cut off in the middle.
            let mut bytes = std::fs::read(&path).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            bytes.truncate(end);
            bytes.extend_from_slice(&[1, 2, 0, 0, 0, 9]);
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let (log, _, _db) = open(copy.path());
    assert_eq!(log.reader().count(&TenantId::default()).unwrap(), 50);
    assert_eq!(
        log.append(vec![event("e7", "1", "x", 7)], Mode::Once, 99)
            .unwrap()
            .duplicate,
        1
    );
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Lets one batch through at a time.
struct Gate(Mutex<Receiver<()>>);

impl Consumer for Gate {
    fn apply(&self, _: &Reader, _: &[Stored]) {
        self.0.lock().recv().unwrap();
    }
    fn flush(&self, _: u64) {}
}

#[test]
fn lag_is_what_waits_for_the_consumers() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::builder(dir.path()).open().unwrap();
    let (open, gate) = sync_channel(8);
    let log = Log::open(&db, vec![Arc::new(Gate(Mutex::new(gate)))]).unwrap();
    let (told, applied) = sync_channel(8);
    let submit = |id: &str, at| {
        let told = told.clone();
        let done = move |result: Result<Appended, Error>| told.send(result.is_ok()).unwrap();
        log.submit(vec![event(id, "u", "i", at)], Mode::Once, at, done)
            .unwrap();
    };
    assert_eq!((log.lag().waiting(), log.lag().ms()), (0, 0));
    submit("a", 1_000);
    submit("b", 4_000);
    assert_eq!((log.lag().waiting(), log.lag().ms()), (2, 3_000));
    // One or two groups: the writer may have taken the first alone.
    open.send(()).unwrap();
    open.send(()).unwrap();
    assert!(applied.recv().unwrap() && applied.recv().unwrap());
    assert_eq!((log.lag().waiting(), log.lag().ms()), (0, 0));
    drop(open);
    log.close();
    let refused = log.submit(vec![event("c", "u", "i", 9_000)], Mode::Once, 1, |_| {});
    assert!(refused.is_err());
    assert_eq!(log.lag().waiting(), 0, "what is refused does not wait");
}
