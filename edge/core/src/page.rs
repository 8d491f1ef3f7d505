//! `next` tokens: the rest of a list, sealed, so that any PoP can go on with it, without the origin.
//!
//! A token is base64url of nonce and ChaCha20-Poly1305 box over an encoded [`NextPage`]. It names
//! tenant and subject, so that it works for nobody else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use sha2::{Digest, Sha256};
use skerry_types::Millis;
use skerry_wire::json::{Problem, codes};
use skerry_wire::value::NextPage;

/// How long a token works after the answer that gave it stops being fresh, in milliseconds.
pub const NEXT_MS: Millis = 10 * 60 * 1000;
const NONCE_BYTES: usize = 12;

/// Seals the rest of a list; `None` where it cannot be encoded.
#[must_use]
pub fn seal(key: &[u8; 32], page: &NextPage, entropy: u128) -> Option<String> {
    let plain = skerry_wire::encode(page).ok()?;
    let digest = Sha256::new()
        .chain_update(b"next")
        .chain_update(entropy.to_le_bytes())
        .finalize();
    let nonce = digest.get(..NONCE_BYTES)?;
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
