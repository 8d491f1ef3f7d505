//! What the origin counts, and its Prometheus text. Labels are enums, never ids.

use skerry_telemetry::exposition::{Histogram, Kind, Label, Text};
use skerry_wire::frame::Stage;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($name:literal: $help:literal { $($field:ident => $labels:expr,)+ })+) => {
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
                    text.family($name, Kind::Counter, $help);
                    $(text.sample($name, &$labels, self.$field.load(Ordering::Relaxed));)+
                )+
            }
        }
    };
}

counters! {
    "skerry_origin_asks_total": "Questions of PoPs, by how they ended." {
        asks_answered => [("outcome", &"answered")],
        asks_overloaded => [("outcome", &"overloaded")],
        asks_deadline => [("outcome", &"deadline")],
        asks_draining => [("outcome", &"draining")],
        asks_not_ready => [("outcome", &"not_ready")],
        asks_bad => [("outcome", &"bad")],
        asks_failed => [("outcome", &"internal")],
        asks_cancelled => [("outcome", &"cancelled")],
    }
    "skerry_events_total": "Events of PoPs, by what became of them." {
        events_new => [("result", &"new")],
        events_duplicate => [("result", &"duplicate")],
        events_failed => [("result", &"failed")],
    }
    "skerry_origin_exposures_total": "Exposures that PoPs reported." {
        exposures => [],
    }
    "skerry_origin_connections_total": "Connections of PoPs." {
        connections => [("result", &"accepted")],
        connections_refused => [("result", &"refused")],
    }
    "skerry_origin_breaches_total": "Connections that were closed for what they sent." {
        breaches => [],
    }
    "skerry_origin_pushes_total": "Artifacts pushed to PoPs." {
        pushes => [],
    }
    "skerry_origin_push_bytes_total": "Bytes of artifacts pushed to PoPs." {
        push_bytes => [],
    }
}

/// What is read when it is asked for.
#[derive(Debug)]
pub struct Reading {
    pub name: &'static str,
    pub help: &'static str,
    pub label: Option<(&'static str, String)>,
    pub value: f64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// Everything, with `readings` behind: counters where the name ends in `_total`, else gauges.
    /// Those of one name stand together.
    pub fn render(&self, vector_searches: &Histogram, readings: &[Reading]) -> String {
        let mut text = Text::default();
        self.write_counters(&mut text);
        let name = "skerry_stage_seconds";
        text.family(name, Kind::Histogram, "Time of a question in each step.");
        for (stage, histogram) in Stage::ALL.iter().zip(&self.stages) {
            histogram.samples(&mut text, name, &[("stage", &stage.as_str())]);
        }
        let help = "Time of a question from its arrival.";
        self.asks
            .write(&mut text, "skerry_origin_ask_seconds", help);
        let help = "Time of a search of the user index, as who asks it sees it.";
        vector_searches.write(&mut text, "skerry_vector_search_seconds", help);
        let mut last = "";
        for reading in readings {
            if reading.name != last {
                let total = reading.name.ends_with("_total");
                let kind = if total { Kind::Counter } else { Kind::Gauge };
                text.family(reading.name, kind, reading.help);
                last = reading.name;
            }
            let label = reading.label.as_ref();
            let label = label.map(|(name, value)| -> Label<'_> { (*name, value) });
            text.sample(reading.name, label.as_slice(), reading.value);
        }
        text.finish()
    }
}
