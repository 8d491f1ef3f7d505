//! `next` tokens: the rest of a list, sealed, so that any PoP can go on with it, without the origin.
//!
//! A token is base64url of nonce and ChaCha20-Poly1305 box over an encoded [`NextPage`]. It names
//! tenant and subject, so that it works for nobody else.

use crate::ports::{Host, NO_ROW};
use crate::rank;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use skerry_decide::reason;
use skerry_types::{Candidate, ItemId, ItemRef, Metadata, Millis, Reason};
use skerry_wire::json::{Problem, codes};
use skerry_wire::value::{NextItem, NextPage, NextReason};

/// How long a token works after the answer that gave it stops being fresh, in milliseconds.
pub const NEXT_MS: Millis = 10 * 60 * 1000;
const NONCE_BYTES: usize = 12;

/// Seals the rest of a list; `None` where it cannot be encoded.
#[must_use]
pub fn seal(key: &[u8; 32], page: &NextPage, entropy: u128) -> Option<String> {
    let plain = skerry_wire::encode(page).ok()?;
    // Random, so that no two are alike; it need not be a secret.
    let entropy = entropy.to_le_bytes();
    let nonce = entropy.get(..NONCE_BYTES)?;
    let cipher = ChaCha20Poly1305::new(Key::from_slice(key));
    let boxed = cipher
        .encrypt(Nonce::from_slice(nonce), plain.as_slice())
        .ok()?;
    Some(URL_SAFE_NO_PAD.encode([nonce, boxed.as_slice()].concat()))
}

/// Opens a token; anything that is not ours, not unchanged or too old is refused.
pub fn open(key: &[u8; 32], token: &str, now: Millis) -> Result<NextPage, Problem> {
    let invalid = || {
        Problem::bad_request(
            codes::NEXT_INVALID,
            "this next token was not given out here, or was changed",
        )
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let (nonce, boxed) = bytes.split_at_checked(NONCE_BYTES).ok_or_else(invalid)?;
    let cipher = ChaCha20Poly1305::new(Key::from_slice(key));
    let plain = cipher
        .decrypt(Nonce::from_slice(nonce), boxed)
        .map_err(|_| invalid())?;
    let page: NextPage = skerry_wire::decode(&plain).map_err(|_| invalid())?;
    if page.expires_ms <= now {
        return Err(Problem::bad_request(
            codes::NEXT_INVALID,
            "this next token has expired: ask for a new list",
        ));
    }
    Ok(page)
}

/// What a token carries of the candidates that were not shown yet: reasons name their items once.
#[must_use]
pub fn items(rest: &[&Candidate], explain: bool) -> (Vec<ItemId>, Vec<NextItem>) {
    let mut because: Vec<ItemId> = Vec::new();
    let mut place = |id: &ItemId| {
        let at = because
            .iter()
            .position(|known| known == id)
            .unwrap_or_else(|| {
                because.push(id.clone());
                because.len() - 1
            });
        u16::try_from(at).ok()
    };
    let items = rest.iter().map(|candidate| NextItem {
        id: candidate.id.clone(),
        score: candidate.score,
        source: candidate.source,
        propensity: candidate.propensity,
        reason: explain.then(|| NextReason {
            kind: candidate.reason.kind,
            because: candidate
                .reason
                .item
                .as_ref()
                .and_then(|item| place(&item.id)),
            detail: candidate.reason.detail.clone(),
        }),
    });
    let items = items.collect();
    (because, items)
}

/// Candidates from what a token carried: metadata and titles come from the pool; an item that the
/// pool has lost keeps its place without them.
pub async fn candidates<H: Host>(
    host: &H,
    because: Vec<ItemId>,
    rest: Vec<NextItem>,
) -> Vec<Candidate> {
    let ids = rest.iter().map(|item| &item.id).chain(&because);
    let ids: Vec<&str> = ids.map(ItemId::as_str).collect();
    let rows = host.rows(&ids).await;
    let known: Vec<u32> = rows.iter().copied().filter(|row| *row != NO_ROW).collect();
    let mut described = rank::describe(host, &known).await.into_iter();
    let mut fields = rows.iter().map(|row| match *row {
        NO_ROW => None,
        _ => described.next().map(|item| item.fields),
    });
    let of_rest: Vec<_> = fields.by_ref().take(rest.len()).collect();
    let named = |(id, fields): (ItemId, Option<Metadata>)| {
        let title = rank::title(&fields?)?;
        Some(ItemRef { id, title })
    };
    let because: Vec<Option<ItemRef>> = because.into_iter().zip(fields).map(named).collect();
    let restored = |(item, fields): (NextItem, Option<Metadata>)| {
        let reason = item.reason.map_or_else(reason::popular, |reason| {
            let about = reason
                .because
                .and_then(|at| because.get(usize::from(at))?.clone());
            Reason {
                kind: reason.kind,
                item: about,
                detail: reason.detail,
            }
        });
        Candidate {
            id: item.id,
            score: item.score,
            source: item.source,
            propensity: item.propensity,
            reason,
            fields: fields.unwrap_or_default(),
        }
    };
    rest.into_iter().zip(of_rest).map(restored).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::next_page;

    #[test]
    fn a_token_opens_only_unchanged_in_time_and_with_its_key() {
        let key = [7; 32];
        let page = NextPage {
            expires_ms: 1000,
            ..next_page()
        };
        let token = seal(&key, &page, 5).unwrap();
        assert_eq!(open(&key, &token, 999).unwrap(), page);
        let mut changed = token.clone().into_bytes();
        changed[30] ^= 1;
        let changed = String::from_utf8(changed).unwrap();
        let cases = [
            ("too old", open(&key, &token, 1000)),
            ("other key", open(&[8; 32], &token, 999)),
            ("changed", open(&key, &changed, 999)),
            ("short", open(&key, "AAAA", 999)),
            ("not base64", open(&key, "**", 999)),
            ("empty", open(&key, "", 999)),
        ];
        for (name, got) in cases {
            assert_eq!(got.unwrap_err().code, codes::NEXT_INVALID, "{name}");
        }
    }
}
