//! Little-endian bytes of what is stored: values, payloads, writes, the spec.
//!
//! Invariants: what is encoded decodes to itself, bit for bit (a NaN in a payload too); a decoder
//! takes strangers' bytes, reads no byte beyond them, and allocates no more than they can fill.

use super::error::StoreError;
use crate::{
    BATCH_MAX, DIM_MAX, ID_BYTES_MAX, IndexError, Metric, PAYLOAD_BYTES_MAX, Record, Spec, Stored,
    Write,
};
use skerry_types::{Attributes, Value};

/// Why bytes are not what they should be. The caller knows the file and the place.
pub type Decoded<T> = Result<T, &'static str>;

const SHORT: &str = "it ends too early";

/// Reads from the front.
#[derive(Clone)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn take(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn text(&mut self, length: usize) -> Decoded<&'a str> {
        std::str::from_utf8(self.take(length)?).map_err(|_| "a text is not UTF-8")
    }

    pub fn end(&self) -> Decoded<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("something follows its end")
        }
    }
}

pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u32(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Lengths here are bounded far below 2^32 by those who encode; what is not becomes what no decoder
/// takes.
pub fn put_u32(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
}

/// A scalar or, unless in a list, a list of them.
fn put_value(out: &mut Vec<u8>, value: &Value, in_list: bool) -> Result<(), ()> {
    match value {
        Value::Null => out.push(0),
        Value::Bool(false) => out.push(1),
        Value::Bool(true) => out.push(2),
        Value::Int(int) => {
            out.push(3);
            out.extend_from_slice(&int.to_le_bytes());
        }
        Value::Float(float) => {
            out.push(4);
            out.extend_from_slice(&float.to_bits().to_le_bytes());
        }
        Value::Text(text) => {
            out.push(5);
            put_text(out, text);
        }
        Value::List(_) if in_list => return Err(()),
        Value::List(list) => {
            out.push(6);
            put_u32(out, list.len());
            for value in list {
                put_value(out, value, true)?;
            }
        }
    }
    Ok(())
}

fn value(bytes: &mut Bytes<'_>, in_list: bool) -> Decoded<Value> {
    Ok(match bytes.u8()? {
        0 => Value::Null,
        1 => Value::Bool(false),
        2 => Value::Bool(true),
        3 => Value::Int(bytes.u64()?.cast_signed()),
        4 => Value::Float(f64::from_bits(bytes.u64()?)),
        5 => {
            let length = bytes.u32()? as usize;
            Value::Text(bytes.text(length)?.into())
        }
        6 if !in_list => {
            let count = bytes.u32()? as usize;
            // A value has one byte at least, so what is there bounds what is claimed.
            if count > bytes.0.len() {
                return Err(SHORT);
            }
            let list: Decoded<Vec<Value>> = (0..count).map(|_| value(bytes, true)).collect();
            Value::List(list?)
        }
        _ => return Err("an unknown kind of value"),
    })
}

/// Empty bytes are no attributes. Fails on a list in a list, naming the field.
pub fn encode_payload(id: &str, payload: &Attributes) -> Result<Vec<u8>, StoreError> {
    let mut out = Vec::new();
    for (field, value) in payload {
        put_text(&mut out, field);
        put_value(&mut out, value, false).map_err(|()| StoreError::NestedList {
            id: id.into(),
            field: field.clone(),
        })?;
        if out.len() > PAYLOAD_BYTES_MAX {
            return Err(IndexError::PayloadTooLarge {
                id: id.into(),
                bytes: out.len(),
            }
            .into());
        }
    }
    Ok(out)
}

/// Fields must ascend: equal payloads have equal bytes.
pub fn decode_payload(bytes: &[u8]) -> Decoded<Attributes> {
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err("a payload is too long");
    }
    let mut bytes = Bytes(bytes);
    let mut payload = Attributes::new();
    while !bytes.0.is_empty() {
        let length = bytes.u32()? as usize;
        let field = bytes.text(length)?;
        if payload
            .last_key_value()
            .is_some_and(|(last, _)| **last >= *field)
        {
            return Err("the fields of a payload do not ascend");
        }
        let value = value(&mut bytes, false)?;
        payload.insert(field.into(), value);
    }
    Ok(payload)
}

/// A write as it is logged; fails on a payload that cannot be stored.
pub fn put_write(out: &mut Vec<u8>, write: &Write) -> Result<(), StoreError> {
    match write {
        Write::Delete(id) => {
            out.push(0);
            put_text(out, id);
        }
        Write::Upsert(record) => {
            let payload = encode_payload(&record.id, &record.payload)?;
            out.push(1);
            put_text(out, &record.id);
            put_u32(out, payload.len());
            out.extend_from_slice(&payload);
            record
                .vector
                .iter()
                .for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
        }
    }
    Ok(())
}

pub fn write(bytes: &mut Bytes<'_>, dim: usize) -> Decoded<Write> {
    let kind = bytes.u8()?;
    let length = bytes.u32()? as usize;
    if !(1..=ID_BYTES_MAX).contains(&length) {
        return Err("an id has a wrong length");
    }
    let id: Box<str> = bytes.text(length)?.into();
    match kind {
        0 => Ok(Write::Delete(id)),
        1 => {
            let length = bytes.u32()? as usize;
            let payload = decode_payload(bytes.take(length)?)?;
            let vector = floats(bytes.take(dim.saturating_mul(4))?);
            if vector.iter().any(|value| !value.is_finite()) {
                return Err("a component is not finite");
            }
            Ok(Write::Upsert(Record {
                id,
                vector,
                payload,
            }))
        }
        _ => Err("an unknown kind of write"),
    }
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    let (fours, _) = bytes.as_chunks::<4>();
    fours.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

/// `count` writes and nothing after them.
pub fn writes(bytes: &[u8], count: usize, dim: usize) -> Decoded<Vec<Write>> {
    let mut bytes = Bytes(bytes);
    if count > bytes.0.len() {
        return Err(SHORT);
    }
    let mut all = Vec::with_capacity(count.min(BATCH_MAX));
    for _ in 0..count {
        all.push(write(&mut bytes, dim)?);
    }
    bytes.end()?;
    Ok(all)
}

pub fn metric_number(metric: Metric) -> u8 {
    match metric {
        Metric::Dot => 1,
        Metric::Cosine => 2,
        Metric::L2 => 3,
    }
}

pub fn metric(number: u8) -> Decoded<Metric> {
    match number {
        1 => Ok(Metric::Dot),
        2 => Ok(Metric::Cosine),
        3 => Ok(Metric::L2),
        _ => Err("an unknown metric"),
    }
}

pub fn stored_number(stored: Stored) -> u8 {
    match stored {
        Stored::F32 => 1,
        Stored::F16 => 2,
    }
}

pub fn stored(number: u8) -> Decoded<Stored> {
    match number {
        1 => Ok(Stored::F32),
        2 => Ok(Stored::F16),
        _ => Err("an unknown way to store vectors"),
    }
}

pub fn put_spec(out: &mut Vec<u8>, spec: &Spec) {
    put_u32(out, spec.dim);
    out.push(metric_number(spec.metric));
    out.push(stored_number(spec.stored));
    put_u32(out, spec.fields.len());
    spec.fields.iter().for_each(|field| put_text(out, field));
}

pub fn spec(bytes: &mut Bytes<'_>) -> Decoded<Spec> {
    let dim = bytes.u32()? as usize;
    if !(1..=DIM_MAX).contains(&dim) {
        return Err("a dimension that cannot be");
    }
    let metric = metric(bytes.u8()?)?;
    let stored = stored(bytes.u8()?)?;
    let count = bytes.u32()?;
    let mut fields: Vec<Box<str>> = Vec::new();
    for _ in 0..count {
        let length = bytes.u32()? as usize;
        fields.push(bytes.text(length)?.into());
    }
    if !fields.is_sorted_by(|a, b| a < b) {
        return Err("the fields do not ascend");
    }
    Ok(Spec {
        dim,
        metric,
        stored,
        fields,
    })
}
