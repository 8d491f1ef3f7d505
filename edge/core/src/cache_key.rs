//! What makes two requests the same: keys of cached decisions and of bodies rendered from them.

use crate::ports::Epochs;
use skerry_types::{Ask, Route};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Number of the layout of cached values: a new one makes old entries unreachable.
const SCHEMA: u8 = 1;
const SEP: u8 = 0x1f;
/// What is hashed has about this many bytes, as a rule.
const BYTES: usize = 160;

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
    let mut rest = Vec::with_capacity(BYTES);
    context(&mut rest, ask);
    if let Route::Similar { seeds } = &ask.route {
        seeds.iter().for_each(|seed| text(&mut rest, seed.as_str()));
    }
    if narrow {
        narrowing(&mut rest, ask);
    }
    key.extend_from_slice(&xxh3_128(&rest).to_le_bytes());
    key
}

/// Hash of everything that shapes the body beside the decision and the subject's context.
#[must_use]
pub fn render_hash(ask: &Ask, epochs: &Epochs) -> u64 {
    let mut all = Vec::with_capacity(BYTES);
    all.extend_from_slice(&u16::from(ask.n).to_le_bytes());
    all.push(u8::from(ask.explain));
    all.push(ask.lowest_rung.map_or(255, |rung| rung as u8));
    all.extend_from_slice(&epochs.mask.to_le_bytes());
    all.extend_from_slice(&epochs.config.to_le_bytes());
    ask.fields.iter().for_each(|field| text(&mut all, field));
    narrowing(&mut all, ask);
    xxh3_64(&all)
}

/// Whether filter or exclusions shape the decision.
#[must_use]
pub fn is_narrow(ask: &Ask) -> bool {
    ask.filter.is_some() || !ask.exclude.is_empty()
}

fn context(out: &mut Vec<u8>, ask: &Ask) {
    let context = &ask.context;
    for part in [&context.device, &context.locale, &context.tz] {
        text(out, part.as_deref().unwrap_or_default());
    }
    text(
        out,
        context
            .country
            .as_ref()
            .map_or("", |country| country.as_str()),
    );
    for (name, value) in &context.other {
        text(out, name);
        text(out, value);
    }
}

fn narrowing(out: &mut Vec<u8>, ask: &Ask) {
    out.extend_from_slice(&(ask.exclude.len() as u64).to_le_bytes());
    ask.exclude.iter().for_each(|item| text(out, item.as_str()));
    if let Some(filter) = &ask.filter {
        // The parsed filter's debug form is total and unambiguous: strings are quoted in it.
        text(out, &format!("{filter:?}"));
    }
}

/// Length first, so that neighbouring texts cannot run into each other.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
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
