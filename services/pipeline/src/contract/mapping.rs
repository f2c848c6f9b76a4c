//! Taking values out of mappings, with a problem for each that is of another kind or under a key that nobody knows.

use super::problem::{Place, Problem};
use super::tree::{Node, Value};
use crate::config::nearest_of;

/// A mapping of the file.
#[derive(Debug, Clone)]
pub(super) struct Mapping<'t> {
    pub(super) place: Place,
    entries: &'t [(String, Node)],
}

impl<'t> Mapping<'t> {
    /// The node under a key; nothing where it is not there or null.
    pub(super) fn get(&self, key: &str) -> Option<(&'t Node, Place)> {
        let (_, node) = self.entries.iter().find(|(found, _)| found == key)?;
        (!matches!(node.value, Value::Null)).then(|| (node, self.place.at(key, node.line)))
    }

    /// All of it.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t str, &'t Node, Place)> {
        let place = self.place.clone();
        self.entries.iter().map(move |(key, node)| (key.as_str(), node, place.at(key, node.line)))
    }
}

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Problem>);

impl Findings {
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.0.push(Problem::new(place, message));
    }

    fn wrong_kind<T>(&mut self, node: &Node, place: &Place, wanted: &str) -> Option<T> {
        let hint = match (&node.value, wanted) {
            (Value::Number(_) | Value::Yes(_), "a text") => "; put quotes around it",
            _ => "",
        };
        self.add(place, format!("is {}, where {wanted} is needed{hint}", node.value.kind()));
        None
    }

    pub(super) fn mapping<'t>(&mut self, node: &'t Node, place: Place) -> Option<Mapping<'t>> {
        match &node.value {
            Value::Map(entries) => Some(Mapping { place, entries }),
            _ => self.wrong_kind(node, &place, "a mapping"),
        }
    }

    pub(super) fn list<'t>(&mut self, mapping: &Mapping<'t>, key: &str) -> Vec<(&'t Node, Place)> {
        let Some((node, place)) = mapping.get(key) else { return Vec::new() };
        match &node.value {
            Value::List(items) => {
                items.iter().enumerate().map(|(index, item)| (item, place.entry(index, item.line))).collect()
            }
            _ => self.wrong_kind(node, &place, "a list").unwrap_or_default(),
        }
    }

    /// The mappings of a list.
    pub(super) fn mappings<'t>(&mut self, mapping: &Mapping<'t>, key: &str) -> Vec<Mapping<'t>> {
        let items = self.list(mapping, key);
        items.into_iter().filter_map(|(node, place)| self.mapping(node, place)).collect()
    }

    pub(super) fn text(&mut self, mapping: &Mapping<'_>, key: &str) -> Option<String> {
        let (node, place) = mapping.get(key)?;
        self.as_text(node, &place)
    }

    pub(super) fn as_text(&mut self, node: &Node, place: &Place) -> Option<String> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            _ => self.wrong_kind(node, place, "a text"),
        }
    }

    /// A text that must be there and not be empty.
    pub(super) fn needed(&mut self, mapping: &Mapping<'_>, key: &str, why: &str) -> String {
        if mapping.get(key).is_none() {
            self.add(&mapping.place, format!("has no `{key}`: {why}"));
            return String::new();
        }
        let text = self.text(mapping, key).unwrap_or_default();
        if text.is_empty() && mapping.get(key).is_some_and(|(node, _)| matches!(node.value, Value::Text(_))) {
            self.add(&mapping.place, format!("has an empty `{key}`: {why}"));
        }
        text
    }

    /// One of some words.
    pub(super) fn word(&mut self, mapping: &Mapping<'_>, key: &str, words: &[&str]) -> Option<String> {
        let (_, place) = mapping.get(key)?;
        let word = self.text(mapping, key)?;
        if words.contains(&word.as_str()) {
            return Some(word);
        }
        let meant = nearest_of(&word, words.iter().copied()).map(|near| format!("; did you mean {near}?"));
        self.add(&place, format!("is {word:?}; it may be {}{}", words.join(", "), meant.unwrap_or_default()));
        None
    }

    pub(super) fn number(&mut self, mapping: &Mapping<'_>, key: &str) -> Option<f64> {
        let (node, place) = mapping.get(key)?;
        match &node.value {
            Value::Number(number) if number.is_finite() => Some(*number),
            _ => self.wrong_kind(node, &place, "a finite number"),
        }
    }

    /// A whole number from 0 on.
    pub(super) fn count(&mut self, mapping: &Mapping<'_>, key: &str) -> Option<usize> {
        let (node, place) = mapping.get(key)?;
        match &node.value {
            Value::Number(number) if number.fract() == 0.0 && (0.0..=9e15).contains(number) => Some(*number as usize),
            _ => self.wrong_kind(node, &place, "a whole number from 0 on"),
        }
    }

    pub(super) fn flag(&mut self, mapping: &Mapping<'_>, key: &str) -> Option<bool> {
        let (node, place) = mapping.get(key)?;
        match &node.value {
            Value::Yes(yes) => Some(*yes),
            _ => self.wrong_kind(node, &place, "true or false"),
        }
    }

    /// Texts in a list.
    pub(super) fn texts(&mut self, mapping: &Mapping<'_>, key: &str) -> Vec<String> {
        let items = self.list(mapping, key);
        items.into_iter().filter_map(|(node, place)| self.as_text(node, &place)).collect()
    }

    /// Keys that nobody reads are mistakes.
    pub(super) fn known(&mut self, mapping: &Mapping<'_>, keys: &[&str], what: &str) {
        for (key, _, place) in mapping.entries() {
            if keys.contains(&key) {
                continue;
            }
            let meant = nearest_of(key, keys.iter().copied());
            let meant = meant
                .map_or_else(|| format!("it may have {}", keys.join(", ")), |near| format!("did you mean {near}?"));
            self.add(&place, format!("{what} has no such key; {meant}"));
        }
    }
}

/// A value of one line, as a person would write it.
pub(super) fn shown(node: &Node) -> String {
    match &node.value {
        Value::Null => String::new(),
        Value::Yes(yes) => yes.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Map(entries) => {
            entries.iter().map(|(key, node)| format!("{key}: {}", shown(node))).collect::<Vec<_>>().join(", ")
        }
    }
}
