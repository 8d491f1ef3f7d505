//! What the origin counts, and its Prometheus text. Labels are enums, never ids.

use skerry_wire::frame::Stage;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($name:literal: $help:literal { $($field:ident => $labels:literal,)+ })+) => {
        /// Monotonic counters.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(pub $field: AtomicU64,)+)+
            pub stages: [Histogram; 6],
            pub asks: Histogram,
        }

        impl Counters {
            fn write_counters(&self, text: &mut Text) {
                $(
                    text.family($name, "counter", $help);
                    $(text.sample($name, $labels, self.$field.load(Ordering::Relaxed));)+
                )+
            }
        }
    };
}

counters! {
    "skerry_origin_asks_total": "Questions of PoPs, by how they ended." {
        asks_answered => "outcome=\"answered\"",
        asks_overloaded => "outcome=\"overloaded\"",
        asks_deadline => "outcome=\"deadline\"",
        asks_draining => "outcome=\"draining\"",
        asks_not_ready => "outcome=\"not_ready\"",
        asks_bad => "outcome=\"bad\"",
        asks_failed => "outcome=\"internal\"",
        asks_cancelled => "outcome=\"cancelled\"",
    }
    "skerry_events_total": "Events of PoPs, by what became of them." {
        events_new => "result=\"new\"",
        events_duplicate => "result=\"duplicate\"",
        events_failed => "result=\"failed\"",
    }
    "skerry_origin_exposures_total": "Exposures that PoPs reported." {
        exposures => "",
    }
    "skerry_origin_connections_total": "Connections of PoPs." {
        connections => "result=\"accepted\"",
        connections_refused => "result=\"refused\"",
    }
    "skerry_origin_breaches_total": "Connections that were closed for what they sent." {
        breaches => "",
    }
    "skerry_origin_pushes_total": "Artifacts pushed to PoPs." {
        pushes => "",
    }
    "skerry_origin_push_bytes_total": "Bytes of artifacts pushed to PoPs." {
        push_bytes => "",
    }
}

/// Prometheus' text format 0.0.4: each family has its HELP and TYPE once, before its samples.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }
}

/// What is read when it is asked for.
#[derive(Debug)]
pub struct Reading {
    pub name: &'static str,
    pub help: &'static str,
    /// As in `name="value"`; values are words of ours.
    pub labels: String,
    pub value: f64,
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

    fn write(&self, text: &mut Text, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let bucket_name = format!("{name}_bucket");
        let mut below = 0;
        for (bound, bucket) in BOUNDS_US.iter().zip(&self.buckets) {
            below += bucket.load(Ordering::Relaxed);
            let bound = format!("{labels}{comma}le=\"{}\"", seconds(*bound));
            text.sample(&bucket_name, &bound, below);
        }
        // Another thread may be between its bucket and its count.
        let count = self.count.load(Ordering::Relaxed).max(below);
        text.sample(&bucket_name, &format!("{labels}{comma}le=\"+Inf\""), count);
        let sum = seconds(self.sum_us.load(Ordering::Relaxed));
        text.sample(&format!("{name}_sum"), labels, sum);
        text.sample(&format!("{name}_count"), labels, count);
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

    /// Everything, with `readings` behind: counters where the name ends in `_total`, else gauges.
    /// Those of one name stand together.
    pub fn render(&self, vector_searches: &Histogram, readings: &[Reading]) -> String {
        let mut text = Text(String::with_capacity(16_384));
        self.write_counters(&mut text);
        let name = "skerry_stage_seconds";
        text.family(name, "histogram", "Time of a question in each step.");
        for (stage, histogram) in Stage::ALL.iter().zip(&self.stages) {
            histogram.write(&mut text, name, &format!("stage=\"{}\"", stage.as_str()));
        }
        let name = "skerry_origin_ask_seconds";
        text.family(name, "histogram", "Time of a question from its arrival.");
        self.asks.write(&mut text, name, "");
        let name = "skerry_vector_search_seconds";
        text.family(
            name,
            "histogram",
            "Time of a search of the user index, as who asks it sees it.",
        );
        vector_searches.write(&mut text, name, "");
        let mut last = "";
        for reading in readings {
            if reading.name != last {
                let total = reading.name.ends_with("_total");
                let kind = if total { "counter" } else { "gauge" };
                text.family(reading.name, kind, reading.help);
                last = reading.name;
            }
            text.sample(reading.name, &reading.labels, reading.value);
        }
        text.0
    }
}
