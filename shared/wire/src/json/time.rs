//! RFC 3339 times to and from milliseconds UTC, exactly; leap seconds are taken as the next second.

use super::write::write_integer;
use skerry_types::Millis;

const DAY_MS: u64 = 86_400_000;

/// Reads `2026-11-20T12:00:00[.123...](Z|+01:00)`; digits beyond milliseconds are cut off. `None`
/// for anything else and for times outside the years 1970 to 9999.
#[must_use]
pub fn parse_time(text: &str) -> Option<Millis> {
    let bytes = text.as_bytes();
    let (head, rest) = bytes.split_at_checked(19)?;
    let [
        _,
        _,
        _,
        _,
        b'-',
        _,
        _,
        b'-',
        _,
        _,
        b'T' | b't' | b' ',
        _,
        _,
        b':',
        _,
        _,
        b':',
        _,
        _,
    ] = head
    else {
        return None;
    };
    let year = digits(head.get(0..4)?)?;
    let month = digits(head.get(5..7)?)?;
    let day = digits(head.get(8..10)?)?;
    let hour = digits(head.get(11..13)?)?;
    let minute = digits(head.get(14..16)?)?;
    let second = digits(head.get(17..19)?)?;
    let days_in_month = match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_ms, zone) = match rest {
        [b'.', fraction @ ..] => {
            let count = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if !(1..=30).contains(&count) {
                return None;
            }
            let weights = [100, 10, 1];
            let ms = fraction
                .iter()
                .take(count)
                .zip(weights)
                .map(|(b, weight)| i64::from(b - b'0') * weight)
                .sum();
            (ms, fraction.get(count..)?)
        }
        zone => (0i64, zone),
    };
    let offset_minutes = match zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (h, m) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            if h > 23 || m > 59 {
                return None;
            }
            let minutes = h * 60 + m;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400
        + hour * 3_600
        + (minute - offset_minutes) * 60
        + second;
    u64::try_from(seconds * 1_000 + fraction_ms).ok()
}

/// Writes `2026-11-20T12:00:00Z`, with `.123` only where there are milliseconds.
#[must_use]
pub fn format_time(ms: Millis) -> String {
    let mut out = Vec::with_capacity(24);
    write_time(&mut out, ms);
    String::from_utf8(out).unwrap_or_default()
}

pub(super) fn write_time(out: &mut Vec<u8>, ms: Millis) {
    // The last millisecond of the year 9999: beyond it the form has no room.
    let ms = ms.min(253_402_300_799_999);
    let (year, month, day) = civil_from_days(ms / DAY_MS);
    let of_day = ms % DAY_MS;
    padded(out, year, 4);
    out.push(b'-');
    padded(out, month, 2);
    out.push(b'-');
    padded(out, day, 2);
    out.push(b'T');
    padded(out, of_day / 3_600_000, 2);
    out.push(b':');
    padded(out, of_day / 60_000 % 60, 2);
    out.push(b':');
    padded(out, of_day / 1_000 % 60, 2);
    if !ms.is_multiple_of(1_000) {
        out.push(b'.');
        padded(out, ms % 1_000, 3);
    }
    out.push(b'Z');
}

fn padded(out: &mut Vec<u8>, value: u64, width: u32) {
    for place in (1..width).rev() {
        if value < 10u64.pow(place) {
            out.push(b'0');
        }
    }
    write_integer(out, value);
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |sum, b| {
        b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0'))
    })
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days since 1970-01-01 of a Gregorian date (Howard Hinnant, "chrono-compatible low-level date
/// algorithms": years begin in March, eras have 400 years).
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}
