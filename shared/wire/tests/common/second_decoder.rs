//! Another implementation of the encoding reads what ours writes: `wincode`, with the same
//! configuration, into types written down a second time. So the bytes follow from the encoding's
//! rules and from the order of fields, not from a habit of one library. The types here are those
//! with every shape that occurs: text, options, lists, maps, tuples, enums with and without
//! content, wide integers.

use super::any;
use proptest::prelude::*;
use skerry_wire::encode;
use skerry_wire::value::schema::METADATA;
use wincode::SchemaRead;
use wincode::config::{Configuration, Deserialize};

#[derive(SchemaRead, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
}

impl From<&skerry_types::Value> for Value {
    fn from(value: &skerry_types::Value) -> Self {
        match value {
            skerry_types::Value::Null => Self::Null,
            skerry_types::Value::Bool(value) => Self::Bool(*value),
            skerry_types::Value::Int(int) => Self::Int(*int),
            skerry_types::Value::Float(float) => Self::Float(*float),
            skerry_types::Value::Text(text) => Self::Text(text.to_string()),
            skerry_types::Value::List(list) => Self::List(list.iter().map(Self::from).collect()),
        }
    }
}

#[derive(SchemaRead, Debug, PartialEq)]
struct PoolItems {
    items: Vec<PoolItem>,
}

#[derive(SchemaRead, Debug, PartialEq)]
struct PoolItem {
    id: String,
    genre: Option<String>,
    fields: Vec<u8>,
}

#[derive(SchemaRead, Debug, PartialEq)]
enum Kind {
    View,
    Click,
    Like,
    Dislike,
    AddToCart,
    Purchase,
    Rating,
    Impression,
    Custom(String),
}

#[derive(SchemaRead, Debug, PartialEq)]
struct Event {
    tenant: String,
    id: String,
    kind: Kind,
    user: Option<String>,
    session: Option<String>,
    item: Option<String>,
    value: Option<f32>,
    at_ms: u64,
    accepted_ms: u64,
    surface: Option<String>,
    request_id: Option<u128>,
    positions: Vec<u16>,
    hlc_ms: u64,
    hlc_count: u32,
    region: String,
    pop: String,
}

#[derive(SchemaRead, Debug, PartialEq)]
struct PushHeader {
    tenant: String,
    kind: PushKind,
    epoch: u64,
    sha256: [u8; 32],
    bytes: u64,
    made_ms: u64,
}

#[derive(SchemaRead, Debug, PartialEq)]
enum PushKind {
    Config,
    Pool,
    Popular,
    Mask,
    Bandit,
    Contexts,
}

/// What `wincode` reads after our header.
macro_rules! second {
    ($type:ty, $bytes:expr) => {
        <$type>::deserialize(
            &$bytes[4..],
            Configuration::default().with_varint_encoding(),
        )
        .unwrap()
    };
}

fn texts<T: ToString>(id: &Option<T>) -> Option<String> {
    id.as_ref().map(ToString::to_string)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn items(ours in any::pool_items()) {
        let bytes = encode(&ours).unwrap();
        let items = ours.items.iter().map(|item| PoolItem {
            id: item.id.to_string(),
            genre: texts(&item.genre),
            fields: item.fields.as_bytes().to_vec(),
        });
        prop_assert_eq!(second!(PoolItems, bytes), PoolItems { items: items.collect() });
    }

    #[test]
    fn attributes(ours in any::attributes()) {
        let bytes = skerry_wire::codec::encode_as(METADATA, &ours).unwrap();
        let want: Vec<_> = ours.iter().map(|(name, value)| (name.to_string(), Value::from(value))).collect();
        prop_assert_eq!(second!(Vec<(String, Value)>, bytes), want);
    }

    #[test]
    fn events(ours in any::event_batch()) {
        let bytes = encode(&ours).unwrap();
        let events: Vec<Event> = ours.events.iter().map(|event| Event {
            tenant: event.tenant.to_string(),
            id: event.id.to_string(),
            kind: match event.kind.as_str() {
                "view" => Kind::View,
                "click" => Kind::Click,
                "like" => Kind::Like,
                "dislike" => Kind::Dislike,
                "add_to_cart" => Kind::AddToCart,
                "purchase" => Kind::Purchase,
                "rating" => Kind::Rating,
                "impression" => Kind::Impression,
                custom => Kind::Custom(custom.to_owned()),
            },
            user: texts(&event.user),
            session: texts(&event.session),
            item: texts(&event.item),
            value: event.value,
            at_ms: event.at_ms,
            accepted_ms: event.accepted_ms,
            surface: texts(&event.surface),
            request_id: event.request_id.map(|id| id.0),
            positions: event.positions.clone(),
            hlc_ms: event.hlc.ms,
            hlc_count: event.hlc.count,
            region: event.region.to_string(),
            pop: event.pop.to_string(),
        }).collect();
        prop_assert_eq!(second!(Vec<Event>, bytes), events);
    }

    #[test]
    fn push_headers(ours in any::push_header()) {
        use skerry_wire::frame::PushKind as Ours;
        let bytes = encode(&ours).unwrap();
        let want = PushHeader {
            tenant: ours.tenant.to_string(),
            kind: match ours.kind {
                Ours::Config => PushKind::Config,
                Ours::Pool => PushKind::Pool,
                Ours::Popular => PushKind::Popular,
                Ours::Mask => PushKind::Mask,
                Ours::Bandit => PushKind::Bandit,
                Ours::Contexts => PushKind::Contexts,
            },
            epoch: ours.epoch,
            sha256: ours.sha256,
            bytes: ours.bytes,
            made_ms: ours.made_ms,
        };
        prop_assert_eq!(second!(PushHeader, bytes), want);
    }
}
