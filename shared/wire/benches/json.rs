//! What the public JSON costs: `cargo bench -p skerry-wire`. Medians (and the best) of rounds.

use skerry_types::{
    Attributes, Candidate, ItemId, ItemRef, Reason, ReasonKind, Rung, Source, TenantId, Uid, Value,
};
use skerry_wire::json::{
    AnswerView, ItemView, Served, Slots, parse_events, parse_recommend, parse_recommend_get,
    render_answer,
};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

fn measure(name: &str, mut work: impl FnMut()) {
    const ROUNDS: usize = 41;
    const EACH: u32 = 2_000;
    let mut nanos: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..EACH).for_each(|_| work());
            start.elapsed().as_nanos() / u128::from(EACH)
        })
        .collect();
    nanos.sort_unstable();
    println!(
        "{name:<36} {:>8} ns  (best {})",
        nanos[ROUNDS / 2],
        nanos[0]
    );
}

fn main() {
    let tenant = TenantId::default();
    measure("GET recommend, plain", || {
        black_box(
            parse_recommend_get(black_box("12345"), black_box("n=10&fields=title"), &tenant)
                .is_ok(),
        );
    });
    let query = "surface=home&n=10&exclude=318,260&fields=title,year&lowest_rung=edge&budget_ms=80&explain=true";
    measure("GET recommend, every parameter", || {
        black_box(parse_recommend_get(black_box("u%201"), black_box(query), &tenant).is_ok());
    });
    let body = include_bytes!("../tests/golden/recommend.request.json");
    measure("POST recommend, contract's example", || {
        black_box(parse_recommend(black_box(body), &tenant).is_ok());
    });
    let event =
        r#"{"id":"0198e1","type":"like","user":"u1","item":"318","at":"2026-11-20T12:00:00Z"}"#;
    let batch = format!("[{}]", vec![event; 100].join(","));
    measure("POST events, 100", || {
        black_box(parse_events(black_box(batch.as_bytes()), 1_795_176_000_000).is_ok());
    });

    let fields: Attributes = [
        ("title".into(), Value::text("The Matrix")),
        ("year".into(), Value::Int(1999)),
    ]
    .into();
    let liked = ItemRef {
        id: ItemId::new("1748").expect("an id"),
        title: Arc::from("Dark City"),
    };
    let candidates: Vec<Candidate> = (0..10u8)
        .map(|at| Candidate {
            id: ItemId::new(&format!("25{at}")).expect("an id"),
            score: 0.91 - f32::from(at) * 0.0137,
            source: Source::Vector,
            propensity: 1.0,
            reason: Reason {
                kind: ReasonKind::BecauseLiked,
                item: Some(liked.clone()),
                detail: None,
            },
            fields: skerry_wire::value::metadata::of(&fields),
        })
        .collect();
    let served = Served {
        rung: Rung::Full,
        cause: None,
        as_of_ms: 1_795_176_000_000,
        age_ms: 240,
        cache: "miss",
        decision_id: Uid(7),
        region: "us-west",
        pop: "sea1",
        model: "ranker@12",
        took_ms: 9,
    };
    let asked = ["title".into(), "year".into()];
    let mut out = Vec::with_capacity(8 << 10);
    for explain in [false, true] {
        let items: Vec<ItemView<'_>> = candidates
            .iter()
            .map(|c| {
                if explain {
                    ItemView::explained(c, "Because you liked Dark City", "template").with(&fields)
                } else {
                    ItemView::of(c)
                }
            })
            .collect();
        let view = AnswerView {
            request_id: Uid(1),
            items: &items,
            shown: 0,
            fields: if explain { &asked } else { &[] },
            served,
            next: None,
            warnings: &[],
        };
        measure(
            if explain {
                "render 10 items, fields, reasons"
            } else {
                "render 10 items"
            },
            || {
                out.clear();
                black_box(render_answer(black_box(&view), &mut out));
            },
        );
        println!("{:<36} {:>8} bytes", "", out.len());
        measure("patches of a hit", || {
            black_box(Slots::patches(black_box(Uid(9)), 17, "hit", 1));
        });
    }
}
