//! Rows of a benchmark, and how they are shown; what every benchmark prints, and nothing heavy.
//!
//! Invariant: with `as_json` stdout carries one JSON array of rows and nothing else.

#![forbid(unsafe_code)]

use comfy_table::{Table, presets};
use serde_json::{Value, json};

/// One figure. `ratio` is how much better than the peer, or the share of a limit, as the name's
/// definition says; `target` is what the ratio (or, without one, the value) should reach.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    pub peer: Option<&'static str>,
    pub ratio: Option<f64>,
    pub target: Option<f64>,
    /// Largest less smallest of the rounds, as a share of the median.
    pub spread: Option<f64>,
}

impl Row {
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            peer: None,
            ratio: None,
            target: None,
            spread: None,
        }
    }

    /// Compared with a peer: the ratio should be at least `target`.
    pub fn against(self, peer: &'static str, ratio: f64, target: f64) -> Self {
        Self {
            peer: Some(peer),
            ratio: Some(ratio),
            target: Some(target),
            ..self
        }
    }

    /// Compared with a peer where no target is set.
    pub fn beside(self, peer: &'static str, ratio: f64) -> Self {
        Self {
            peer: Some(peer),
            ratio: Some(ratio),
            ..self
        }
    }

    /// Held against a limit of its own unit: the ratio is limit / value, above 1 is within it.
    pub fn within(self, limit: f64) -> Self {
        Self {
            ratio: Some(limit / self.value),
            target: Some(limit),
            ..self
        }
    }

    pub fn spread(self, rounds: &[f64]) -> Self {
        Self {
            spread: Some(spread(rounds)),
            ..self
        }
    }
}

pub fn print(rows: &[Row], as_json: bool) {
    if as_json {
        let all: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({"name": row.name, "value": row.value, "unit": row.unit, "peer": row.peer,
                    "ratio": row.ratio, "target": row.target, "spread": row.spread})
            })
            .collect();
        println!("{}", Value::Array(all));
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["name", "value", "unit", "peer", "ratio", "target", "spread"]);
    for row in rows {
        let number = |value: Option<f64>| value.map(show).unwrap_or_default();
        table.add_row([
            row.name.clone(),
            show(row.value),
            row.unit.to_owned(),
            row.peer.unwrap_or_default().to_owned(),
            number(row.ratio),
            number(row.target),
            row.spread
                .map(|share| format!("{:.0} %", share * 100.0))
                .unwrap_or_default(),
        ]);
    }
    println!("{table}");
}

fn show(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle value; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1)) as f64 * percent / 100.0;
    sorted.get(at.round() as usize).copied().unwrap_or(0.0)
}

fn spread(rounds: &[f64]) -> f64 {
    let (low, high) = rounds.iter().fold((f64::MAX, f64::MIN), |(low, high), v| {
        (low.min(*v), high.max(*v))
    });
    if rounds.is_empty() {
        0.0
    } else {
        (high - low) / median(rounds).max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0, 5.0], 99.0), 5.0);
        assert_eq!(spread(&[9.0, 10.0, 12.0]), 0.3);
        assert_eq!(Row::new("x", 50.0, "MB").within(150.0).ratio, Some(3.0));
    }
}
