//! Attribute values: the JSON scalars and lists of them. A list in a list is not a value: it is
//! refused when decoding, so that no bytes of a peer can make a decoder recurse.

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A value of an item's or user's attribute, or of a filter's condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    List(#[serde(deserialize_with = "scalars")] Vec<Value>),
}

/// What a list may hold: the variants of [`Value`] in the same order, without the last.
#[derive(Deserialize)]
enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
}

impl From<Scalar> for Value {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Null => Self::Null,
            Scalar::Bool(value) => Self::Bool(value),
            Scalar::Int(int) => Self::Int(int),
            Scalar::Float(float) => Self::Float(float),
            Scalar::Text(text) => Self::Text(text),
        }
    }
}

fn scalars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    struct Scalars;
    impl<'de> Visitor<'de> for Scalars {
        type Value = Vec<Value>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of scalars")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Value>, A::Error> {
            // The length is the sender's claim: it may spare reallocations, no more.
            let mut list = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(64));
            while let Some(scalar) = seq.next_element::<Scalar>()? {
                list.push(scalar.into());
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(Scalars)
}

impl Value {
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "attributes beyond 2^53 compare approximately, as in JSON"
    )]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(int) => Some(*int as f64),
            Self::Float(float) => Some(*float),
            _ => None,
        }
    }

    /// The value itself, or the elements of a list.
    pub fn each(&self) -> impl Iterator<Item = &Value> {
        match self {
            Self::List(list) => list.iter(),
            one => std::slice::from_ref(one).iter(),
        }
    }
}
