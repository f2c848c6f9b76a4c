//! What one version of a schema has that another does not.

use super::resolve::sources;
use super::schema::{Field, Kind, Name, NodeId, Schema};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Path of the field, by the newer names; by the older where only the older version has it. Empty for the record as a
    /// whole.
    pub field: String,
    /// What has happened to it.
    pub kind: ChangeKind,
    /// From what to what.
    pub sentence: String,
}

/// What has happened to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Only the newer version has it.
    Added,
    /// Only the older version has it.
    Removed,
    /// Both have it, in another form.
    Altered,
}

impl ChangeKind {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Altered => "altered",
        }
    }
}

/// All differences, in the order of the newer fields; what was removed comes last in its record.
pub(super) fn changes(old: &Schema, new: &Schema) -> Vec<Change> {
    let mut comparison = Comparison { old, new, open: Vec::new(), path: Vec::new(), changes: Vec::new() };
    comparison.value(old.root(), new.root());
    comparison.changes
}

struct Comparison<'s> {
    old: &'s Schema,
    new: &'s Schema,
    /// Pairs of types on the way from the root: a type may contain itself.
    open: Vec<(NodeId, NodeId)>,
    path: Vec<String>,
    changes: Vec<Change>,
}

impl Comparison<'_> {
    fn note(&mut self, kind: ChangeKind, sentence: String) {
        let field = self.path.join(".").replace(".[]", "[]");
        let change = Change { field, kind, sentence };
        // A named type that is used in several branches of one place.
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }

    fn altered(&mut self, sentence: String) {
        self.note(ChangeKind::Altered, sentence);
    }

    fn inside(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        self.path.push(name.to_owned());
        look(self);
        self.path.pop();
    }

    fn value(&mut self, old: NodeId, new: NodeId) {
        if self.open.contains(&(old, new)) {
            return;
        }
        self.open.push((old, new));
        self.inner(old, new);
        self.open.pop();
    }

    fn inner(&mut self, old: NodeId, new: NodeId) {
        let (old_schema, new_schema) = (self.old, self.new);
        match (&old_schema.node(old).kind, &new_schema.node(new).kind) {
            (Kind::Record { name, fields }, Kind::Record { name: new_name, fields: new_fields }) => {
                self.names("record", name, new_name);
                self.record(fields, new_fields);
            }
            (
                Kind::Enum { name, symbols, default },
                Kind::Enum { name: new_name, symbols: new_symbols, default: new_default },
            ) => {
                self.names("enum", name, new_name);
                self.symbols(symbols, new_symbols);
                if default != new_default {
                    let shown = |default: &Option<String>| default.clone().unwrap_or_else(|| "none".to_owned());
                    self.altered(format!("default of the enum {} -> {}", shown(default), shown(new_default)));
                }
            }
            (Kind::Array(old_items), Kind::Array(new_items)) | (Kind::Map(old_items), Kind::Map(new_items)) => {
                self.inside("[]", |this| this.value(*old_items, *new_items));
            }
            (Kind::Union(old_branches), Kind::Union(new_branches)) => self.union(old, old_branches, new, new_branches),
            _ => self.types(old, new),
        }
    }

    fn names(&mut self, what: &str, old: &Name, new: &Name) {
        if old.full != new.full {
            self.altered(format!("{what} {} -> {}", old.full, new.full));
        }
    }

    fn types(&mut self, old: NodeId, new: NodeId) {
        let (before, after) = (type_text(self.old, old), type_text(self.new, new));
        if before != after {
            self.altered(format!("{before} -> {after}"));
        }
    }

    fn union(&mut self, old: NodeId, old_branches: &[NodeId], new: NodeId, new_branches: &[NodeId]) {
        self.types(old, new);
        for old_branch in old_branches {
            let name = self.old.describe(*old_branch);
            if let Some(new_branch) = new_branches.iter().find(|branch| self.new.describe(**branch) == name) {
                self.value(*old_branch, *new_branch);
            }
        }
    }

    fn symbols(&mut self, old: &[String], new: &[String]) {
        let missing = |from: &[String], of: &[String]| -> Vec<String> {
            from.iter().filter(|symbol| !of.contains(symbol)).cloned().collect()
        };
        let (added, removed) = (missing(new, old), missing(old, new));
        if !added.is_empty() {
            self.altered(format!("symbols added: {}", added.join(", ")));
        }
        if !removed.is_empty() {
            self.altered(format!("symbols removed: {}", removed.join(", ")));
        }
    }

    fn record(&mut self, old: &[Field], new: &[Field]) {
        let sources = sources(old, new);
        for (field, source) in new.iter().zip(&sources) {
            self.inside(&field.name, |this| {
                if let Some(source) = source {
                    return this.field(&old[*source], field);
                }
                let default = field.default.as_ref();
                let default = default.map_or_else(|| "no default".to_owned(), |default| format!("default {default}"));
                let of = type_text(this.new, field.node);
                this.note(ChangeKind::Added, format!("{of}, {default}"));
            });
        }
        let common: Vec<usize> = sources.iter().flatten().copied().collect();
        if !common.is_sorted() {
            self.altered("fields in another order".to_owned());
        }
        let removed = (0..old.len()).filter(|index| !common.contains(index));
        for field in removed.map(|index| &old[index]) {
            self.inside(&field.name, |this| this.note(ChangeKind::Removed, type_text(this.old, field.node)));
        }
    }

    fn field(&mut self, old: &Field, new: &Field) {
        if old.name != new.name {
            self.altered(format!("called `{}` before", old.name));
        }
        self.value(old.node, new.node);
        if old.default != new.default {
            let shown = |field: &Field| field.default.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
            self.altered(format!("default {} -> {}", shown(old), shown(new)));
        }
    }
}

/// A type as a person writes it in a sentence.
fn type_text(schema: &Schema, node: NodeId) -> String {
    let node = schema.node(node);
    let plain = match &node.kind {
        Kind::Fixed { name, size } => format!("fixed {} of {size} bytes", name.unqualified()),
        Kind::Enum { name, .. } => format!("enum {}", name.unqualified()),
        Kind::Record { name, .. } => format!("record {}", name.unqualified()),
        Kind::Array(items) => format!("array of {}", type_text(schema, *items)),
        Kind::Map(values) => format!("map of {}", type_text(schema, *values)),
        Kind::Union(branches) => {
            let branches: Vec<_> = branches.iter().map(|branch| type_text(schema, *branch)).collect();
            branches.join(" or ")
        }
        other => other.word().to_owned(),
    };
    match node.logical {
        Some(logical) => format!("{plain} ({logical})"),
        None => plain,
    }
}
