//! JSON text, written byte by byte: strings escaped, numbers short, no intermediate tree.

use skerry_types::Value;

/// Appends a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    // Nearly every text is plain, and this look at all of its bytes has no branches.
    if !bytes
        .iter()
        .fold(false, |found, byte| found | needs_escape(*byte))
    {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if !needs_escape(byte) {
            continue;
        }
        out.extend_from_slice(bytes.get(from..at).unwrap_or_default());
        from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                for digit in [control >> 4, control & 15] {
                    out.push(HEX.get(usize::from(digit)).copied().unwrap_or(b'0'));
                }
            }
        }
    }
    out.extend_from_slice(bytes.get(from..).unwrap_or_default());
    out.push(b'"');
}

const fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Appends a name of ours, which needs no escapes, as a string.
pub(super) fn write_name(out: &mut Vec<u8>, name: &'static str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
}

/// Appends a non-negative integer.
pub fn write_integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a number with at most 6 significant digits: scores and probabilities. What is not finite
/// becomes 0, so that the text is always JSON.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded by the scaling just above"
)]
pub fn write_float(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() || value == 0.0 {
        out.push(b'0');
        return;
    }
    if value < 0.0 {
        out.push(b'-');
    }
    // Six digits before the point; `point` is where the decimal point really stands, from the left.
    let mut scaled = value.abs();
    let mut point = 6i32;
    while scaled >= 999_999.5 {
        scaled /= 10.0;
        point += 1;
    }
    while scaled < 99_999.95 {
        scaled *= 10.0;
        point -= 1;
    }
    let mut mantissa = scaled.round() as u64;
    let mut digits = 6i32;
    while mantissa.is_multiple_of(10) && digits > 1 {
        mantissa /= 10;
        digits -= 1;
    }
    let start = out.len();
    if (-4..=0).contains(&point) {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', point.unsigned_abs() as usize));
        write_integer(out, mantissa);
    } else if (1..=15).contains(&point) {
        write_integer(out, mantissa);
        if digits > point {
            out.insert(start + point as usize, b'.');
        } else {
            out.extend(std::iter::repeat_n(b'0', (point - digits) as usize));
        }
    } else {
        write_integer(out, mantissa);
        if digits > 1 {
            out.insert(start + 1, b'.');
        }
        out.push(b'e');
        let exponent = point - 1;
        if exponent < 0 {
            out.push(b'-');
        }
        write_integer(out, u64::from(exponent.unsigned_abs()));
    }
}

/// Appends an attribute's value. Floats keep all their digits; what is not finite becomes null.
pub(super) fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(int) => {
            if *int < 0 {
                out.push(b'-');
            }
            write_integer(out, int.unsigned_abs());
        }
        Value::Float(float) if float.is_finite() => {
            out.extend_from_slice(format!("{float:?}").as_bytes())
        }
        Value::Float(_) => out.extend_from_slice(b"null"),
        Value::Text(text) => write_string(out, text),
        Value::List(list) => {
            out.push(b'[');
            for (at, element) in list.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                // Lists hold scalars only; a list in a list would be a mistake upstream.
                match element {
                    Value::List(_) => out.extend_from_slice(b"null"),
                    scalar => write_value(out, scalar),
                }
            }
            out.push(b']');
        }
    }
}

/// Appends `,` unless nothing stands since the opening bracket.
pub(super) fn comma(out: &mut Vec<u8>) {
    if !matches!(out.last(), Some(b'[' | b'{' | b':') | None) {
        out.push(b',');
    }
}

/// Appends `"name":`, with a comma before it where one is due. `name` is a literal without escapes.
macro_rules! key {
    ($out:expr, $name:literal) => {{
        $crate::json::write::comma($out);
        $out.extend_from_slice(concat!("\"", $name, "\":").as_bytes());
    }};
}
pub(super) use key;
