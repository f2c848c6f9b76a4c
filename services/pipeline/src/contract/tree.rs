//! A YAML text as a tree that remembers its lines, so that each problem can say where it is.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

/// Larger files are refused.
const LARGEST: usize = 1 << 20;
/// Nested deeper than this no part of a contract is.
const DEEPEST: usize = 32;

/// A node and its line.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Yes(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(String, Node)>),
}

impl Value {
    /// For messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Yes(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Why a text is no YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotYaml {
    pub(super) line: u64,
    pub(super) message: String,
}

/// Reads one YAML document.
pub(super) fn parse(text: &str) -> Result<Node, NotYaml> {
    if text.len() > LARGEST {
        return Err(NotYaml { line: 0, message: format!("{} bytes are more than a contract may have", text.len()) });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            flow_nesting_limit: DEEPEST,
            max_nodes: 50_000,
            max_events: 200_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 100,
            max_documents: 1,
            max_total_scalar_bytes: 4 * LARGEST,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    };
    let read = serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options);
    read.map(Node::from).map_err(|error| NotYaml {
        line: error.location().map_or(0, |location| location.line()),
        message: error.to_string().lines().collect::<Vec<_>>().join(" "),
    })
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { line: spanned.referenced.line(), value: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value of YAML")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Yes(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(item.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Value>()? {
            let Value::Text(key) = key else {
                return Err(A::Error::custom(format!("a key is {}; keys are texts", key.kind())));
            };
            map.push((key, entries.next_value::<Spanned<Value>>()?.into()));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_knows_its_line() {
        let tree = parse("a: 1\nb:\n  - x: yes\n    y: 1.5\n  - [1.0.0, '2', true, null]\n").unwrap();
        let Value::Map(entries) = &tree.value else { panic!("{tree:?}") };
        let lines: Vec<_> = entries.iter().map(|(key, node)| (key.as_str(), node.line)).collect();
        assert_eq!(lines, [("a", 1), ("b", 3)]);
        let Value::List(items) = &entries[1].1.value else { panic!("{tree:?}") };
        let Value::Map(first) = &items[0].value else { panic!("{tree:?}") };
        assert_eq!((first[1].0.as_str(), first[1].1.line), ("y", 4));
        assert!(matches!(&first[0].1.value, Value::Text(text) if text == "yes"));
        let Value::List(plain) = &items[1].value else { panic!("{tree:?}") };
        let kinds: Vec<_> = plain.iter().map(|node| node.value.kind()).collect();
        assert_eq!(kinds, ["a text", "a text", "true or false", "nothing"]);
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        let duplicate = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(duplicate.line, 3, "{duplicate:?}");
        let broken = parse("a: [1\nb: 2\n").unwrap_err();
        assert!(broken.line > 0 && !broken.message.contains('\n'), "{broken:?}");
        let bomb = format!("a: &a [{}]\nb: &b [{}]\nc: [{}]\n", "x,".repeat(99), "*a,".repeat(99), "*b,".repeat(99));
        assert!(parse(&bomb).is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&" ".repeat(LARGEST + 1)).is_err());
    }
}
