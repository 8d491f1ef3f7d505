//! Prometheus' text format 0.0.4, written when it is asked for: for figures that are read rather than
//! counted, and that go with what they are about.
//!
//! Invariant: each family has its HELP and TYPE once, before its samples; a label's value is escaped.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of a histogram's buckets, in microseconds.
const BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000,
];

/// What a family of samples is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A label and its value.
pub type Label<'a> = (&'static str, &'a dyn Display);

/// The text of `GET /metrics`, family by family.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = kind.as_str();
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for sign in text.to_string().chars() {
                match sign {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    sign => self.0.push(sign),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

/// A histogram of seconds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn record_us(&self, us: u64) {
        let at = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The family, without labels.
    pub fn write(&self, text: &mut Text, name: &str, help: &str) {
        text.family(name, Kind::Histogram, help);
        self.samples(text, name, &[]);
    }

    /// Samples of a family that has begun.
    pub fn samples(&self, text: &mut Text, name: &str, labels: &[Label<'_>]) {
        let bucket_name = format!("{name}_bucket");
        let bucket = |text: &mut Text, bound: &dyn Display, below| {
            let labels: Vec<Label<'_>> = labels.iter().copied().chain([("le", bound)]).collect();
            text.sample(&bucket_name, &labels, below);
        };
        let mut below = 0;
        for (bound, count) in BOUNDS_US.iter().zip(&self.buckets) {
            below += count.load(Ordering::Relaxed);
            bucket(text, &seconds(*bound), below);
        }
        // Another thread may be between its bucket and its count.
        let count = self.count.load(Ordering::Relaxed).max(below);
        bucket(text, &"+Inf", count);
        let sum = seconds(self.sum_us.load(Ordering::Relaxed));
        text.sample(&format!("{name}_sum"), labels, sum);
        text.sample(&format!("{name}_count"), labels, count);
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_help_and_type_and_labels_are_escaped() {
        let mut text = Text::default();
        text.single("up", Kind::Gauge, "Whether.", 1);
        text.family("seen_total", Kind::Counter, "Seen.");
        text.sample("seen_total", &[("shard", &7), ("why", &"a \"b\"\\\n")], 3);
        let want = "# HELP up Whether.\n# TYPE up gauge\nup 1\n# HELP seen_total Seen.\n# TYPE seen_total counter\n\
                    seen_total{shard=\"7\",why=\"a \\\"b\\\"\\\\\\n\"} 3\n";
        assert_eq!(text.finish(), want);
    }

    #[test]
    fn buckets_are_cumulative_and_bounds_belong_to_theirs() {
        let histogram = Histogram::default();
        for us in [50, 51, 100, 6_000_000] {
            histogram.record_us(us);
        }
        let mut text = Text::default();
        histogram.write(&mut text, "took_seconds", "Took.");
        let text = text.finish();
        for line in [
            "# TYPE took_seconds histogram",
            "took_seconds_bucket{le=\"0.00005\"} 1",
            "took_seconds_bucket{le=\"0.0001\"} 3",
            "took_seconds_bucket{le=\"5\"} 3",
            "took_seconds_bucket{le=\"+Inf\"} 4",
            "took_seconds_sum 6.000201",
            "took_seconds_count 4",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
    }
}
