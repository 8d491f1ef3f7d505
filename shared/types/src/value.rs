//! Attribute values: the JSON scalars and lists of them.

use serde::{Deserialize, Serialize};

/// A value of an item's or user's attribute, or of a filter's condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    List(Vec<Value>),
}

impl Value {
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "attributes beyond 2^53 compare approximately, as in JSON")]
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
