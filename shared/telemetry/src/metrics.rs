//! The metrics of one role. Handles are made once per combination of labels and then found by a read
//! lock and a hash: no allocation on the path of a request.

use crate::labels::{Cache, CacheResult, EventResult, OriginOutcome, RouteLabel, Stage};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use parking_lot::RwLock;
use skerry_resilience::BreakerState;
use skerry_types::{Cause, Rung};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

/// Different values of a label that configuration names (region, target, peer, surface class);
/// further ones are `other`.
pub const VALUES_MAX: usize = 64;
/// Samples are folded into their buckets this often, scraped or not.
const UPKEEP: Duration = Duration::from_secs(5);

const SECONDS: [f64; 19] = [
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25,
    0.5, 1.0, 2.5, 5.0,
];
const LAG_SECONDS: [f64; 10] = [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];
const BATCH: [f64; 11] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

const REQUESTS: &str = "skerry_requests_total";
const REQUEST_SECONDS: &str = "skerry_request_seconds";
const RUNG_CAUSE: &str = "skerry_rung_cause_total";
const CACHE: &str = "skerry_cache_total";
const ORIGIN_SECONDS: &str = "skerry_origin_seconds";
const BREAKER: &str = "skerry_breaker_state";
const STAGE_SECONDS: &str = "skerry_stage_seconds";
const RANK_BATCH: &str = "skerry_rank_batch_size";
const RANK_QUEUE: &str = "skerry_rank_queue_seconds";
const VECTOR_SECONDS: &str = "skerry_vector_search_seconds";
const STREAM_LAG: &str = "skerry_stream_lag_seconds";
const REPLICATION_LAG: &str = "skerry_replication_lag_seconds";
const EVENTS: &str = "skerry_events_total";
const WORKER_INFO: &str = "skerry_worker_info";
const MODEL_INFO: &str = "skerry_model_info";

/// Name and help of each, and whether seconds are its unit.
const HELP: [(&str, &str); 15] = [
    (
        REQUESTS,
        "Answers by route, class of surface, rung and status.",
    ),
    (
        REQUEST_SECONDS,
        "From the first byte of a request to the last of its answer.",
    ),
    (
        RUNG_CAUSE,
        "Answers below the best rung, by what was lost first.",
    ),
    (CACHE, "Cache lookups."),
    (ORIGIN_SECONDS, "Calls to an origin."),
    (BREAKER, "0 closed, 1 ramping, 2 half open, 3 open."),
    (STAGE_SECONDS, "Steps of an answer."),
    (RANK_BATCH, "Candidates ranked together."),
    (RANK_QUEUE, "Wait for the ranker."),
    (VECTOR_SECONDS, "Vector searches."),
    (STREAM_LAG, "From the acceptance of an event to its effect."),
    (REPLICATION_LAG, "How far a peer is behind."),
    (EVENTS, "Events by what became of them."),
    (WORKER_INFO, "1 for the worker in service."),
    (MODEL_INFO, "1 for the model in service."),
];

type Text = Arc<str>;

/// Handles by labels.
struct Table<K, H>(RwLock<HashMap<K, H>>);

impl<K: Eq + Hash, H: Clone> Table<K, H> {
    fn new() -> Self {
        Self(RwLock::new(HashMap::new()))
    }

    fn get(&self, key: K, make: impl FnOnce(&K) -> H) -> H {
        if let Some(known) = self.0.read().get(&key) {
            return known.clone();
        }
        let made = make(&key);
        self.0.write().entry(key).or_insert(made).clone()
    }
}

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    names: RwLock<HashMap<&'static str, HashSet<Text>>>,
    requests: Table<(RouteLabel, Text, Option<Rung>, u16), Counter>,
    request_seconds: Table<(RouteLabel, Option<Rung>), Histogram>,
    causes: Table<(Rung, Cause), Counter>,
    caches: Table<(Cache, CacheResult), Counter>,
    origins: Table<(Text, OriginOutcome), Histogram>,
    stages: Table<Stage, Histogram>,
    events: Table<EventResult, Counter>,
    rank_batch: Histogram,
    rank_queue: Histogram,
    vector: Histogram,
    stream_lag: Histogram,
    /// The version in service, by metric.
    infos: RwLock<HashMap<&'static str, Gauge>>,
}

/// The metrics of one role. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Makes an empty set and a thread that folds samples; the thread ends with the last clone.
    #[must_use]
    pub fn new() -> Self {
        let recorder = builder().build_recorder();
        for (name, help) in HELP {
            let unit = name.ends_with("_seconds").then_some(Unit::Seconds);
            let name = KeyName::from_const_str(name);
            // The kind does not matter for a description.
            recorder.describe_histogram(name, unit, help.into());
        }
        let histogram = |name| recorder.register_histogram(&Key::from_static_name(name), &META);
        let inner = Arc::new(Inner {
            rank_batch: histogram(RANK_BATCH),
            rank_queue: histogram(RANK_QUEUE),
            vector: histogram(VECTOR_SECONDS),
            stream_lag: histogram(STREAM_LAG),
            handle: recorder.handle(),
            names: RwLock::default(),
            requests: Table::new(),
            request_seconds: Table::new(),
            causes: Table::new(),
            caches: Table::new(),
            origins: Table::new(),
            stages: Table::new(),
            events: Table::new(),
            infos: RwLock::default(),
            recorder,
        });
        let weak = Arc::downgrade(&inner);
        // Without this, samples that nobody scrapes would pile up. If the thread cannot be made,
        // scraping does the same.
        let _ = std::thread::Builder::new()
            .name("metrics-upkeep".to_owned())
            .spawn(move || {
                loop {
                    std::thread::park_timeout(UPKEEP);
                    match weak.upgrade() {
                        Some(inner) => inner.handle.run_upkeep(),
                        None => break,
                    }
                }
            });
        Self(inner)
    }

    /// The exposition text of `GET /metrics`.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.handle.run_upkeep();
        self.0.handle.render()
    }

    /// An answer. `surface_class` is a configured surface's name, or `other`; no rung for what is not
    /// on the ladder (events, errors).
    pub fn request(
        &self,
        route: RouteLabel,
        surface_class: &str,
        rung: Option<Rung>,
        status: u16,
        seconds: f64,
    ) {
        let class = self.name("surface_class", surface_class);
        let inner = &self.0;
        let requests = inner.requests.get(
            (route, class, rung, status),
            |(route, class, rung, status)| {
                let status = Label::new("status", status.to_string());
                inner.counter(
                    REQUESTS,
                    vec![
                        of_route(*route),
                        text("surface_class", class),
                        of_rung(*rung),
                        status,
                    ],
                )
            },
        );
        requests.increment(1);
        let timed = inner.request_seconds.get((route, rung), |(route, rung)| {
            inner.histogram(REQUEST_SECONDS, vec![of_route(*route), of_rung(*rung)])
        });
        timed.record(seconds);
    }

    /// An answer below the best rung.
    pub fn rung_cause(&self, rung: Rung, cause: Cause) {
        let counter = self.0.causes.get((rung, cause), |(rung, cause)| {
            let cause = Label::from_static_parts("cause", cause.as_str());
            self.0
                .counter(RUNG_CAUSE, vec![of_rung(Some(*rung)), cause])
        });
        counter.increment(1);
    }

    pub fn cache(&self, cache: Cache, result: CacheResult) {
        let counter = self.0.caches.get((cache, result), |(cache, result)| {
            let cache = Label::from_static_parts("cache", cache.as_str());
            self.0.counter(
                CACHE,
                vec![cache, Label::from_static_parts("result", result.as_str())],
            )
        });
        counter.increment(1);
    }

    pub fn origin(&self, region: &str, outcome: OriginOutcome, seconds: f64) {
        let histogram = self.0.origins.get(
            (self.name("region", region), outcome),
            |(region, outcome)| {
                let outcome = Label::from_static_parts("outcome", outcome.as_str());
                self.0
                    .histogram(ORIGIN_SECONDS, vec![text("region", region), outcome])
            },
        );
        histogram.record(seconds);
    }

    pub fn breaker(&self, target: &str, state: BreakerState) {
        let level = match state {
            BreakerState::Closed => 0.0,
            BreakerState::Ramping => 1.0,
            BreakerState::HalfOpen => 2.0,
            BreakerState::Open => 3.0,
        };
        self.0
            .gauge(BREAKER, vec![text("target", &self.name("target", target))])
            .set(level);
    }

    pub fn stage(&self, stage: Stage, seconds: f64) {
        let histogram = self.0.stages.get(stage, |stage| {
            self.0.histogram(
                STAGE_SECONDS,
                vec![Label::from_static_parts("stage", stage.as_str())],
            )
        });
        histogram.record(seconds);
    }

    pub fn rank(&self, batch: usize, queued_seconds: f64) {
        self.0.rank_batch.record(batch as f64);
        self.0.rank_queue.record(queued_seconds);
    }

    pub fn vector_search(&self, seconds: f64) {
        self.0.vector.record(seconds);
    }

    pub fn stream_lag(&self, seconds: f64) {
        self.0.stream_lag.record(seconds);
    }

    pub fn replication_lag(&self, peer: &str, seconds: f64) {
        self.0
            .gauge(
                REPLICATION_LAG,
                vec![text("peer", &self.name("peer", peer))],
            )
            .set(seconds);
    }

    pub fn events(&self, result: EventResult, count: u64) {
        let counter = self.0.events.get(result, |result| {
            self.0.counter(
                EVENTS,
                vec![Label::from_static_parts("result", result.as_str())],
            )
        });
        counter.increment(count);
    }

    /// The worker in service; the one before drops to 0.
    pub fn worker(&self, version: &str) {
        self.info(WORKER_INFO, version);
    }

    /// The model in service; the one before drops to 0.
    pub fn model(&self, version: &str) {
        self.info(MODEL_INFO, version);
    }

    fn info(&self, metric: &'static str, version: &str) {
        let gauge = self
            .0
            .gauge(metric, vec![text("version", &self.name(metric, version))]);
        let mut infos = self.0.infos.write();
        if let Some(before) = infos.insert(metric, gauge.clone()) {
            before.set(0.0);
        }
        gauge.set(1.0);
    }

    /// `value` if it is known or there is room for it, else `other`.
    fn name(&self, label: &'static str, value: &str) -> Text {
        if let Some(known) = self
            .0
            .names
            .read()
            .get(label)
            .and_then(|values| values.get(value))
        {
            return known.clone();
        }
        let mut names = self.0.names.write();
        let values = names.entry(label).or_default();
        if values.len() >= VALUES_MAX && !values.contains(value) {
            return Arc::from("other");
        }
        let value: Text = Arc::from(value);
        values.insert(value.clone());
        value
    }
}

static META: Metadata<'static> = Metadata::new("skerry", Level::INFO, None);

impl Inner {
    fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        self.recorder
            .register_counter(&Key::from_parts(name, labels), &META)
    }

    fn gauge(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        self.recorder
            .register_gauge(&Key::from_parts(name, labels), &META)
    }

    fn histogram(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
        self.recorder
            .register_histogram(&Key::from_parts(name, labels), &META)
    }
}

/// Buckets by name. The builder refuses only an empty list, which none of these is.
fn builder() -> PrometheusBuilder {
    let full = |name: &str| Matcher::Full(name.to_owned());
    let steps: [(Matcher, &[f64]); 4] = [
        (full(RANK_BATCH), &BATCH),
        (full(STREAM_LAG), &LAG_SECONDS),
        (full(REPLICATION_LAG), &LAG_SECONDS),
        (Matcher::Suffix("_seconds".to_owned()), &SECONDS),
    ];
    steps
        .into_iter()
        .fold(PrometheusBuilder::new(), |builder, (matcher, buckets)| {
            builder
                .set_buckets_for_metric(matcher, buckets)
                .unwrap_or_default()
        })
}

fn of_route(route: RouteLabel) -> Label {
    Label::from_static_parts("route", route.as_str())
}

fn of_rung(rung: Option<Rung>) -> Label {
    Label::from_static_parts("rung", rung.map_or("none", Rung::as_str))
}

fn text(name: &'static str, value: &Text) -> Label {
    Label::new(name, value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_contract_is_rendered() {
        let metrics = Metrics::new();
        metrics.request(RouteLabel::Recommend, "home", Some(Rung::Edge), 200, 0.004);
        metrics.request(RouteLabel::Recommend, "home", Some(Rung::Edge), 200, 0.006);
        metrics.rung_cause(Rung::Edge, Cause::OriginDown);
        metrics.cache(Cache::Response, CacheResult::Hit);
        metrics.origin("eu", OriginOutcome::Answered, 0.01);
        metrics.breaker("eu", BreakerState::Open);
        metrics.stage(Stage::Rank, 0.0002);
        metrics.rank(300, 0.0);
        metrics.vector_search(8e-5);
        metrics.stream_lag(1.5);
        metrics.replication_lag("us", 0.2);
        metrics.events(EventResult::Accepted, 100);
        metrics.worker("a");
        metrics.worker("b");
        metrics.model("ranker@1");
        let text = metrics.render();
        let wanted = [
            "skerry_requests_total{route=\"recommend\",surface_class=\"home\",rung=\"edge\",status=\"200\"} 2",
            "skerry_request_seconds_bucket{route=\"recommend\",rung=\"edge\",le=\"0.005\"} 1",
            "skerry_request_seconds_count{route=\"recommend\",rung=\"edge\"} 2",
            "skerry_rung_cause_total{rung=\"edge\",cause=\"origin_down\"} 1",
            "skerry_cache_total{cache=\"response\",result=\"hit\"} 1",
            "skerry_origin_seconds_count{region=\"eu\",outcome=\"answered\"} 1",
            "skerry_breaker_state{target=\"eu\"} 3",
            "skerry_stage_seconds_bucket{stage=\"rank\",le=\"0.00025\"} 1",
            "skerry_rank_batch_size_bucket{le=\"512\"} 1",
            "skerry_vector_search_seconds_bucket{le=\"0.0001\"} 1",
            "skerry_stream_lag_seconds_bucket{le=\"5\"} 1",
            "skerry_replication_lag_seconds{peer=\"us\"} 0.2",
            "skerry_events_total{result=\"accepted\"} 100",
            "skerry_worker_info{version=\"a\"} 0",
            "skerry_worker_info{version=\"b\"} 1",
            "skerry_model_info{version=\"ranker@1\"} 1",
        ];
        for line in wanted {
            assert!(
                text.lines().any(|have| have == line),
                "{line}\nnot in\n{text}"
            );
        }
        for (name, _) in HELP {
            assert!(text.contains(&format!("# HELP {name}")), "{name}");
        }
    }

    #[test]
    fn roles_do_not_mix_and_labels_are_bounded() {
        let (pop, origin) = (Metrics::new(), Metrics::new());
        for at in 0..1_000 {
            pop.request(
                RouteLabel::Recommend,
                &format!("s{at}"),
                Some(Rung::Full),
                200,
                0.001,
            );
        }
        let classes = pop
            .render()
            .lines()
            .filter(|line| line.starts_with("skerry_requests_total{"))
            .count();
        assert_eq!(classes, VALUES_MAX + 1);
        assert!(!origin.render().contains("skerry_requests_total{"));
    }
}
