//! Which reason fits an item: the history item that brought it, else the genre that the user likes,
//! else that it is popular.

use crate::ports::Card;
use skerry_decide::{reason, rules};
use skerry_types::{ItemHash, ItemId, ItemRef, Reason, ReasonKind, Taste, UserContext};
use std::collections::HashMap;
use std::sync::Arc;

/// Recent positive events that genre affinity looks at.
const AFFINITY_EVENTS_MAX: usize = 20;

/// What reasons need to know of a user's history.
pub(crate) struct History {
    tastes: HashMap<ItemHash, Taste>,
    /// Genres of liked items, with how many there are of each.
    liked_genres: HashMap<Box<str>, u32>,
}

impl History {
    pub(crate) fn new(
        context: Option<&UserContext>,
        card: impl Fn(&ItemId) -> Option<Arc<Card>>,
    ) -> Self {
        let mut tastes = HashMap::new();
        let mut liked_genres: HashMap<Box<str>, u32> = HashMap::new();
        let recent = context
            .into_iter()
            .flat_map(|context| context.recent.iter().rev());
        for event in recent {
            tastes
                .entry(event.item.hash())
                .or_insert_with(|| event.taste());
            if event.taste() != Taste::Positive || tastes.len() > AFFINITY_EVENTS_MAX {
                continue;
            }
            if let Some(genre) = card(&event.item)
                .as_deref()
                .and_then(|card| rules::first_genre(&card.fields))
            {
                match liked_genres.get_mut(genre) {
                    Some(count) => *count += 1,
                    None => drop(liked_genres.insert(genre.into(), 1)),
                }
            }
        }
        Self {
            tastes,
            liked_genres,
        }
    }

    /// Because of an item of the history; of one that was disliked nothing is said.
    pub(crate) fn because(&self, item: &Card) -> Reason {
        match self.tastes.get(&item.hash) {
            Some(Taste::Positive) => about(ReasonKind::BecauseLiked, item),
            Some(Taste::Neutral) | None => about(ReasonKind::BecauseWatched, item),
            Some(Taste::Negative) => self.by_genre(item),
        }
    }

    pub(crate) fn by_genre(&self, item: &Card) -> Reason {
        match rules::first_genre(&item.fields) {
            Some(genre) if self.liked_genres.contains_key(genre) => reason::genre(genre),
            _ => reason::popular(),
        }
    }
}

/// A reason of `kind` that names `item`.
pub(crate) fn about(kind: ReasonKind, item: &Card) -> Reason {
    let item = ItemRef {
        id: item.id.clone(),
        title: Arc::clone(&item.title),
    };
    Reason {
        kind,
        items: vec![item],
        detail: None,
    }
}
