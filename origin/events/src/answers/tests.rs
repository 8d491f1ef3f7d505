use super::segment::{BODY_BYTES_MAX, SEGMENTS_MAX};
use super::writer::SEGMENT_BYTES_MAX;
use super::*;
use skerry_types::{
    Ask, Attributes, Candidate, ItemId, Metadata, Reason, ReasonKind, Rung, Source, Surface, Value,
};
use skerry_wire::value::{Shown, metadata};

const DAY_MS: Millis = 24 * 3600 * 1000;

fn keep(answers: &Answers, request: u128, at_ms: Millis, padding: usize) {
    let ask = AskFrame {
        request_id: Uid(request),
        ask: Ask {
            budget_ms: 100,
            ..Ask::default()
        },
        left_ms: 100,
        seed: 1,
        pending: vec![],
        known_context: 0,
    };
    let title = Attributes::from([("title".into(), Value::text("Heat"))]);
    let decision = Decision {
        id: Uid(request + 1_000_000),
        rung: Rung::Full,
        cause: None,
        made_ms: at_ms,
        as_of_ms: at_ms,
        model: "ranker@1".into(),
        region: "r".into(),
        seed: 7,
        snapshot: 0,
        candidates: vec![Candidate {
            id: ItemId::new("6").unwrap(),
            score: 0.5,
            source: Source::Vector,
            propensity: 1.0,
            reason: Reason {
                kind: ReasonKind::Popular,
                item: None,
                detail: None,
            },
            fields: metadata::of(&title),
        }],
        warnings: vec![],
    };
    let inputs = [InputNote {
        name: "features".into(),
        status: "PRESENT".into(),
        as_of: Some(3),
        detail: "x".repeat(padding).into(),
    }];
    answers.answered(&Made {
        request: Uid(request),
        ask: &skerry_wire::encode(&ask).unwrap(),
        decision: &decision,
        stages: &[],
        inputs: &inputs,
        at_ms,
    });
}

fn exposure(request: u128, decision: u128) -> Exposure {
    Exposure {
        request_id: Uid(request),
        at_ms: 5,
        from_cache: true,
        shown: Shown {
            tenant: TenantId::default(),
            decision_id: Uid(decision),
            rung: Rung::Full,
            cause: None,
            surface: Surface::default(),
            subject: None,
            pop: "p".into(),
            snapshot: 0,
            seed: 0,
            model: "m".into(),
            items: vec![],
        },
    }
}

/// Waits for the writer, which is behind by design.
fn until(answers: &Answers, request: u128) -> Explained {
    for _ in 0..500 {
        let explained = answers.explain(&TenantId::default(), Uid(request));
        if explained.answered.is_some() || explained.exposure.is_some() {
            return explained;
        }
        std::thread::yield_now();
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    panic!("{request} was not kept");
}

#[test]
fn a_request_is_explained_by_its_own_answer_or_the_one_it_was_made_from() {
    let dir = tempfile::tempdir().unwrap();
    {
        let answers = Answers::open(dir.path()).unwrap();
        keep(&answers, 1, 10, 0);
        // An answer from the PoP's cache: another request, the same decision.
        let shown = exposure(2, 1_000_001);
        let bytes = skerry_wire::encode(&shown.shown).unwrap();
        let bytes = exposure::join(shown.request_id, shown.at_ms, shown.from_cache, &bytes);
        answers.exposed(ExposureBytes(bytes));
        answers.exposed(ExposureBytes(vec![7; 40]));
        assert_eq!(answers.dropped(), 1, "garbage");
        keep(&answers, 9, 10, BODY_BYTES_MAX);
        assert_eq!(answers.dropped(), 2, "larger than a record may be");
        let direct = until(&answers, 1).answered.unwrap();
        assert_eq!(
            (
                direct.at_ms,
                direct.ask.request_id,
                &*direct.inputs[0].status
            ),
            (10, Uid(1), "PRESENT")
        );
        let [candidate] = &direct.decision.candidates[..] else {
            panic!("{:?}", direct.decision);
        };
        assert_eq!((candidate.id.as_str(), candidate.score), ("6", 0.5));
        assert_eq!(
            candidate.fields,
            Metadata::default(),
            "the catalogue has the metadata"
        );
        until(&answers, 2);
    }
    let answers = Answers::open(dir.path()).unwrap();
    let again = until(&answers, 2);
    assert_eq!(again.exposure.unwrap(), exposure(2, 1_000_001));
    assert_eq!(again.answered.unwrap().ask.request_id, Uid(1));
    let other = answers.explain(&TenantId::new("other").unwrap(), Uid(1));
    assert!(
        other.answered.is_none(),
        "another tenant's requests are unknown"
    );
}

#[test]
fn a_torn_tail_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    {
        let answers = Answers::open(dir.path()).unwrap();
        keep(&answers, 1, 10, 0);
        until(&answers, 1);
    }
    let path = dir.path().join("00000001.seg");
    let whole = std::fs::read(&path).unwrap();
    for tail in [
        &whole[..20],
        &whole[..whole.len() - 1],
        b"garbage garbage garbage garbage garbage garbage garbage",
    ] {
        std::fs::write(&path, [&whole, tail].concat()).unwrap();
        let answers = Answers::open(dir.path()).unwrap();
        assert!(
            answers
                .explain(&TenantId::default(), Uid(1))
                .answered
                .is_some()
        );
        keep(&answers, 3, 11, 0);
        until(&answers, 3);
    }
}

#[test]
fn segments_are_bounded_and_leave_after_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let answers = Answers::open(dir.path()).unwrap();
    // A segment holds ten of them at most.
    let big = usize::try_from(SEGMENT_BYTES_MAX / 9).unwrap();
    let mut request = 1;
    for _ in 0..(SEGMENTS_MAX * 10) {
        keep(&answers, request, 10, big);
        until(&answers, request);
        request += 1;
    }
    let tenant = TenantId::default();
    assert!(
        answers.explain(&tenant, Uid(1)).answered.is_none(),
        "the oldest are gone"
    );
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    assert!(files() <= SEGMENTS_MAX, "{}", files());
    for _ in 0..20 {
        keep(&answers, request, 10 + 2 * DAY_MS, big);
        until(&answers, request);
        request += 1;
    }
    assert!(files() <= 3, "{} after a day", files());
}
