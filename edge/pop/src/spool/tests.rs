use super::*;
use skerry_types::{EventId, EventKind, Hlc, ItemId, TenantId, UserId};
use std::fs;

const SMALL: Limits = Limits {
    events_max: 100,
    bytes_max: 1 << 20,
    segment_bytes: 1 << 10,
};

fn event(n: usize, user: &str) -> Pending {
    let event = Event {
        tenant: TenantId::default(),
        id: EventId::new(&format!("e{n}")).unwrap(),
        kind: EventKind::Like,
        user: Some(UserId::new(user).unwrap()),
        session: None,
        item: Some(ItemId::new("318").unwrap()),
        value: None,
        at_ms: n as u64,
        accepted_ms: n as u64,
        surface: None,
        request_id: None,
        positions: vec![],
        hlc: Hlc::default(),
        region: Arc::from("r"),
        pop: Arc::from("p"),
    };
    Pending {
        subject: Arc::from(user),
        event: Arc::new(event),
    }
}

fn ids(events: &[Arc<Event>]) -> Vec<String> {
    events.iter().map(|event| event.id.to_string()).collect()
}

fn all(spool: &Spool) -> Vec<String> {
    spool
        .after(0, usize::MAX, u64::MAX)
        .map_or_else(Vec::new, |(_, events)| ids(&events))
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("e{n}")).collect()
}

async fn append(spool: &Spool, range: std::ops::Range<usize>) {
    for n in range {
        spool
            .append(vec![event(n, if n % 2 == 0 { "even" } else { "odd" })])
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_was_appended_is_there_in_order_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (spool, recovered) = Spool::open(dir.path(), SMALL).unwrap();
        assert_eq!(recovered, Recovered::default());
        append(&spool, 0..50).await;
        spool.ack(20);
        assert_eq!(
            ids(&spool.pending("even")),
            (20..50)
                .step_by(2)
                .map(|n| format!("e{n}"))
                .collect::<Vec<_>>()
        );
        spool.close();
        assert_eq!(
            spool.append(vec![event(99, "u")]).await,
            Err(SpoolError::Busy),
            "closed"
        );
    }
    assert!(
        fs::read_dir(dir.path()).unwrap().count() > 2,
        "several segments and the note"
    );
    let (spool, recovered) = Spool::open(dir.path(), SMALL).unwrap();
    assert_eq!(
        recovered,
        Recovered {
            events: 30,
            ..Recovered::default()
        }
    );
    assert_eq!(all(&spool), names(20..50));
    assert_eq!(
        spool
            .after(45, 500, u64::MAX)
            .map(|(seq, e)| (seq, ids(&e))),
        Some((50, names(45..50)))
    );
    append(&spool, 50..52).await;
    assert_eq!(
        spool.after(50, 500, u64::MAX).map(|(seq, _)| seq),
        Some(52),
        "sequences go on"
    );
    spool.ack(52);
    spool.tidy().unwrap();
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "the newest segment and the note"
    );
    assert!(spool.pending("even").is_empty());
    spool.close();
    let (spool, _) = Spool::open(dir.path(), SMALL).unwrap();
    append(&spool, 52..53).await;
    assert_eq!(
        spool.after(0, 500, u64::MAX).map(|(seq, _)| seq),
        Some(53),
        "no sequence is used twice"
    );
}

#[tokio::test]
async fn a_tail_cut_anywhere_loses_only_what_was_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), Limits::default()).unwrap();
    append(&spool, 0..2).await;
    let segment = segment::list(dir.path()).unwrap().remove(0).1;
    let two = fs::metadata(&segment).unwrap().len();
    append(&spool, 2..3).await;
    spool.close();
    let whole = fs::read(&segment).unwrap();
    for cut in 0..whole.len() {
        // The file ends here, or what follows is garbage.
        for garbage in [false, true] {
            let scratch = tempfile::tempdir().unwrap();
            let mut bytes = whole[..cut].to_vec();
            if garbage {
                bytes.resize(whole.len() + 40, 0xA5);
            }
            fs::write(scratch.path().join(segment.file_name().unwrap()), &bytes).unwrap();
            let (spool, _) = Spool::open(scratch.path(), Limits::default()).unwrap();
            let kept = segment::scan(&segment).unwrap().records.len();
            assert_eq!(kept, 3);
            let got = all(&spool);
            assert_eq!(got, names(0..got.len()), "cut at {cut}");
            assert_eq!(got.len() >= 2, cut as u64 >= two, "cut at {cut} of {two}");
            assert!(got.len() < 3, "the third was never whole");
            append(&spool, 7..8).await;
            spool.close();
            let (spool, recovered) = Spool::open(scratch.path(), Limits::default()).unwrap();
            assert_eq!(recovered.torn_bytes, 0, "repaired");
            assert_eq!(all(&spool).last().unwrap(), "e7");
        }
    }
}

#[tokio::test]
async fn damage_in_an_older_file_is_kept_and_the_rest_survives() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), SMALL).unwrap();
    append(&spool, 0..40).await;
    spool.close();
    let (_, first) = segment::list(dir.path()).unwrap().remove(0);
    let mut bytes = fs::read(&first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&first, bytes).unwrap();
    let (spool, recovered) = Spool::open(dir.path(), SMALL).unwrap();
    assert_eq!(recovered.corrupt_files, 1);
    assert!(first.with_extension("seg.corrupt").exists());
    let got = all(&spool);
    assert!(
        got.len() >= 30 && got.contains(&"e39".to_owned()) && got[0] == "e0",
        "{got:?}"
    );
    // Positions stay the files' own: acknowledging one must not drop what comes after it.
    let (seq, events) = spool.after(0, got.len() - 1, u64::MAX).unwrap();
    spool.ack(seq);
    assert_eq!(all(&spool), ["e39"], "{} acknowledged", events.len());
    spool.close();
    let (spool, _) = Spool::open(dir.path(), SMALL).unwrap();
    assert_eq!(all(&spool), ["e39"]);
}

#[tokio::test]
async fn beyond_its_bounds_it_refuses_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), SMALL).unwrap();
    append(&spool, 0..100).await;
    assert_eq!(
        spool.append(vec![event(100, "u")]).await,
        Err(SpoolError::Full)
    );
    spool.ack(1);
    append(&spool, 100..101).await;
    assert_eq!(
        spool.append(vec![event(101, "u")]).await,
        Err(SpoolError::Full)
    );
    assert_eq!(all(&spool).len(), 100);
    let mut huge = event(102, "u");
    huge.subject = Arc::from("x".repeat(segment::PAYLOAD_BYTES_MAX).as_str());
    assert_eq!(spool.append(vec![huge]).await, Err(SpoolError::Large));
}

#[tokio::test]
async fn concurrent_appends_are_all_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        events_max: 10_000,
        ..SMALL
    };
    let (spool, _) = Spool::open(dir.path(), limits).unwrap();
    let tasks: Vec<_> = (0..50)
        .map(|task| {
            let spool = spool.clone();
            tokio::spawn(async move {
                let batch = (0..10).map(|n| event(task * 10 + n, "u")).collect();
                spool.append(batch).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    spool.close();
    let (spool, _) = Spool::open(dir.path(), limits).unwrap();
    let mut got = all(&spool);
    got.sort();
    let mut want = names(0..500);
    want.sort();
    assert_eq!(got, want);
}
