//! What the origin counts, and its Prometheus text. Labels are enums, never ids.

use skerry_wire::frame::Stage;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($field:ident => $name:literal, $labels:literal;)+) => {
        /// Monotonic counters.
        #[derive(Debug, Default)]
        pub struct Counters { $(pub $field: AtomicU64,)+ pub stages: [Histogram; 6], pub asks: Histogram }

        impl Counters {
            fn values(&self) -> [(&'static str, &'static str, u64); [$($name),+].len()] {
                [$(($name, $labels, self.$field.load(Ordering::Relaxed)),)+]
            }
        }
    };
}

counters! {
    asks_answered => "skerry_origin_asks_total", "outcome=\"answered\"";
    asks_overloaded => "skerry_origin_asks_total", "outcome=\"overloaded\"";
    asks_deadline => "skerry_origin_asks_total", "outcome=\"deadline\"";
    asks_draining => "skerry_origin_asks_total", "outcome=\"draining\"";
    asks_not_ready => "skerry_origin_asks_total", "outcome=\"not_ready\"";
    asks_bad => "skerry_origin_asks_total", "outcome=\"bad\"";
    asks_failed => "skerry_origin_asks_total", "outcome=\"internal\"";
    asks_cancelled => "skerry_origin_asks_total", "outcome=\"cancelled\"";
    events_new => "skerry_events_total", "result=\"new\"";
    events_duplicate => "skerry_events_total", "result=\"duplicate\"";
    events_failed => "skerry_events_total", "result=\"failed\"";
    exposures => "skerry_origin_exposures_total", "";
    connections => "skerry_origin_connections_total", "result=\"accepted\"";
    connections_refused => "skerry_origin_connections_total", "result=\"refused\"";
    breaches => "skerry_origin_breaches_total", "";
    pushes => "skerry_origin_pushes_total", "";
    push_bytes => "skerry_origin_push_bytes_total", "";
}

/// Upper bounds in microseconds.
const BOUNDS_US: [u64; 12] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
];

/// A histogram of microseconds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; 12],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn add(&self, us: u64) {
        if let Some(bucket) = BOUNDS_US
            .iter()
            .position(|bound| us <= *bound)
            .and_then(|at| self.buckets.get(at))
        {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    fn render(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bound, bucket) in BOUNDS_US.iter().zip(&self.buckets) {
            below += bucket.load(Ordering::Relaxed);
            let seconds = seconds(*bound);
            let _ = writeln!(
                out,
                "{name}_bucket{{{labels}{comma}le=\"{seconds}\"}} {below}"
            );
        }
        let count = self.count.load(Ordering::Relaxed);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let braces = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        let _ = writeln!(
            out,
            "{name}_sum{braces} {}",
            seconds(self.sum_us.load(Ordering::Relaxed))
        );
        let _ = writeln!(out, "{name}_count{braces} {count}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

impl Counters {
    pub fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// Everything, with `gauges` of (name, labels, value) behind.
    pub fn render(&self, gauges: &[(&str, String, f64)]) -> String {
        let mut out = String::with_capacity(8_192);
        let mut last = "";
        for (name, labels, value) in self.values() {
            if name != last {
                let _ = writeln!(out, "# TYPE {name} counter");
                last = name;
            }
            let braces = if labels.is_empty() {
                String::new()
            } else {
                format!("{{{labels}}}")
            };
            let _ = writeln!(out, "{name}{braces} {value}");
        }
        let _ = writeln!(out, "# TYPE skerry_stage_seconds histogram");
        for (stage, histogram) in Stage::ALL.iter().zip(&self.stages) {
            histogram.render(
                &mut out,
                "skerry_stage_seconds",
                &format!("stage=\"{}\"", stage.as_str()),
            );
        }
        let _ = writeln!(out, "# TYPE skerry_origin_ask_seconds histogram");
        self.asks.render(&mut out, "skerry_origin_ask_seconds", "");
        for (name, labels, value) in gauges {
            let braces = if labels.is_empty() {
                String::new()
            } else {
                format!("{{{labels}}}")
            };
            let _ = writeln!(out, "# TYPE {name} gauge\n{name}{braces} {value}");
        }
        out
    }
}
