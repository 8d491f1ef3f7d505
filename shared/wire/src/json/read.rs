//! Walking a tree with typed expectations: every helper notes a mistake with its pointer and goes
//! on, so that one answer names them all.

use super::tree::{Entry, Node};
use super::{ERRORS_MAX, FieldError, Problem, codes};
use skerry_types::IdError;
use std::fmt::Write;
use std::ops::RangeInclusive;

/// Where a node stands, linked up to the root; becomes text only for a mistake.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
    /// A query parameter.
    Parameter(&'p str),
    /// A part of the path of the request.
    Segment(&'p str),
}

impl<'p> Path<'p> {
    pub(super) const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Root,
    };

    pub(super) const fn key(&'p self, name: &'p str) -> Path<'p> {
        Path {
            parent: Some(self),
            step: Step::Key(name),
        }
    }

    pub(super) const fn index(&'p self, at: usize) -> Path<'p> {
        Path {
            parent: Some(self),
            step: Step::Index(at),
        }
    }

    pub(super) const fn parameter(name: &'p str) -> Path<'p> {
        Path {
            parent: None,
            step: Step::Parameter(name),
        }
    }

    pub(super) const fn segment(name: &'p str) -> Path<'p> {
        Path {
            parent: None,
            step: Step::Segment(name),
        }
    }

    fn write(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(out);
        }
        match self.step {
            Step::Root => {}
            Step::Key(name) => {
                out.push('/');
                out.push_str(&shown(name).replace('~', "~0").replace('/', "~1"));
            }
            Step::Index(at) => {
                let _ = write!(out, "/{at}");
            }
            Step::Parameter(name) => {
                out.push('?');
                out.push_str(&shown(name));
            }
            Step::Segment(name) => {
                let _ = write!(out, "{{{name}}}");
            }
        }
    }

    /// What to call the place in a sentence.
    fn name(&self) -> String {
        match self.step {
            Step::Root => "the body".to_owned(),
            Step::Key(name) | Step::Parameter(name) | Step::Segment(name) => shown(name),
            Step::Index(at) => format!("entry {at}"),
        }
    }
}

/// A name from outside, cut to what fits a message.
pub(super) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The mistakes so far.
#[derive(Default)]
pub(super) struct Mistakes {
    list: Vec<FieldError>,
}

impl Mistakes {
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= ERRORS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn note(
        &mut self,
        path: &Path<'_>,
        code: &'static str,
        detail: impl FnOnce() -> String,
    ) {
        if self.is_full() {
            return;
        }
        let mut pointer = String::new();
        path.write(&mut pointer);
        self.list.push(FieldError {
            pointer,
            code,
            detail: detail(),
        });
    }

    /// What is wrong of the node at `path`, in a sentence that starts with its name.
    pub(super) fn must(&mut self, path: &Path<'_>, code: &'static str, what: &str) {
        self.note(path, code, || format!("{} must be {what}", path.name()));
    }

    pub(super) fn wrong_type(&mut self, path: &Path<'_>, wanted: &str, found: &Node<'_>) {
        self.note(path, codes::WRONG_TYPE, || {
            format!("{} must be {wanted}, not {}", path.name(), found.kind())
        });
    }

    pub(super) fn into_list(self) -> Vec<FieldError> {
        self.list
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, Problem> {
        if self.list.is_empty() {
            Ok(value)
        } else {
            Err(Problem::invalid(self.list))
        }
    }

    // Typed expectations.

    pub(super) fn object<'n, 'a>(
        &mut self,
        node: &'n Node<'a>,
        path: &Path<'_>,
    ) -> Option<&'n [Entry<'a>]> {
        if let Node::Object(entries) = node {
            return Some(entries);
        }
        self.wrong_type(path, "an object", node);
        None
    }

    pub(super) fn list<'n, 'a>(
        &mut self,
        node: &'n Node<'a>,
        path: &Path<'_>,
        sizes: RangeInclusive<usize>,
    ) -> Option<&'n [Node<'a>]> {
        let Node::List(list) = node else {
            self.wrong_type(path, "an array", node);
            return None;
        };
        if list.len() > *sizes.end() {
            let (max, found) = (sizes.end(), list.len());
            self.note(path, codes::TOO_MANY, || {
                format!("{} has {found} entries, at most {max}", path.name())
            });
            return None;
        }
        if list.len() < *sizes.start() {
            let least = sizes.start();
            self.note(path, codes::OUT_OF_RANGE, || {
                format!("{} needs at least {least} entry", path.name())
            });
            return None;
        }
        Some(list)
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node<'_>, path: &Path<'_>) -> Option<&'n str> {
        if let Node::Text(text) = node {
            return Some(text);
        }
        self.wrong_type(path, "a string", node);
        None
    }

    pub(super) fn boolean(&mut self, node: &Node<'_>, path: &Path<'_>) -> Option<bool> {
        if let Node::Bool(value) = node {
            return Some(*value);
        }
        self.wrong_type(path, "true or false", node);
        None
    }

    /// A whole number in a range.
    pub(super) fn whole(
        &mut self,
        node: &Node<'_>,
        path: &Path<'_>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let (least, most) = (*range.start(), *range.end());
        match node {
            Node::Int(int) => {
                if let Some(value) = u64::try_from(*int)
                    .ok()
                    .filter(|value| range.contains(value))
                {
                    return Some(value);
                }
            }
            Node::Float(float) if float.fract() == 0.0 => {}
            Node::Float(_) => {
                self.must(
                    path,
                    codes::WRONG_TYPE,
                    &format!("a whole number from {least} to {most}"),
                );
                return None;
            }
            other => {
                self.wrong_type(path, "a whole number", other);
                return None;
            }
        }
        self.must(
            path,
            codes::OUT_OF_RANGE,
            &format!("a whole number from {least} to {most}"),
        );
        None
    }

    pub(super) fn id<T>(
        &mut self,
        text: &str,
        path: &Path<'_>,
        new: fn(&str) -> Result<T, IdError>,
    ) -> Option<T> {
        new(text)
            .map_err(|error| self.note(path, error.code(), || format!("{}: {error}", path.name())))
            .ok()
    }

    pub(super) fn id_node<T>(
        &mut self,
        node: &Node<'_>,
        path: &Path<'_>,
        new: fn(&str) -> Result<T, IdError>,
    ) -> Option<T> {
        let text = self.text(node, path)?;
        self.id(text, path, new)
    }

    pub(super) fn id_list<T>(
        &mut self,
        node: &Node<'_>,
        path: &Path<'_>,
        sizes: RangeInclusive<usize>,
        new: fn(&str) -> Result<T, IdError>,
    ) -> Option<Vec<T>> {
        let list = self.list(node, path, sizes)?;
        let mut ids = Vec::with_capacity(list.len());
        for (at, node) in list.iter().enumerate() {
            if self.is_full() {
                return None;
            }
            ids.extend(self.id_node(node, &path.index(at), new));
        }
        (ids.len() == list.len()).then_some(ids)
    }

    /// Text of 1 to `bytes_max` bytes without control characters.
    pub(super) fn plain<'t>(
        &mut self,
        text: &'t str,
        path: &Path<'_>,
        bytes_max: usize,
    ) -> Option<&'t str> {
        if (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control) {
            return Some(text);
        }
        self.must(
            path,
            codes::TEXT_INVALID,
            &format!("1 to {bytes_max} bytes without control characters"),
        );
        None
    }

    /// Notes what is not known and what comes twice.
    pub(super) fn known(&mut self, entries: &[Entry<'_>], path: &Path<'_>, known: &[&str]) {
        let mut seen = 0u64;
        for (name, _) in entries {
            if self.is_full() {
                return;
            }
            match known.iter().position(|k| k == name) {
                Some(at) if seen >> at & 1 == 1 => {
                    self.note(&path.key(name), codes::DUPLICATE_FIELD, || {
                        format!("{name} is given twice")
                    });
                }
                Some(at) => seen |= 1 << at,
                None => self.note(&path.key(name), codes::UNKNOWN_FIELD, || {
                    unknown("field", name, known)
                }),
            }
        }
    }
}

/// The value of a key.
pub(super) fn get<'n, 'a>(entries: &'n [Entry<'a>], name: &str) -> Option<&'n Node<'a>> {
    entries
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, node)| node)
}

/// Names an unknown name and the nearest known one.
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let name = shown(name);
    match known.iter().min_by_key(|k| distance(&name, k)) {
        Some(nearest) => {
            format!("unknown {what} \"{name}\"; the nearest known one is \"{nearest}\"")
        }
        None => format!("unknown {what} \"{name}\""),
    }
}

/// Edits (Levenshtein) between two short names, by bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let cost = diagonal + usize::from(x != y);
            diagonal = *cell;
            *cell = cost.min(left + 1).min(diagonal + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, want) in [
            ("", "", 0),
            ("n", "", 1),
            ("", "abc", 3),
            ("surfce", "surface", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), want, "{a} {b}");
            assert_eq!(distance(b, a), want, "{b} {a}");
        }
        assert_eq!(
            unknown("field", "feilds", &["n", "filter", "fields"]),
            "unknown field \"feilds\"; the nearest known one is \"fields\""
        );
    }
}
