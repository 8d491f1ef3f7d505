use super::*;
use skerry_origin_events::{Log, Mode};
use skerry_testkit::like as event;
use skerry_types::{ItemId, SessionId};

fn open(db: &Database) -> (Arc<Store>, Log) {
    let store = Arc::new(Store::open(db, &Log::reader_of(db).unwrap()).unwrap());
    let log = Log::open(db, vec![store.clone()]).unwrap();
    (store, log)
}

fn recent(store: &Store, subject: &str) -> Vec<String> {
    let context = store.context(&TenantId::default(), subject).unwrap();
    context.map_or_else(Vec::new, |context| {
        context
            .recent
            .iter()
            .map(|event| event.id.to_string())
            .collect()
    })
}

#[test]
fn a_context_follows_the_log_before_the_append_returns() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::builder(dir.path()).open().unwrap();
    let (store, log) = open(&db);
    let mut visit = event("v", "1", "x", 5);
    (visit.user, visit.session) = (None, Some(SessionId::new("1").unwrap()));
    log.append(
        vec![event("b", "1", "y", 2), event("a", "1", "x", 1), visit],
        Mode::Once,
        9,
    )
    .unwrap();
    assert_eq!(recent(&store, "u:1"), ["a", "b"], "by time, not by arrival");
    assert_eq!(
        recent(&store, "s:1"),
        ["v"],
        "a session of the same name is another subject"
    );
    assert!(recent(&store, "u:2").is_empty());
    let merged = merge_pending(
        &store.context(&TenantId::default(), "u:1").unwrap().unwrap(),
        &[event("b", "1", "y", 2), event("c", "1", "z", 3)],
    );
    assert_eq!(merged.recent.len(), 3);
}

#[test]
fn a_restart_replays_what_was_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::builder(dir.path()).open().unwrap();
    {
        let (_store, log) = open(&db);
        log.append(
            (0..80)
                .map(|n| event(&format!("e{n}"), "1", &format!("i{n}"), n))
                .collect(),
            Mode::Once,
            9,
        )
        .unwrap();
        log.flush().unwrap();
        log.close();
    }
    {
        // Written behind the store's back: what a crash between commit and flush leaves.
        let log = Log::open(&db, vec![]).unwrap();
        log.append(vec![event("late", "1", "j", 200)], Mode::Once, 10)
            .unwrap();
    }
    let (store, _log) = open(&db);
    let context = store.context(&TenantId::default(), "u:1").unwrap().unwrap();
    assert_eq!(context.recent.len(), 50);
    assert_eq!(context.recent.last().unwrap().id.as_str(), "late");
    assert_eq!(context.seen.len(), 81, "the seen set is complete");
}

#[test]
fn an_upsert_rebuilds_and_an_erasure_forgets() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::builder(dir.path()).open().unwrap();
    let tenant = TenantId::default();
    {
        let (store, log) = open(&db);
        log.append(
            vec![event("a", "1", "x", 1), event("b", "1", "y", 2)],
            Mode::Upsert,
            9,
        )
        .unwrap();
        log.append(vec![event("a", "1", "z", 3)], Mode::Upsert, 10)
            .unwrap();
        let context = store.context(&tenant, "u:1").unwrap().unwrap();
        assert_eq!(recent(&store, "u:1"), ["b", "a"]);
        assert!(
            !context.has_seen(ItemId::new("x").unwrap().hash())
                && context.has_seen(ItemId::new("z").unwrap().hash())
        );
        log.erase(&tenant, "u:1", 20).unwrap();
        store.erase(&tenant, "u:1").unwrap();
        assert!(recent(&store, "u:1").is_empty());
        log.close();
    }
    assert!(recent(&open(&db).0, "u:1").is_empty());
}

#[test]
fn memory_is_bounded_and_nothing_is_lost_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::builder(dir.path()).open().unwrap();
    let (store, log) = open(&db);
    let users = HOT_CONTEXTS_MAX + 5_000;
    for chunk in (0..users).collect::<Vec<_>>().chunks(4_000) {
        let events = chunk
            .iter()
            .map(|n| event(&format!("e{n}"), &format!("{n}"), "x", 1))
            .collect();
        log.append(events, Mode::Once, 9).unwrap();
    }
    log.flush().unwrap();
    for n in 0..users {
        assert_eq!(recent(&store, &format!("u:{n}")).len(), 1, "user {n}");
    }
    assert!(store.hot() <= HOT_CONTEXTS_MAX, "{}", store.hot());
}
