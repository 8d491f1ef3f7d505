//! Which reason fits an item: the history item that brought it, else the genre that the user likes,
//! else that it is popular.

use crate::ports::{Card, Cards, Model};
use skerry_decide::reason;
use skerry_types::{ItemHash, ItemId, ItemRef, Reason, ReasonKind, Taste, UserContext};
use std::sync::Arc;

/// Recent positive events that genre affinity looks at.
const AFFINITY_EVENTS_MAX: usize = 20;

/// What reasons need to know of a user's history.
pub(crate) struct History {
    /// Newest first.
    tastes: Vec<(ItemHash, Taste)>,
    /// Genres of liked items.
    liked_genres: Vec<Arc<str>>,
}

impl History {
    pub(crate) fn new(
        context: Option<&UserContext>,
        model: &impl Model,
        cards: &impl Cards,
    ) -> Self {
        let recent = || {
            let recent = context.into_iter();
            recent.flat_map(|context| context.recent.iter().rev())
        };
        let tastes = recent().map(|event| (event.item.hash(), event.taste()));
        let tastes = tastes.collect();
        let mut liked_genres: Vec<Arc<str>> = Vec::new();
        let liked = recent()
            .take(AFFINITY_EVENTS_MAX)
            .filter(|event| event.taste() == Taste::Positive);
        // By row where there is one: that takes no lock.
        let card = |id: &ItemId| {
            model
                .row(id)
                .map_or_else(|| cards.of(id), |row| cards.row(row))
        };
        for card in liked.filter_map(|event| card(&event.item)) {
            if let Some(genre) = &card.genre
                && !liked_genres.contains(genre)
            {
                liked_genres.push(Arc::clone(genre));
            }
        }
        Self {
            tastes,
            liked_genres,
        }
    }

    /// Because of an item of the history; of one that was disliked nothing is said.
    pub(crate) fn because(&self, item: &Card) -> Reason {
        let taste = self.tastes.iter().find(|(hash, _)| *hash == item.hash);
        match taste {
            Some((_, Taste::Positive)) => about(ReasonKind::BecauseLiked, item),
            Some((_, Taste::Neutral)) | None => about(ReasonKind::BecauseWatched, item),
            Some((_, Taste::Negative)) => self.by_genre(item),
        }
    }

    pub(crate) fn by_genre(&self, item: &Card) -> Reason {
        match &item.genre {
            Some(genre) if self.liked_genres.contains(genre) => reason::genre(genre),
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
        item: Some(item),
        detail: None,
    }
}
