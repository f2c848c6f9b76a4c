//! From JSON to the arena.
//!
//! Strict where two readings are possible, lenient where only one is: names may hold any characters, unknown
//! attributes are ignored, defaults of a writer are never looked at.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{Field, Kind, Logical, Name, Node, NodeId, Schema, SchemaError};

/// Parses `text`, after the named types of `references`, each of which may use those before it.
pub(in crate::decode) fn parse(text: &str, references: &[String]) -> Result<Schema, SchemaError> {
    let mut parser = Parser::default();
    for reference in references {
        parser.parse_text(reference)?;
    }
    let root = parser.parse_text(text)?;
    Ok(Schema { nodes: parser.nodes, root })
}

#[derive(Default)]
struct Parser {
    nodes: Vec<Node>,
    named: HashMap<String, NodeId>,
    /// Where in the schema the parser stands, for messages.
    path: Vec<String>,
}

type Parsed<T> = Result<T, SchemaError>;

impl Parser {
    /// The depth is bounded: serde_json refuses JSON nested deeper than 128.
    fn parse_text(&mut self, text: &str) -> Parsed<NodeId> {
        match serde_json::from_str::<Value>(text) {
            Ok(json) => self.parse_type(&json, ""),
            // The registry accepts the bare name of a primitive type as a schema.
            Err(_) if primitive(text.trim()).is_some() => self.parse_name(text.trim(), ""),
            Err(error) => self.invalid(format!("not JSON: {error}")),
        }
    }

    fn parse_type(&mut self, json: &Value, namespace: &str) -> Parsed<NodeId> {
        match json {
            Value::String(name) => self.parse_name(name, namespace),
            Value::Array(branches) => self.parse_union(branches, namespace),
            Value::Object(attributes) => self.parse_object(attributes, namespace),
            other => self.invalid(format!("a type is a string, an array or an object, not {other}")),
        }
    }

    fn parse_name(&mut self, name: &str, namespace: &str) -> Parsed<NodeId> {
        if let Some(kind) = primitive(name) {
            return Ok(self.add(kind, None));
        }
        let full = qualify(name, namespace);
        match self.named.get(&full).or_else(|| self.named.get(name)) {
            Some(node) => Ok(*node),
            None => self.invalid(format!("type `{full}` is not defined")),
        }
    }

    fn parse_union(&mut self, branches: &[Value], namespace: &str) -> Parsed<NodeId> {
        let mut nodes: Vec<NodeId> = Vec::with_capacity(branches.len());
        let mut seen = HashSet::new();
        for branch in branches {
            let node = self.parse_type(branch, namespace)?;
            let kind = &self.nodes[node].kind;
            if matches!(kind, Kind::Union(_)) {
                return self.invalid("a union may not hold a union".to_owned());
            }
            // One branch for each unnamed type, one for each full name.
            let branch = kind.name().map_or(kind.word(), |name| &name.full);
            if !seen.insert(branch.to_owned()) {
                return self.invalid(format!("the union has two branches of type `{branch}`"));
            }
            nodes.push(node);
        }
        if nodes.is_empty() {
            return self.invalid("the union has no branch".to_owned());
        }
        Ok(self.add(Kind::Union(nodes), None))
    }

    fn parse_object(&mut self, attributes: &Map<String, Value>, namespace: &str) -> Parsed<NodeId> {
        let type_name = match attributes.get("type") {
            Some(Value::String(name)) => name.as_str(),
            // {"type": {...}} is another way to write the type inside.
            Some(nested @ (Value::Object(_) | Value::Array(_))) => return self.parse_type(nested, namespace),
            Some(other) => return self.invalid(format!("`type` is {other}")),
            None => return self.invalid("the type has no `type`".to_owned()),
        };
        match type_name {
            "record" | "error" => self.parse_record(attributes, namespace),
            "enum" => self.parse_enum(attributes, namespace),
            "fixed" => self.parse_fixed(attributes, namespace),
            "array" => {
                let items = self.parse_attribute(attributes, "items", namespace)?;
                Ok(self.add(Kind::Array(items), None))
            }
            "map" => {
                let values = self.parse_attribute(attributes, "values", namespace)?;
                Ok(self.add(Kind::Map(values), None))
            }
            name => match primitive(name) {
                Some(kind) => {
                    let logical = Logical::of(&kind, attributes);
                    Ok(self.add(kind, logical))
                }
                None => self.parse_name(name, namespace),
            },
        }
    }

    fn parse_attribute(&mut self, attributes: &Map<String, Value>, key: &str, namespace: &str) -> Parsed<NodeId> {
        match attributes.get(key) {
            Some(json) => self.parse_type(json, namespace),
            None => self.invalid(format!("`{key}` is missing")),
        }
    }

    fn parse_record(&mut self, attributes: &Map<String, Value>, namespace: &str) -> Parsed<NodeId> {
        let name = self.parse_own_name(attributes, namespace)?;
        let inner_namespace = namespace_of(&name.full).to_owned();
        // Known before its fields are read, since they may name it.
        let node = self.define(name.clone(), Kind::Record { name: name.clone(), fields: Vec::new() })?;
        let Some(Value::Array(declared)) = attributes.get("fields") else {
            return self.invalid(format!("record `{}` has no array `fields`", name.full));
        };
        self.path.push(name.unqualified().to_owned());
        let mut fields: Vec<Field> = Vec::with_capacity(declared.len());
        let mut seen = HashSet::new();
        for json in declared {
            let field = self.parse_field(json, &inner_namespace)?;
            if !seen.insert(field.name.clone()) {
                return self.invalid(format!("two fields are called `{}`", field.name));
            }
            fields.push(field);
        }
        self.path.pop();
        self.nodes[node].kind = Kind::Record { name, fields };
        Ok(node)
    }

    fn parse_field(&mut self, json: &Value, namespace: &str) -> Parsed<Field> {
        let Value::Object(attributes) = json else {
            return self.invalid(format!("a field is an object, not {json}"));
        };
        let Some(name) = attributes.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return self.invalid("a field has no name".to_owned());
        };
        self.path.push(name.to_owned());
        let node = self.parse_attribute(attributes, "type", namespace)?;
        self.path.pop();
        let aliases = strings(attributes.get("aliases"));
        Ok(Field { name: name.to_owned(), aliases, node, default: attributes.get("default").cloned() })
    }

    fn parse_enum(&mut self, attributes: &Map<String, Value>, namespace: &str) -> Parsed<NodeId> {
        let name = self.parse_own_name(attributes, namespace)?;
        let Some(Value::Array(declared)) = attributes.get("symbols") else {
            return self.invalid(format!("enum `{}` has no array `symbols`", name.full));
        };
        let mut symbols: Vec<String> = Vec::with_capacity(declared.len());
        let mut seen = HashSet::new();
        for symbol in declared {
            let Some(symbol) = symbol.as_str() else {
                return self.invalid(format!("enum `{}` has the symbol {symbol}", name.full));
            };
            if !seen.insert(symbol) {
                return self.invalid(format!("enum `{}` has the symbol `{symbol}` twice", name.full));
            }
            symbols.push(symbol.to_owned());
        }
        let default = attributes.get("default").and_then(Value::as_str).map(str::to_owned);
        if let Some(default) = &default
            && !seen.contains(default.as_str())
        {
            return self.invalid(format!("enum `{}` has the default `{default}`, which is no symbol of it", name.full));
        }
        self.define(name.clone(), Kind::Enum { name, symbols, default })
    }

    fn parse_fixed(&mut self, attributes: &Map<String, Value>, namespace: &str) -> Parsed<NodeId> {
        let name = self.parse_own_name(attributes, namespace)?;
        let size = attributes.get("size").and_then(Value::as_u64).and_then(|size| i32::try_from(size).ok());
        let Some(size) = size else {
            return self.invalid(format!("fixed `{}` has no `size` from 0 to {}", name.full, i32::MAX));
        };
        let kind = Kind::Fixed { name: name.clone(), size: size as usize };
        let logical = Logical::of(&kind, attributes);
        let node = self.define(name, kind)?;
        self.nodes[node].logical = logical;
        Ok(node)
    }

    /// Name, namespace and aliases of a named type (specification 1.12, "Names" and "Aliases").
    fn parse_own_name(&self, attributes: &Map<String, Value>, namespace: &str) -> Parsed<Name> {
        let Some(name) = attributes.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return self.invalid("a named type has no name".to_owned());
        };
        let namespace = attributes.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = qualify(name, namespace);
        if primitive(&full).is_some() {
            return self.invalid(format!("a type may not be called `{full}`"));
        }
        let own_namespace = namespace_of(&full);
        let aliases = strings(attributes.get("aliases")).iter().map(|alias| qualify(alias, own_namespace)).collect();
        Ok(Name { full, aliases })
    }

    fn define(&mut self, name: Name, kind: Kind) -> Parsed<NodeId> {
        if self.named.contains_key(&name.full) {
            return self.invalid(format!("type `{}` is defined twice", name.full));
        }
        let node = self.add(kind, None);
        self.named.insert(name.full, node);
        Ok(node)
    }

    fn add(&mut self, kind: Kind, logical: Option<Logical>) -> NodeId {
        self.nodes.push(Node { kind, logical });
        self.nodes.len() - 1
    }

    fn invalid<T>(&self, problem: String) -> Parsed<T> {
        let at = if self.path.is_empty() { "schema".to_owned() } else { format!("`{}`", self.path.join(".")) };
        Err(SchemaError::Invalid { at, problem })
    }
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}

fn qualify(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn namespace_of(full: &str) -> &str {
    full.rsplit_once('.').map_or("", |(namespace, _)| namespace)
}

fn strings(json: Option<&Value>) -> Vec<String> {
    let items = json.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
