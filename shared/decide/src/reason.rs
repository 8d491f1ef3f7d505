//! Template reasons: the words for why an item is in the list, when nothing better is at hand.

use skerry_types::{Reason, ReasonKind};
use std::sync::Arc;

/// Longest title that goes into a reason, in characters; longer ones are cut with an ellipsis.
const TITLE_CHARS_MAX: usize = 80;

/// The reason that always holds.
#[must_use]
pub fn popular() -> Reason {
    Reason {
        kind: ReasonKind::Popular,
        item: None,
        detail: None,
    }
}

/// "More Drama for you".
#[must_use]
pub fn genre(name: &Arc<str>) -> Reason {
    Reason {
        kind: ReasonKind::GenreAffinity,
        item: None,
        detail: Some(Arc::clone(name)),
    }
}

/// Puts a reason into words. One without the item or detail that its template needs says the weaker
/// thing that is still true.
#[must_use]
pub fn text(reason: &Reason) -> String {
    let title = reason.item.as_ref().map(|item| cut(&item.title));
    match (reason.kind, title, reason.detail.as_deref()) {
        (ReasonKind::BecauseLiked, Some(title), _) => format!("Because you liked {title}"),
        (ReasonKind::BecauseWatched, Some(title), _) => format!("Because you looked at {title}"),
        (ReasonKind::SimilarTo, Some(title), _) => format!("Similar to {title}"),
        (ReasonKind::GenreAffinity, _, Some(genre)) => format!("More {genre} for you"),
        (ReasonKind::Explore, ..) => "Something new to try".to_owned(),
        (ReasonKind::Popular, ..) => "Popular now".to_owned(),
        _ => "Picked for you".to_owned(),
    }
}

fn cut(title: &str) -> String {
    match title.char_indices().nth(TITLE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", title.get(..at).unwrap_or_default().trim_end()),
        None => title.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_types::{ItemId, ItemRef};

    #[test]
    fn each_kind_has_words_and_a_weaker_form() {
        let item = ItemRef {
            id: ItemId::new("1748").unwrap(),
            title: "Dark City".into(),
        };
        let reason = |kind, with_item: bool, detail: Option<&str>| Reason {
            kind,
            item: with_item.then(|| item.clone()),
            detail: detail.map(Arc::from),
        };
        let cases = [
            (
                reason(ReasonKind::BecauseLiked, true, None),
                "Because you liked Dark City",
            ),
            (
                reason(ReasonKind::BecauseLiked, false, None),
                "Picked for you",
            ),
            (
                reason(ReasonKind::BecauseWatched, true, None),
                "Because you looked at Dark City",
            ),
            (
                reason(ReasonKind::SimilarTo, true, None),
                "Similar to Dark City",
            ),
            (
                reason(ReasonKind::GenreAffinity, false, Some("Drama")),
                "More Drama for you",
            ),
            (
                reason(ReasonKind::Explore, false, None),
                "Something new to try",
            ),
            (popular(), "Popular now"),
        ];
        for (reason, want) in cases {
            assert_eq!(text(&reason), want);
        }
        let long = ItemRef {
            id: item.id.clone(),
            title: "é".repeat(200).into(),
        };
        let words = text(&Reason {
            kind: ReasonKind::SimilarTo,
            item: Some(long),
            detail: None,
        });
        assert!(words.ends_with('…') && words.chars().count() < 100);
    }
}
