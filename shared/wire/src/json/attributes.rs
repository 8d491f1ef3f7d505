//! Items, users' attributes and stored events for the admin API: JSON in and out.
//!
//! An item is `{"id","attributes":{...},"hidden","available":[{"from","until","countries"}],
//! "maturity"}`. In a replacement an attribute that is null counts as absent; in a patch null takes
//! the attribute (or `maturity`) away.

use super::read::{Mistakes, Path, get, shown};
use super::time::write_time;
use super::tree::{Entry, Node, parse};
use super::write::{comma, key, write_float, write_integer, write_string, write_value};
use super::{
    ATTRIBUTE_LIST_MAX, ATTRIBUTE_TEXT_BYTES_MAX, ATTRIBUTES_MAX, ITEMS_MAX, NAME_BYTES_MAX,
    Problem, Rejected, WINDOWS_MAX, codes, parse_time,
};
use skerry_types::{Attributes, Country, Event, Item, ItemId, Millis, Rights, Value, Window};
use std::collections::BTreeMap;

/// What a PATCH of an item changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemPatch {
    pub attributes: AttributesPatch,
    pub hidden: Option<bool>,
    pub available: Option<Vec<Window>>,
    /// `Some(None)` takes the bound away.
    pub maturity: Option<Option<u8>>,
}

impl ItemPatch {
    pub fn apply(&self, item: &mut Item) {
        self.attributes.apply(&mut item.attributes);
        if let Some(hidden) = self.hidden {
            item.rights.hidden = hidden;
        }
        if let Some(available) = &self.available {
            item.rights.available.clone_from(available);
        }
        if let Some(maturity) = self.maturity {
            item.rights.maturity = maturity;
        }
    }
}

/// What a PATCH changes among attributes: `None` takes one away.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AttributesPatch(pub BTreeMap<Box<str>, Option<Value>>);

impl AttributesPatch {
    pub fn apply(&self, attributes: &mut Attributes) {
        for (name, value) in &self.0 {
            match value {
                Some(value) => attributes.insert(name.clone(), value.clone()),
                None => attributes.remove(name),
            };
        }
    }
}

/// A catalogue batch: what can be taken, by index, and why the rest cannot.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ParsedItems {
    pub accepted: Vec<(usize, Item)>,
    pub rejected: Vec<Rejected>,
}

const RIGHTS: [&str; 5] = ["id", "attributes", "hidden", "available", "maturity"];

/// `PUT /v1/items/{id}`: the whole item. An `id` in the body must be the one in the path.
pub fn parse_item(id: &ItemId, body: &[u8]) -> Result<Item, Problem> {
    let root = parse(body)?;
    let mut mistakes = Mistakes::default();
    let patch = item_patch(&root, &Path::ROOT, Some(id), &mut mistakes);
    mistakes.finish(replaced(id.clone(), &patch))
}

/// `PATCH /v1/items/{id}`
pub fn parse_item_patch(id: &ItemId, body: &[u8]) -> Result<ItemPatch, Problem> {
    let root = parse(body)?;
    let mut mistakes = Mistakes::default();
    let patch = item_patch(&root, &Path::ROOT, Some(id), &mut mistakes);
    mistakes.finish(patch)
}

/// `POST /v1/items:batch`: an array of up to [`ITEMS_MAX`] whole items with ids.
pub fn parse_items(body: &[u8]) -> Result<ParsedItems, Problem> {
    let root = parse(body)?;
    let mut mistakes = Mistakes::default();
    let Some(list) = mistakes.list(&root, &Path::ROOT, 1..=ITEMS_MAX) else {
        return mistakes.finish(ParsedItems::default());
    };
    let mut parsed = ParsedItems::default();
    for (index, node) in list.iter().enumerate() {
        let mut mistakes = Mistakes::default();
        let path = Path::ROOT.index(index);
        let patch = item_patch(node, &path, None, &mut mistakes);
        let id = match node {
            Node::Object(entries) => match get(entries, "id") {
                Some(id) => mistakes.id_node(id, &path.key("id"), ItemId::new),
                None => {
                    mistakes.note(&path.key("id"), codes::MISSING_FIELD, || {
                        "id is missing".to_owned()
                    });
                    None
                }
            },
            _ => None,
        };
        match (id, mistakes.into_list().into_iter().next()) {
            (Some(id), None) => parsed.accepted.push((index, replaced(id, &patch))),
            (_, first) => parsed
                .rejected
                .extend(first.map(|error| Rejected::of(index, error))),
        }
    }
    Ok(parsed)
}

/// `PUT /v1/users/{id}`: `{"attributes":{...}}`, all of them.
pub fn parse_attributes(body: &[u8]) -> Result<Attributes, Problem> {
    let patch = parse_attributes_patch(body)?;
    let mut attributes = Attributes::new();
    patch.apply(&mut attributes);
    Ok(attributes)
}

/// `PATCH /v1/users/{id}`
pub fn parse_attributes_patch(body: &[u8]) -> Result<AttributesPatch, Problem> {
    let root = parse(body)?;
    let mut mistakes = Mistakes::default();
    let mut patch = AttributesPatch::default();
    if let Some(entries) = mistakes.object(&root, &Path::ROOT) {
        mistakes.known(entries, &Path::ROOT, &["attributes"]);
        if let Some(node) = get(entries, "attributes") {
            patch = attributes(node, &Path::ROOT.key("attributes"), &mut mistakes);
        }
    }
    mistakes.finish(patch)
}

fn replaced(id: ItemId, patch: &ItemPatch) -> Item {
    let mut item = Item {
        id,
        attributes: Attributes::new(),
        rights: Rights::default(),
    };
    patch.apply(&mut item);
    item
}

fn item_patch(
    node: &Node<'_>,
    path: &Path<'_>,
    id: Option<&ItemId>,
    mistakes: &mut Mistakes,
) -> ItemPatch {
    let mut patch = ItemPatch::default();
    let Some(entries) = mistakes.object(node, path) else {
        return patch;
    };
    mistakes.known(entries, path, &RIGHTS);
    for (name, node) in entries {
        let path = path.key(name);
        match name.as_ref() {
            "id" => {
                // Without a path to compare with the caller reads it.
                let (Some(wanted), Node::Text(found)) = (id, node) else {
                    continue;
                };
                if found != wanted.as_str() {
                    mistakes.must(
                        &path,
                        codes::CONFLICTING_FIELDS,
                        "the id in the path, or left out",
                    );
                }
            }
            "attributes" => patch.attributes = attributes(node, &path, mistakes),
            "hidden" => patch.hidden = mistakes.boolean(node, &path),
            "available" => patch.available = windows(node, &path, mistakes),
            "maturity" => {
                patch.maturity = match node {
                    Node::Null => Some(None),
                    node => mistakes
                        .whole(node, &path, 0..=99)
                        .and_then(|age| u8::try_from(age).ok())
                        .map(Some),
                };
            }
            _ => {}
        }
    }
    patch
}

fn windows(node: &Node<'_>, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Vec<Window>> {
    let list = mistakes.list(node, path, 0..=WINDOWS_MAX)?;
    let mut windows = Vec::with_capacity(list.len());
    for (at, node) in list.iter().enumerate() {
        let path = path.index(at);
        let entries = mistakes.object(node, &path)?;
        mistakes.known(entries, &path, &["from", "until", "countries"]);
        let window = Window {
            from_ms: time(entries, "from", &path, mistakes),
            until_ms: time(entries, "until", &path, mistakes),
            countries: get(entries, "countries")
                .and_then(|node| countries(node, &path.key("countries"), mistakes))
                .unwrap_or_default(),
        };
        if let (Some(from), Some(until)) = (window.from_ms, window.until_ms)
            && from >= until
        {
            mistakes.must(&path.key("until"), codes::OUT_OF_RANGE, "later than from");
        }
        windows.push(window);
    }
    Some(windows)
}

fn countries(node: &Node<'_>, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Vec<Country>> {
    let list = mistakes.list(node, path, 0..=ATTRIBUTE_LIST_MAX)?;
    let mut countries = Vec::with_capacity(list.len());
    for (at, node) in list.iter().enumerate() {
        let path = path.index(at);
        let country = Country::parse(mistakes.text(node, &path)?);
        if country.is_none() {
            mistakes.must(&path, codes::COUNTRY_INVALID, "two letters (ISO 3166-1)");
        }
        countries.extend(country);
    }
    Some(countries)
}

fn time(
    entries: &[Entry<'_>],
    name: &str,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Millis> {
    let node = get(entries, name)?;
    if *node == Node::Null {
        return None;
    }
    read_time(node, &path.key(name), mistakes)
}

pub(super) fn read_time(
    node: &Node<'_>,
    path: &Path<'_>,
    mistakes: &mut Mistakes,
) -> Option<Millis> {
    let time = parse_time(mistakes.text(node, path)?);
    if time.is_none() {
        mistakes.must(
            path,
            codes::TIME_INVALID,
            "an RFC 3339 time such as 2026-11-20T12:00:00Z",
        );
    }
    time
}

fn attributes(node: &Node<'_>, path: &Path<'_>, mistakes: &mut Mistakes) -> AttributesPatch {
    let mut patch = AttributesPatch::default();
    let Some(entries) = mistakes.object(node, path) else {
        return patch;
    };
    if entries.len() > ATTRIBUTES_MAX {
        mistakes.must(
            path,
            codes::TOO_MANY,
            &format!("{ATTRIBUTES_MAX} attributes at most"),
        );
        return patch;
    }
    for (name, node) in entries {
        if mistakes.is_full() {
            break;
        }
        let path = path.key(name);
        if mistakes.plain(name, &path, NAME_BYTES_MAX).is_none() {
            continue;
        }
        let value = match node {
            Node::Null => None,
            Node::List(_) => list(node, &path, mistakes),
            node => scalar(node, &path, mistakes),
        };
        if patch.0.insert(name.as_ref().into(), value).is_some() {
            mistakes.note(&path, codes::DUPLICATE_FIELD, || {
                format!("{} is given twice", shown(name))
            });
        }
    }
    patch
}

fn list(node: &Node<'_>, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Value> {
    let list = mistakes.list(node, path, 0..=ATTRIBUTE_LIST_MAX)?;
    let mut values = Vec::with_capacity(list.len());
    for (at, node) in list.iter().enumerate() {
        values.push(scalar(node, &path.index(at), mistakes)?);
    }
    Some(Value::List(values))
}

/// A number, string, boolean or null.
pub(super) fn scalar(node: &Node<'_>, path: &Path<'_>, mistakes: &mut Mistakes) -> Option<Value> {
    Some(match node {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(*value),
        Node::Int(int) => Value::Int(*int),
        Node::Float(float) => Value::Float(*float),
        Node::Text(text) if text.len() > ATTRIBUTE_TEXT_BYTES_MAX => {
            mistakes.must(
                path,
                codes::TEXT_INVALID,
                &format!("at most {ATTRIBUTE_TEXT_BYTES_MAX} bytes"),
            );
            return None;
        }
        Node::Text(text) => Value::Text(text.as_ref().into()),
        Node::List(_) | Node::Object(_) => {
            mistakes.wrong_type(path, "a number, string, boolean or null", node);
            return None;
        }
    })
}

/// Appends `{"name":value,...}`.
pub fn attributes_to_json(out: &mut Vec<u8>, attributes: &Attributes) {
    out.push(b'{');
    for (name, value) in attributes {
        comma(out);
        write_string(out, name);
        out.push(b':');
        write_value(out, value);
    }
    out.push(b'}');
}

/// Appends an item as it is read.
pub fn item_to_json(out: &mut Vec<u8>, item: &Item) {
    out.push(b'{');
    key!(out, "id");
    write_string(out, item.id.as_str());
    key!(out, "attributes");
    attributes_to_json(out, &item.attributes);
    key!(out, "hidden");
    out.extend_from_slice(if item.rights.hidden {
        b"true"
    } else {
        b"false"
    });
    key!(out, "available");
    out.push(b'[');
    for window in &item.rights.available {
        comma(out);
        window_to_json(out, window);
    }
    out.push(b']');
    key!(out, "maturity");
    match item.rights.maturity {
        Some(age) => write_integer(out, u64::from(age)),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

fn window_to_json(out: &mut Vec<u8>, window: &Window) {
    out.push(b'{');
    for (name, time) in [("from", window.from_ms), ("until", window.until_ms)] {
        if let Some(ms) = time {
            comma(out);
            write_string(out, name);
            out.push(b':');
            time_to_json(out, ms);
        }
    }
    key!(out, "countries");
    out.push(b'[');
    for country in &window.countries {
        comma(out);
        write_string(out, country.as_str());
    }
    out.extend_from_slice(b"]}");
}

pub(super) fn time_to_json(out: &mut Vec<u8>, ms: Millis) {
    out.push(b'"');
    write_time(out, ms);
    out.push(b'"');
}

/// Appends a stored event: the fields of the public event, and where and when it was accepted.
pub fn event_to_json(out: &mut Vec<u8>, event: &Event) {
    let texts = [
        ("id", Some(event.id.as_str())),
        ("type", Some(event.kind.as_str())),
        ("user", event.user.as_ref().map(|id| id.as_str())),
        ("session", event.session.as_ref().map(|id| id.as_str())),
        ("item", event.item.as_ref().map(|id| id.as_str())),
        (
            "surface",
            event.surface.as_ref().map(|surface| surface.as_str()),
        ),
        ("region", Some(&*event.region)),
        ("pop", Some(&*event.pop)),
    ];
    out.push(b'{');
    for (name, text) in texts {
        if let Some(text) = text {
            comma(out);
            write_string(out, name);
            out.push(b':');
            write_string(out, text);
        }
    }
    if let Some(value) = event.value {
        key!(out, "value");
        write_float(out, f64::from(value));
    }
    key!(out, "at");
    time_to_json(out, event.at_ms);
    key!(out, "accepted_at");
    time_to_json(out, event.accepted_ms);
    if let Some(id) = event.request_id {
        key!(out, "request_id");
        out.push(b'"');
        out.extend_from_slice(&id.text());
        out.push(b'"');
    }
    if !event.positions.is_empty() {
        key!(out, "positions");
        out.push(b'[');
        for position in &event.positions {
            comma(out);
            write_integer(out, u64::from(*position));
        }
        out.push(b']');
    }
    out.push(b'}');
}
