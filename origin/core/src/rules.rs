//! What a question lets through: seen, excluded, rights and filter, checked for each candidate.

use crate::pipeline::Question;
use crate::ports::{Card, Cards, Gate};
use skerry_decide::filter;
use skerry_decide::rules::LeftOut;
use skerry_types::{Ask, ItemId, Millis, Route, UserContext};

/// What a request's rules need to look at.
pub(crate) struct Rules<'a> {
    ask: &'a Ask,
    out: LeftOut<'a>,
    now: Millis,
    /// `rank` orders the caller's own items: it leaves out only what rights forbid.
    pub(crate) own_items: bool,
}

impl<'a> Rules<'a> {
    pub(crate) fn of(question: &Question<'a>, context: Option<&'a UserContext>) -> Self {
        let ask = question.ask;
        let seeds = if let Route::Similar { seeds } = &ask.route {
            seeds.as_slice()
        } else {
            &[]
        };
        let exclude = ask.exclude.iter().chain(seeds).map(ItemId::hash);
        Self {
            ask,
            out: LeftOut::new(context.map_or(&[], |context| &context.seen), exclude),
            now: question.now,
            own_items: matches!(ask.route, Route::Rank { .. }),
        }
    }

    pub(crate) fn allow(&self, card: &Card) -> bool {
        self.allow_at(card.gate(), || Some(card))
    }

    pub(crate) fn allow_row(&self, cards: &impl Cards, row: u32) -> bool {
        let gate = cards.gate(row);
        gate.is_some_and(|gate| self.allow_at(gate, || cards.row(row)))
    }

    /// Looks at the card only where the gate leaves something open.
    fn allow_at<'c>(&self, gate: Gate, card: impl Fn() -> Option<&'c Card>) -> bool {
        let country = self.ask.context.country;
        let rights = |card: &Card| card.rights.allow(self.now, country, None);
        let filter = |filter| card().is_some_and(|card| filter::matches(filter, &card.fields));
        (self.own_items || !self.out.has(gate.hash))
            && (gate.is_free || card().is_some_and(rights))
            && self.ask.filter.as_ref().is_none_or(filter)
    }
}
