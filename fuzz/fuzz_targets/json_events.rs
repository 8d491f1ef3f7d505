//! Events: every entry is taken or rejected, with an index of its own, and what is taken survives
//! the way to the origin and out again as JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;
use skerry_types::{Hlc, TenantId, Uid};
use skerry_wire::json::{
    EventStamp, event_to_json, format_time, parse_events, parse_time, render_accepted,
};
use skerry_wire::value::EventBatch;
use std::collections::BTreeSet;
use std::sync::Arc;

const NOW: u64 = 1_795_176_000_000;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(ms) = parse_time(text)
    {
        assert_eq!(parse_time(&format_time(ms)), Some(ms), "{text}");
    }
    let parsed = match parse_events(data, NOW) {
        Ok(parsed) => parsed,
        Err(problem) => {
            assert!(matches!(problem.status, 400 | 413));
            serde_json::from_slice::<serde_json::Value>(&problem.render(Uid(1)))
                .expect("a problem is JSON");
            return;
        }
    };
    let indices: BTreeSet<usize> = parsed
        .accepted
        .iter()
        .map(|(index, _)| *index)
        .chain(parsed.rejected.iter().map(|r| r.index))
        .collect();
    assert_eq!(indices.len(), parsed.accepted.len() + parsed.rejected.len());
    assert_eq!(
        indices.last().map(|last| last + 1),
        Some(indices.len()),
        "every entry is judged"
    );

    let mut out = Vec::new();
    render_accepted(&mut out, parsed.accepted.len(), &parsed.rejected);
    serde_json::from_slice::<serde_json::Value>(&out).expect("the receipt is JSON");

    let stamp = || EventStamp {
        tenant: TenantId::default(),
        fresh_id: Uid::v7(NOW, 7),
        accepted_ms: NOW,
        hlc: Hlc::default(),
        region: Arc::from("region"),
        pop: Arc::from("pop"),
    };
    let events: Vec<_> = parsed
        .accepted
        .into_iter()
        .map(|(_, event)| event.accept(stamp()))
        .collect();
    for event in &events {
        let mut out = Vec::new();
        event_to_json(&mut out, event);
        serde_json::from_slice::<serde_json::Value>(&out).expect("an event is JSON");
    }
    let batch = EventBatch { events };
    let bytes = skerry_wire::encode(&batch).expect("accepted events encode");
    assert_eq!(
        skerry_wire::decode::<EventBatch>(&bytes).expect("and decode"),
        batch
    );
});
