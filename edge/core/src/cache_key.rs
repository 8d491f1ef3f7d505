//! What makes two requests the same: keys of cached decisions and of bodies rendered from them.

use crate::ports::Epochs;
use skerry_types::{Ask, Route};
use xxhash_rust::xxh3::Xxh3;

/// Number of the layout of cached values: a new one makes old entries unreachable.
const SCHEMA: u8 = 1;
const SEP: u8 = 0x1f;

/// Key of a decision: tenant, route, subject, surface, context, schema, and `narrow` where filter and
/// exclusions shaped the decision itself. `n`, fields and everything else that only shapes the answer
/// stay out.
#[must_use]
pub fn decision_key(ask: &Ask, subject: Option<&str>, narrow: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(96);
    key.extend_from_slice(ask.tenant.as_str().as_bytes());
    key.extend_from_slice(&[SEP, SCHEMA, SEP]);
    key.extend_from_slice(ask.route.as_str().as_bytes());
    key.push(SEP);
    key.extend_from_slice(subject.unwrap_or_default().as_bytes());
    key.push(SEP);
    key.extend_from_slice(ask.surface.as_str().as_bytes());
    key.push(SEP);
    let mut hash = Xxh3::new();
    context(&mut hash, ask);
    if let Route::Similar { seeds } = &ask.route {
        seeds.iter().for_each(|seed| text(&mut hash, seed.as_str()));
    }
    if narrow {
        narrowing(&mut hash, ask);
    }
    key.extend_from_slice(&hash.digest128().to_le_bytes());
    key
}

/// Hash of everything that shapes the body beside the decision and the subject's context.
#[must_use]
pub fn render_hash(ask: &Ask, epochs: &Epochs) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&u16::from(ask.n).to_le_bytes());
    hash.update(&[
        u8::from(ask.explain),
        ask.lowest_rung.map_or(255, |rung| rung as u8),
    ]);
    hash.update(&epochs.mask.to_le_bytes());
    hash.update(&epochs.config.to_le_bytes());
    ask.fields.iter().for_each(|field| text(&mut hash, field));
    narrowing(&mut hash, ask);
    hash.digest()
}

/// Whether filter or exclusions shape the decision.
#[must_use]
pub fn is_narrow(ask: &Ask) -> bool {
    ask.filter.is_some() || !ask.exclude.is_empty()
}

fn context(hash: &mut Xxh3, ask: &Ask) {
    let context = &ask.context;
    for part in [&context.device, &context.locale, &context.tz] {
        text(hash, part.as_deref().unwrap_or_default());
    }
    text(
        hash,
        context
            .country
            .as_ref()
            .map_or("", |country| country.as_str()),
    );
    for (name, value) in &context.other {
        text(hash, name);
        text(hash, value);
    }
}

fn narrowing(hash: &mut Xxh3, ask: &Ask) {
    hash.update(&(ask.exclude.len() as u64).to_le_bytes());
    ask.exclude
        .iter()
        .for_each(|item| text(hash, item.as_str()));
    if let Some(filter) = &ask.filter {
        // The parsed filter's debug form is total and unambiguous: strings are quoted in it.
        text(hash, &format!("{filter:?}"));
    }
}

/// Length first, so that neighbouring texts cannot run into each other.
fn text(hash: &mut Xxh3, text: &str) {
    hash.update(&(text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::ask;
    use skerry_types::{Count, ItemId, Surface, TenantId};

    type Change = fn(&mut Ask);

    #[test]
    fn what_changes_a_key_and_what_does_not() {
        // (change, decision key changes, rendered body changes)
        let cases: [(&str, Change, bool, bool); 9] = [
            ("nothing", |_| {}, false, false),
            (
                "tenant",
                |ask| ask.tenant = TenantId::new("t2").unwrap(),
                true,
                false,
            ),
            (
                "surface",
                |ask| ask.surface = Surface::new("other").unwrap(),
                true,
                false,
            ),
            (
                "locale",
                |ask| ask.context.locale = Some("de-DE".into()),
                true,
                false,
            ),
            (
                "similar",
                |ask| {
                    ask.route = Route::Similar {
                        seeds: vec![ItemId::new("1").unwrap()],
                    }
                },
                true,
                false,
            ),
            ("n", |ask| ask.n = Count::new(20).unwrap(), false, true),
            (
                "fields",
                |ask| ask.fields = vec!["year".into()],
                false,
                true,
            ),
            ("explain", |ask| ask.explain = !ask.explain, false, true),
            (
                "exclude",
                |ask| ask.exclude = vec![ItemId::new("1").unwrap()],
                false,
                true,
            ),
        ];
        for (name, change, key_changes, body_changes) in cases {
            let (before, mut after) = (ask(), ask());
            change(&mut after);
            let epochs = Epochs::default();
            let subject = Some("default\u{1f}u:1");
            assert_eq!(
                decision_key(&before, subject, false) != decision_key(&after, subject, false),
                key_changes,
                "{name}"
            );
            assert_eq!(
                render_hash(&before, &epochs) != render_hash(&after, &epochs),
                body_changes,
                "{name}"
            );
        }
    }
}
