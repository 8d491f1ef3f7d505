use super::world::*;
use crate::Step;
use std::time::Instant;

fn trained(origin: &Running) -> bool {
    origin
        .notes
        .lock()
        .iter()
        .any(|step| matches!(step, Step::Train { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_data_is_neither_imported_nor_trained_again() {
    let origin = Running::start().await;
    assert!(trained(&origin));
    let model = origin.handle.model().unwrap();
    let current = origin.pop("p").await.welcome.current;
    let (dir, certificates) = origin.stop().await;

    let began = Instant::now();
    let again = Running::start_in(dir, certificates, |options| {
        options.data = Some(data(1, USERS))
    })
    .await
    .unwrap();
    println!("ready again after {} ms", began.elapsed().as_millis());
    assert!(!trained(&again));
    assert_eq!(again.handle.model().unwrap(), model);
    assert_eq!(again.pop("p").await.welcome.current.len(), current.len());
    for one in again.pop("p").await.welcome.current {
        assert!(
            current.contains(&one),
            "what did not change keeps its epoch: {one:?}"
        );
    }
    let (dir, certificates) = again.stop().await;

    // Different data is added, nothing deleted, and the model follows.
    let other = Running::start_in(dir, certificates, |options| {
        options.data = Some(data(2, USERS + 4))
    })
    .await
    .unwrap();
    assert!(trained(&other));
    assert!(
        other
            .notes
            .lock()
            .iter()
            .any(|step| matches!(step, Step::Note(note) if note.contains("differs")))
    );
    assert_eq!(other.handle.model().unwrap().number, 2);
    assert_eq!(other.handle.events().unwrap(), 12 * (USERS as u64 + 4));
    for (kind, epoch, _) in other.pop("p").await.welcome.current {
        let before = current.iter().find(|one| one.0 == kind).unwrap().1;
        assert!(epoch >= before, "{kind:?}");
    }
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let origin = Running::start().await;
    let mut pop = origin.pop("p").await;
    for n in 0..30u64 {
        let events = (0..10)
            .map(|k| event(&format!("k{n}-{k}"), "7", &k.to_string(), 5_000_000 + n))
            .collect();
        pop.deliver(n, events).await;
    }
    // The files as a kill leaves them.
    let killed = tempfile::tempdir().unwrap();
    copy(origin.dir.path(), killed.path());
    let (_, certificates) = origin.stop().await;
    let again = Running::start_in(killed, certificates, |_| {})
        .await
        .unwrap();
    assert_eq!(again.handle.events().unwrap(), 12 * USERS as u64 + 300);
    // The PoP did not hear all acknowledgements and sends everything again.
    let mut pop = again.pop("p").await;
    pop.deliver(
        1,
        (0..10)
            .map(|k| event(&format!("k29-{k}"), "7", &k.to_string(), 5_000_029))
            .collect(),
    )
    .await;
    assert_eq!(again.handle.events().unwrap(), 12 * USERS as u64 + 300);
    let recent = pop
        .ask(&ask(Some("7"), 5))
        .await
        .outcome
        .unwrap()
        .context
        .unwrap()
        .read()
        .unwrap()
        .recent;
    assert_eq!(
        recent.last().unwrap().at_ms,
        5_000_029,
        "contexts have what the log has"
    );
    again.stop().await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_model_is_refused_by_name_and_repaired_on_request() {
    let (mut dir, mut certificates) = Running::start().await.stop().await;
    let models = dir.path().join("state/models");
    let file = std::fs::read_dir(&models)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ext| ext == "model"))
        .unwrap();
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let damages: [(&std::path::Path, &[u8]); 3] = [
        (&file, &flipped),
        (&file, &whole[..whole.len() / 2]),
        (&models.join("CURRENT"), b"{nonsense"),
    ];
    for (path, bytes) in damages {
        let good = std::fs::read(path).unwrap();
        std::fs::write(path, bytes).unwrap();
        let origin = options(dir.path()).build().await.unwrap();
        let error = origin.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.code(), "state_corrupt");
        assert!(
            error
                .to_string()
                .contains(path.file_name().unwrap().to_str().unwrap()),
            "{error}"
        );
        std::fs::write(path, good).unwrap();
    }
    std::fs::write(&file, &flipped).unwrap();
    let repaired = Running::start_in(dir, certificates, |options| options.repair = true)
        .await
        .unwrap();
    assert!(trained(&repaired), "the log has all that is needed");
    (dir, certificates) = repaired.stop().await;
    assert!(file.with_extension("model.corrupt").exists());
    Running::start_in(dir, certificates, |_| {})
        .await
        .unwrap()
        .stop()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_events_is_refused() {
    let (dir, _certificates) = Running::start().await.stop().await;
    let mark = dir.path().join("state/EVENTS_MARK");
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "720");
    for (text, code) in [
        ("721", Some("state_corrupt")),
        ("x", Some("state_corrupt")),
        ("700", None),
    ] {
        std::fs::write(&mark, text).unwrap();
        assert_eq!(
            options(dir.path())
                .build()
                .await
                .err()
                .map(|error| error.code()),
            code,
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_events_are_learned_from_where_they_are_configured() {
    use skerry_types::{EventKind, Taste};
    let learned = async |configured: bool| {
        let origin = Running::start_with(|options| {
            if configured {
                let rule = crate::EventRule {
                    taste: Some(Taste::Positive),
                    weight: 1.0,
                };
                options.events = [("finished".into(), rule)].into();
            }
        })
        .await;
        let mut pop = origin.pop("p").await;
        let finished = |n: u64| {
            let mut event = event(&format!("f{n}"), &format!("u{n}"), "3", 4_000_000 + n);
            event.kind = EventKind::Custom("finished".into());
            event
        };
        pop.deliver(1, (0..10).map(finished).collect()).await;
        let about = origin.handle.train().await.unwrap();
        origin.stop().await;
        about.events
    };
    let before = 12 * USERS as u64;
    assert_eq!(learned(true).await, before + 10);
    assert_eq!(learned(false).await, before);
}
