//! Avro schemas (specification 1.12, "Schema Declaration"), parsed from JSON into a flat arena of nodes.
//!
//! A named type is one node, however often it is used, so recursive types need no special care here.

mod logical;
mod parse;

pub(super) use logical::{Logical, Ticks};
pub(super) use parse::parse;

use serde_json::Value;

/// Index of a node in its [`Schema`].
pub(super) type NodeId = usize;

/// A parsed schema.
#[derive(Debug, Clone)]
pub(super) struct Schema {
    nodes: Vec<Node>,
    root: NodeId,
}

/// One type.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// `None` also where the logical type is unknown or invalid, as the specification demands.
    pub(super) logical: Option<Logical>,
}

/// The types of Avro.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed { name: Name, size: usize },
    Enum { name: Name, symbols: Vec<String>, default: Option<String> },
    Record { name: Name, fields: Vec<Field> },
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
}

/// The name of a record, enum or fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// With the namespace, where there is one.
    pub(super) full: String,
    /// Full names under which the type was known before.
    pub(super) aliases: Vec<String>,
}

/// One field of a record.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    /// Names under which the field was known before.
    pub(super) aliases: Vec<String>,
    pub(super) node: NodeId,
    /// The default as it stands in the schema; only a reader's is ever looked at.
    pub(super) default: Option<Value>,
}

/// A schema text that Kappa cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Not JSON, or not JSON of the shape that the specification asks for.
    #[error("{at}: {problem}")]
    Invalid {
        /// The named type and field in which the problem lies.
        at: String,
        /// What is wrong.
        problem: String,
    },
    /// The reader's type contains itself, so it has no finite set of columns.
    #[error(
        "type `{name}` contains itself (at `{at}`); columns for it would never end. Leave the field out of the reader schema: it is then kept in `_extra`"
    )]
    Recursive {
        /// Full name of the type.
        name: String,
        /// Path of the field that leads back to it.
        at: String,
    },
    /// Valid Avro that has no counterpart in Arrow or Parquet.
    #[error("field `{at}`: {problem}")]
    Unsupported {
        /// Path of the field.
        at: String,
        /// Why it cannot be a column.
        problem: String,
    },
    /// Larger or deeper than the limits allow.
    #[error("the schema is too large: {0}")]
    TooLarge(String),
}

impl Schema {
    /// The node of that id.
    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The node that stands for the whole schema.
    pub(super) fn root(&self) -> NodeId {
        self.root
    }

    /// Number of nodes.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the node is `null`.
    pub(super) fn is_null(&self, id: NodeId) -> bool {
        matches!(self.nodes[id].kind, Kind::Null)
    }

    /// How a person calls the type: its full name, or the name of the unnamed type.
    pub(super) fn describe(&self, id: NodeId) -> &str {
        match &self.nodes[id].kind {
            Kind::Fixed { name, .. } | Kind::Enum { name, .. } | Kind::Record { name, .. } => &name.full,
            other => other.word(),
        }
    }
}

impl Kind {
    /// The word of the specification for the type.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes => "bytes",
            Self::String => "string",
            Self::Fixed { .. } => "fixed",
            Self::Enum { .. } => "enum",
            Self::Record { .. } => "record",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Union(_) => "union",
        }
    }

    /// The name of a named type.
    pub(super) fn name(&self) -> Option<&Name> {
        match self {
            Self::Fixed { name, .. } | Self::Enum { name, .. } | Self::Record { name, .. } => Some(name),
            _ => None,
        }
    }
}

impl Name {
    /// The part behind the last dot.
    pub(super) fn unqualified(&self) -> &str {
        unqualified(&self.full)
    }

    /// Whether a reader's type of this name takes a writer's of that name: the unqualified names are the same
    /// (specification 1.12, "Schema Resolution"), or an alias names the writer's type ("Aliases").
    ///
    /// Java's `SchemaCompatibility` decides the same way. Namespaces are left out on purpose: generated classes move
    /// between packages more often than two types of one name meet in one place.
    pub(super) fn takes(&self, writer: &Self) -> bool {
        self.unqualified() == writer.unqualified()
            || self.aliases.iter().any(|alias| *alias == writer.full || unqualified(alias) == writer.unqualified())
    }
}

/// The part of a full name behind the last dot.
fn unqualified(full: &str) -> &str {
    full.rsplit('.').next().unwrap_or(full)
}
