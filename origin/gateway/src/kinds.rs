//! What types of events mean here: the built-in ones as everywhere, custom ones as configured.
//!
//! Contexts of users know the built-in types alone, at the edge and here; what is configured counts
//! where the origin learns: in training, in the popular lists, and as rewards.

use skerry_types::{Event, EventKind, Taste};
use std::collections::BTreeMap;

/// The heaviest event.
pub const WEIGHT_MAX: f32 = 100.0;
/// Configured types, at most.
pub const KINDS_MAX: usize = 64;

/// What events of one type say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventRule {
    /// Of the user's taste; `None`: what the type says by itself, which for a custom one is nothing.
    pub taste: Option<Taste>,
    /// How much one positive event counts in the popular lists, 0 to [`WEIGHT_MAX`].
    pub weight: f32,
}

impl Default for EventRule {
    fn default() -> Self {
        Self {
            taste: None,
            weight: 1.0,
        }
    }
}

impl EventRule {
    /// Checks a setting `[events.NAME]`. Built-in types keep their taste: contexts at the edge go by
    /// it.
    ///
    /// # Errors
    /// Words for the user.
    pub fn check(self, name: &str) -> Result<Self, String> {
        let kind = EventKind::parse(name).ok_or_else(|| {
            "a type of event is 1 to 64 characters of a-z, 0-9, '_', '-', '.'".to_owned()
        })?;
        if self.taste.is_some() && !matches!(kind, EventKind::Custom(_)) {
            return Err(format!(
                "{name} is built in: its weight can be set, not its taste"
            ));
        }
        if !(0.0..=WEIGHT_MAX).contains(&self.weight) {
            return Err(format!("a weight is 0 to {WEIGHT_MAX}"));
        }
        Ok(self)
    }
}

/// The rules of all types.
#[derive(Debug, Clone, Default)]
pub struct Kinds(BTreeMap<Box<str>, EventRule>);

impl Kinds {
    pub fn new(rules: &BTreeMap<Box<str>, EventRule>) -> Self {
        let rules = rules.iter().take(KINDS_MAX);
        Self(rules.map(|(name, rule)| (name.clone(), *rule)).collect())
    }

    pub fn taste(&self, event: &Event) -> Taste {
        let rule = self.0.get(event.kind.as_str());
        rule.and_then(|rule| rule.taste)
            .unwrap_or_else(|| event.kind.taste(event.value))
    }

    /// Whether the event says what a user did with an item, whatever it says of taste.
    pub fn is_history(&self, event: &Event) -> bool {
        let rule = self.0.get(event.kind.as_str());
        event.kind.is_history() || rule.is_some_and(|rule| rule.taste.is_some())
    }

    /// What a positive event counts in the popular lists; 0 for any other.
    pub fn weight(&self, event: &Event) -> f64 {
        if self.taste(event) != Taste::Positive {
            return 0.0;
        }
        let rule = self.0.get(event.kind.as_str());
        f64::from(rule.map_or(1.0, |rule| rule.weight))
    }

    /// The rules as they are stored, to see whether they changed.
    pub fn signature(&self) -> Vec<(Box<str>, u8, f32)> {
        let taste = |taste| match taste {
            None => 0,
            Some(Taste::Positive) => 1,
            Some(Taste::Negative) => 2,
            Some(Taste::Neutral) => 3,
        };
        let rules = self.0.iter();
        rules
            .map(|(name, rule)| (name.clone(), taste(rule.taste), rule.weight))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str) -> Event {
        Event {
            kind: EventKind::parse(kind).unwrap(),
            ..skerry_testkit::like("e", "1", "1", 0)
        }
    }

    #[test]
    fn custom_types_mean_what_is_configured() {
        let rule = |taste, weight| EventRule { taste, weight };
        let kinds = Kinds::new(&BTreeMap::from([
            ("finished".into(), rule(Some(Taste::Positive), 3.0)),
            ("skipped".into(), rule(Some(Taste::Negative), 1.0)),
            ("purchase".into(), rule(None, 5.0)),
        ]));
        let cases = [
            ("finished", Taste::Positive, 3.0, true),
            ("skipped", Taste::Negative, 0.0, true),
            ("purchase", Taste::Positive, 5.0, true),
            ("like", Taste::Positive, 1.0, true),
            ("view", Taste::Neutral, 0.0, true),
            ("other", Taste::Neutral, 0.0, false),
            ("impression", Taste::Neutral, 0.0, false),
        ];
        for (kind, taste, weight, history) in cases {
            let event = event(kind);
            let found = (
                kinds.taste(&event),
                kinds.weight(&event),
                kinds.is_history(&event),
            );
            assert_eq!(found, (taste, weight, history), "{kind}");
        }
    }

    #[test]
    fn what_cannot_be_configured_is_named() {
        let cases = [
            ("finished", Some(Taste::Positive), 2.0, ""),
            ("like", None, 0.5, ""),
            ("like", Some(Taste::Neutral), 1.0, "built in"),
            ("Finished", None, 1.0, "a-z"),
            ("finished", None, -1.0, "0 to"),
            ("finished", None, f32::NAN, "0 to"),
        ];
        for (name, taste, weight, want) in cases {
            match (EventRule { taste, weight }.check(name), want) {
                (Ok(_), "") => {}
                (Err(error), want) if !want.is_empty() && error.contains(want) => {}
                (other, _) => panic!("{name} {weight}: {other:?}"),
            }
        }
    }
}
