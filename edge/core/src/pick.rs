//! From a decision to an answer: what is shown of it, now, to this caller. Seen, excluded, filtered
//! and forbidden items are taken out whenever an answer is made, on every rung.

use crate::ports::{Epochs, Host};
use skerry_decide::filter;
use skerry_decide::rules::LeftOut;
use skerry_types::{Ask, Candidate, Filter, ItemHash, ItemId, Metadata, Millis, Route};
use skerry_wire::value::metadata;

/// Indices of the candidates that may be shown, in order.
pub async fn pick<H: Host>(
    host: &H,
    ask: &Ask,
    seen: &[ItemHash],
    epochs: &Epochs,
    now: Millis,
    candidates: &[Candidate],
) -> Vec<usize> {
    let own_items = matches!(ask.route, Route::Rank { .. });
    let seeds = if let Route::Similar { seeds } = &ask.route {
        seeds.as_slice()
    } else {
        &[]
    };
    let out = LeftOut::new(
        if own_items { &[] } else { seen },
        ask.exclude.iter().chain(seeds).map(ItemId::hash),
    );
    let hashes: Vec<_> = candidates
        .iter()
        .map(|candidate| candidate.id.hash())
        .collect();
    let country = ask
        .context
        .country
        .as_ref()
        .map_or("", |country| country.as_str());
    let forbidden = if epochs.mask == 0 {
        Vec::new()
    } else {
        host.forbidden(&hashes, now, country).await
    };
    candidates
        .iter()
        .zip(hashes)
        .enumerate()
        .filter(|(at, (candidate, hash))| {
            !out.has(*hash)
                && !forbidden.get(*at).copied().unwrap_or(false)
                && ask
                    .filter
                    .as_ref()
                    .is_none_or(|filter| fits(filter, &candidate.fields))
        })
        .map(|(at, _)| at)
        .collect()
}

/// Whether an item passes a filter; one whose metadata cannot be read passes as one without any.
pub(crate) fn fits(filter: &Filter, fields: &Metadata) -> bool {
    filter::matches(filter, &metadata::read(fields).unwrap_or_default())
}
