//! Query strings and percent-encoding, strictly: `%` with anything but two hex digits, and bytes
//! that are not UTF-8, are mistakes. In a query `+` is a space, as every client library writes it.

use super::read::{Mistakes, Path, unknown};
use super::{Problem, codes};
use std::borrow::Cow;

/// Parameters of one query, at most.
const PARAMETERS_MAX: usize = 64;

/// Decodes `%xx` (and `+` where `plus` says so).
#[must_use]
pub fn percent_decode(text: &str, plus: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| b == b'%' || plus && b == b'+') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if plus => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Parameters with the names in `known`, each at most once; values in the order of `known`.
pub(super) fn read_query<'q, const N: usize>(
    query: &'q str,
    known: &[&'static str; N],
    mistakes: &mut Mistakes,
) -> [Option<Cow<'q, str>>; N] {
    let mut values = [const { None }; N];
    for (count, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if count >= PARAMETERS_MAX || mistakes.is_full() {
            mistakes.must(
                &Path::parameter("query"),
                codes::TOO_MANY,
                "at most 64 parameters",
            );
            break;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (percent_decode(name, true), percent_decode(value, true))
        else {
            mistakes.note(
                &Path::parameter(name),
                codes::PERCENT_ENCODING_INVALID,
                || "percent-encoding must be % and two hex digits, and decode to UTF-8".to_owned(),
            );
            continue;
        };
        let path = Path::parameter(&name);
        match known.iter().zip(&mut values).find(|(k, _)| **k == name) {
            Some((_, slot @ None)) => *slot = Some(value),
            Some(_) => mistakes.note(&path, codes::DUPLICATE_PARAMETER, || {
                format!("{name} is given twice")
            }),
            None => mistakes.note(&path, codes::UNKNOWN_PARAMETER, || {
                unknown("parameter", &name, known)
            }),
        }
    }
    values
}

/// [`read_query`] for other crates' endpoints: every mistake in one problem.
pub fn parse_query<'q, const N: usize>(
    query: &'q str,
    known: &[&'static str; N],
) -> Result<[Option<Cow<'q, str>>; N], Problem> {
    let mut mistakes = Mistakes::default();
    let values = read_query(query, known, &mut mistakes);
    mistakes.finish(values)
}
