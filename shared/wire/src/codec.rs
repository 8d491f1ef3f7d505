//! Header and bounds around bincode. A schema number names one struct for ever: a changed struct
//! takes a new number and the old struct stays until nothing can hold it any more.

use bincode::de::read::{Reader, SliceReader};
use bincode::de::{BorrowDecode, Decoder, DecoderImpl};
use bincode::error::DecodeError;
use bincode::serde::BorrowCompat;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// First byte of every binary value.
pub const MAGIC: u8 = 0x5B;
/// Version of the encoding itself: bincode 2, little endian, variable-length integers.
pub const ENCODING: u8 = 1;
/// Magic, encoding and schema number.
pub const HEADER_BYTES: usize = 4;
/// No single value is larger, in bytes; pushes that are larger travel in chunks.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// Why bytes are not a value.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("{0} bytes are too few for a header")]
    Short(usize),
    #[error("not a value of ours (first byte {0:#04x})")]
    Magic(u8),
    #[error("encoding {0} is not known here, {ENCODING} is")]
    Encoding(u8),
    #[error("schema {found} where {wanted} was expected")]
    Schema { found: u16, wanted: u16 },
    #[error("{0} bytes are more than a value may have ({VALUE_BYTES_MAX})")]
    Large(usize),
    #[error("something follows the value")]
    Trailing,
    #[error("the body does not decode: {0}")]
    Body(String),
}

impl CodecError {
    /// The stable code that error bodies and metrics carry.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Short(_) => "codec_short",
            Self::Magic(_) => "codec_magic",
            Self::Encoding(_) => "codec_encoding",
            Self::Schema { .. } => "codec_schema",
            Self::Large(_) => "codec_large",
            Self::Trailing => "codec_trailing",
            Self::Body(_) => "codec_body",
        }
    }
}

/// A type with a schema number of its own.
pub trait Schema {
    const SCHEMA: u16;
}

/// Header and body.
pub fn encode<T: Schema + Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode_as(T::SCHEMA, value)
}

/// [`encode`] for a value that is known to take about so many bytes.
pub fn encode_large<T: Schema + Serialize>(value: &T, bytes: usize) -> Result<Vec<u8>, CodecError> {
    encode_in(Vec::with_capacity(bytes), T::SCHEMA, value)
}

/// Header and body of a type that another crate owns, under a schema number of this crate's list.
pub fn encode_as<T: Serialize>(schema: u16, value: &T) -> Result<Vec<u8>, CodecError> {
    encode_in(Vec::new(), schema, value)
}

fn encode_in<T: Serialize>(
    mut out: Vec<u8>,
    schema: u16,
    value: &T,
) -> Result<Vec<u8>, CodecError> {
    let [low, high] = schema.to_le_bytes();
    out.extend_from_slice(&[MAGIC, ENCODING, low, high]);
    bincode::serde::encode_into_std_write(value, &mut out, bincode::config::standard())
        .map_err(|error| CodecError::Body(error.to_string()))?;
    Ok(out)
}

/// Reads exactly one value from all of `bytes`.
pub fn decode<T: Schema + DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_as(T::SCHEMA, bytes)
}

/// [`decode`] for a type that another crate owns.
pub fn decode_as<T: DeserializeOwned>(schema: u16, bytes: &[u8]) -> Result<T, CodecError> {
    match read(schema, bytes)? {
        (value, true) => Ok(value),
        (_, false) => Err(CodecError::Trailing),
    }
}

/// The first fields of a value, as a type of their own; what follows them is not looked at.
pub fn decode_first<T: DeserializeOwned>(schema: u16, bytes: &[u8]) -> Result<T, CodecError> {
    read(schema, bytes).map(|(value, _)| value)
}

/// Whether bytes claim to be a value with this schema number.
pub fn check_schema(wanted: u16, bytes: &[u8]) -> Result<(), CodecError> {
    let found = schema_of(bytes)?;
    if found == wanted {
        Ok(())
    } else {
        Err(CodecError::Schema { found, wanted })
    }
}

/// A value, and whether nothing follows it.
fn read<T: DeserializeOwned>(schema: u16, bytes: &[u8]) -> Result<(T, bool), CodecError> {
    check_schema(schema, bytes)?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(CodecError::Large(bytes.len()));
    }
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    read_body(body).map_err(|error| CodecError::Body(error.to_string()))
}

/// Decodes with an allowance that follows from the number of bytes: a length prefix is refused
/// before anything is allocated for it. False where bytes are left over.
fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<(T, bool), DecodeError> {
    /// No encoding is denser than a `u128` in one byte, which counts as 16.
    const COUNTED_PER_BYTE: usize = 16;
    const LIMIT: usize = (VALUE_BYTES_MAX + 1) * COUNTED_PER_BYTE;
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let mut decoder = DecoderImpl::new(SliceReader::new(body), config, ());
    decoder.claim_bytes_read(LIMIT.saturating_sub((body.len() + 1) * COUNTED_PER_BYTE))?;
    let BorrowCompat(value) = BorrowDecode::borrow_decode(&mut decoder)?;
    Ok((value, decoder.reader().peek_read(1).is_none()))
}

/// The schema number that `bytes` claim, after checking magic and encoding.
pub fn schema_of(bytes: &[u8]) -> Result<u16, CodecError> {
    match *bytes {
        [MAGIC, ENCODING, low, high, ..] => Ok(u16::from_le_bytes([low, high])),
        [MAGIC, encoding, _, _, ..] => Err(CodecError::Encoding(encoding)),
        [other, _, _, _, ..] => Err(CodecError::Magic(other)),
        _ => Err(CodecError::Short(bytes.len())),
    }
}
