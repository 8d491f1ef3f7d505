//! `/metrics` against the text format, line by line: a family is its HELP, its TYPE, its samples.

use super::world::*;
use std::collections::{BTreeMap, BTreeSet};

struct Family {
    kind: String,
    /// Name, labels, value.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap();
        let (value, after) = after.split_once('"').unwrap();
        assert!(is_name(name) && !value.contains(['\\', '\n']), "{text}");
        assert!(labels.insert(name.to_owned(), value.to_owned()).is_none());
        rest = match after.strip_prefix(',') {
            Some(after) => after,
            None => {
                assert!(after.is_empty(), "{text}");
                after
            }
        };
    }
    labels
}

fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n') && !text.contains('\r'));
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut helped: Option<String> = None;
    let mut current: Option<String> = None;
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        assert!(!line.is_empty(), "a blank line after {current:?}");
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(
                is_name(name) && !words.is_empty() && helped.is_none(),
                "{line}"
            );
            helped = Some(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(helped.take().as_deref(), Some(name), "HELP comes first");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let family = Family {
                kind: kind.to_owned(),
                samples: Vec::new(),
            };
            assert!(
                families.insert(name.to_owned(), family).is_none(),
                "{name} comes twice"
            );
            current = Some(name.to_owned());
        } else {
            assert!(!line.starts_with('#') && helped.is_none(), "{line}");
            assert!(
                seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()),
                "{line}"
            );
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labelled) = match series.split_once('{') {
                Some((name, rest)) => (name, labels(rest.strip_suffix('}').unwrap())),
                None => (series, BTreeMap::new()),
            };
            let current = current.as_deref().expect("a TYPE before samples");
            let family = families.get_mut(current).unwrap();
            let suffix = name
                .strip_prefix(current)
                .unwrap_or_else(|| panic!("{line}"));
            let fits = match family.kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
                _ => suffix.is_empty(),
            };
            assert!(is_name(name) && fits, "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite(), "{line}");
            family.samples.push((name.to_owned(), labelled, value));
        }
    }
    assert!(helped.is_none());
    families
}

/// Buckets of one series grow, with their bounds, up to the count.
fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        if sample.ends_with("_bucket") {
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap().parse::<f64>().unwrap();
            series.entry(labels).or_default().push((bound, *value));
        }
    }
    assert!(!series.is_empty(), "{name}");
    for (labels, buckets) in series {
        let ordered = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        assert!(buckets.windows(2).all(ordered), "{name} {labels:?}");
        let (bound, most) = *buckets.last().unwrap();
        assert!(bound.is_infinite());
        let of = |suffix: &str| {
            let wanted = format!("{name}{suffix}");
            let mut samples = family.samples.iter();
            samples
                .find(|(sample, found, _)| *sample == wanted && *found == labels)
                .unwrap()
                .2
        };
        assert_eq!(most, of("_count"));
        assert!(of("_sum") >= 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_follow_the_text_format() {
    let origin = Running::start().await;
    let mut pop = origin.pop("p1").await;
    pop.ask(&ask(Some("1"), 10)).await.outcome.unwrap();
    pop.deliver(1, vec![event("m1", "1", "3", 2_000_000)]).await;
    let (status, head, body) = origin.http("GET", "/metrics", b"").await;
    assert_eq!(status, 200);
    assert!(head.contains("text/plain; version=0.0.4"));
    let families = parse(body.as_str().unwrap());
    for (name, family) in &families {
        assert!(
            name.starts_with("skerry_") && !family.samples.is_empty(),
            "{name}"
        );
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
    let value = |name: &str, label: Option<(&str, &str)>| {
        let samples = &families
            .get(name)
            .unwrap_or_else(|| panic!("{name}"))
            .samples;
        let wanted = |labels: &BTreeMap<String, String>| {
            label.is_none_or(|(label, value)| labels.get(label).is_some_and(|found| found == value))
        };
        let found = samples.iter().find(|(_, labels, _)| wanted(labels));
        found.unwrap_or_else(|| panic!("{name} {label:?}")).2
    };
    let cases = [
        (
            "skerry_origin_asks_total",
            Some(("outcome", "answered")),
            1.0,
        ),
        ("skerry_events_total", Some(("result", "new")), 1.0),
        ("skerry_origin_ready", None, 1.0),
        ("skerry_origin_rewards_dropped_total", None, 0.0),
        ("skerry_origin_answers_dropped_total", None, 0.0),
        ("skerry_stream_lag_seconds", None, 0.0),
        (
            "skerry_origin_consumer_lag_seconds",
            Some(("consumer", "rewards")),
            0.0,
        ),
        (
            "skerry_origin_consumer_waiting",
            Some(("consumer", "contexts")),
            0.0,
        ),
        ("skerry_model_info", Some(("version", "ranker@1")), 1.0),
    ];
    for (name, label, want) in cases {
        assert_eq!(value(name, label), want, "{name}");
    }
}
