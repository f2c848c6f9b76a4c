//! What becomes of each field of a writer under a reader, all of it at once.
//!
//! The same rules as in [`super::resolve`], which stops at the first that is broken and makes a program of the rest. A
//! test holds the two against one another.

use std::collections::HashMap;

use super::resolve::{closest_first, sources};
use super::rules;
use super::schema::{Field, Kind, Logical, Name, NodeId, Schema};

/// Pairs of types looked at beyond which a pair of schemas is called unreadable, as in `resolve`.
const MOST_STEPS: usize = 100_000;

/// Something that is worth knowing about one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its path, by the reader's names; by the writer's where only the writer has it. Empty for the record as a whole.
    pub field: String,
    /// What it comes to.
    pub effect: Effect,
    /// The rule, and what was found.
    pub sentence: String,
}

/// What a difference comes to, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// No record of the writer can be read.
    Unreadable,
    /// Records with certain values cannot be read: a branch or a symbol that the reader lacks. Registries call that
    /// incompatible.
    SomeRefused,
    /// What is read does not mean what was written.
    Reinterpreted,
    /// Read in another form, as the specification promotes it.
    Converted,
    /// Only the reader has it: its default is read.
    Defaulted,
    /// Only the writer has it.
    Unknown,
}

impl Effect {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::SomeRefused => "some_refused",
            Self::Reinterpreted => "reinterpreted",
            Self::Converted => "converted",
            Self::Defaulted => "defaulted",
            Self::Unknown => "unknown",
        }
    }
}

/// All that is worth knowing, in the order in which the fields were written; what only the reader has comes last.
pub(super) fn explain(writer: &Schema, reader: &Schema) -> Vec<Finding> {
    let mut explainer =
        Explainer { writer, reader, open: Vec::new(), path: Vec::new(), findings: Vec::new(), steps: 0 };
    let root = &writer.node(writer.root()).kind;
    match root {
        Kind::Record { .. } => explainer.plain(writer.root(), reader.root()),
        other => explainer.find(Effect::Unreadable, rules::no_record(other.word())),
    }
    explainer.findings
}

struct Explainer<'s> {
    writer: &'s Schema,
    reader: &'s Schema,
    /// Pairs of types on the way from the root: a type may contain itself.
    open: Vec<(NodeId, NodeId)>,
    path: Vec<String>,
    findings: Vec<Finding>,
    steps: usize,
}

impl Explainer<'_> {
    fn find(&mut self, effect: Effect, sentence: String) {
        let finding = Finding { field: self.field(), effect, sentence };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn field(&self) -> String {
        self.path.join(".").replace(".[]", "[]")
    }

    fn inside(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        self.path.push(name.to_owned());
        look(self);
        self.path.pop();
    }

    /// What would be found, kept apart.
    fn apart(&mut self, look: impl FnOnce(&mut Self)) -> Vec<Finding> {
        let before = std::mem::take(&mut self.findings);
        look(self);
        std::mem::replace(&mut self.findings, before)
    }

    fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
    }

    fn value(&mut self, writer: NodeId, reader: NodeId) {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return self.find(Effect::Unreadable, rules::TOO_INTRICATE.to_owned());
        }
        let (writer_schema, reader_schema) = (self.writer, self.reader);
        if let Kind::Union(branches) = &writer_schema.node(writer).kind {
            return self.writer_union(branches, reader);
        }
        if let Kind::Union(branches) = &reader_schema.node(reader).kind {
            return self.reader_union(writer, branches);
        }
        self.plain(writer, reader);
    }

    fn writer_union(&mut self, branches: &[NodeId], reader: NodeId) {
        let outcomes: Vec<_> = branches.iter().map(|branch| self.apart(|this| this.value(*branch, reader))).collect();
        if outcomes.iter().all(|outcome| is_unreadable(outcome)) {
            return self.add(outcomes.into_iter().next().unwrap_or_default());
        }
        for (branch, outcome) in branches.iter().zip(outcomes) {
            match first_unreadable(&outcome) {
                Some(broken) => {
                    let sentence = rules::refused_branch(self.writer.describe(*branch), &broken.sentence);
                    self.find(Effect::SomeRefused, sentence);
                }
                None => self.add(outcome),
            }
        }
    }

    fn reader_union(&mut self, writer: NodeId, branches: &[NodeId]) {
        let mut first_outcome = None;
        for branch in closest_first((self.writer, writer), (self.reader, branches)) {
            let outcome = self.apart(|this| this.plain(writer, branch));
            if !is_unreadable(&outcome) {
                return self.add(outcome);
            }
            first_outcome.get_or_insert(outcome);
        }
        let here = self.field();
        let broken = first_outcome.as_ref().and_then(|outcome| first_unreadable(outcome));
        match broken {
            // A branch of the same kind failed somewhere inside: say where.
            Some(broken) if broken.field != here => self.add(first_outcome.unwrap_or_default()),
            _ => self.find(Effect::Unreadable, rules::no_branch(self.writer.describe(writer))),
        }
    }

    fn plain(&mut self, writer: NodeId, reader: NodeId) {
        if self.open.contains(&(writer, reader)) {
            return;
        }
        self.open.push((writer, reader));
        self.inner(writer, reader);
        self.open.pop();
    }

    fn inner(&mut self, writer: NodeId, reader: NodeId) {
        let (writer_schema, reader_schema) = (self.writer, self.reader);
        let (written, read) = (writer_schema.node(writer), reader_schema.node(reader));
        if let Some(rule) = rules::decimals_differ(written.logical, read.logical) {
            return self.find(Effect::Unreadable, rule);
        }
        match (&written.kind, &read.kind) {
            (Kind::Fixed { name, size }, Kind::Fixed { name: reader_name, size: reader_size }) => {
                if self.takes("fixed", name, reader_name) && size != reader_size {
                    self.find(Effect::Unreadable, rules::sizes_differ(&name.full, *size, *reader_size));
                }
            }
            (Kind::Enum { name, symbols, .. }, Kind::Enum { name: reader_name, symbols: reader_symbols, default }) => {
                if self.takes("enum", name, reader_name) {
                    self.symbols(symbols, reader_symbols, default.as_deref());
                }
            }
            (Kind::Record { name, fields }, Kind::Record { name: reader_name, fields: reader_fields }) => {
                if self.takes("record", name, reader_name) {
                    self.record(fields, reader_fields);
                }
            }
            (Kind::Array(writer_items), Kind::Array(reader_items))
            | (Kind::Map(writer_items), Kind::Map(reader_items)) => {
                self.inside("[]", |this| this.value(*writer_items, *reader_items));
            }
            (Kind::Bytes, Kind::String) => {
                self.find(
                    Effect::Converted,
                    "bytes are read as string; those that are not UTF-8 are refused".to_owned(),
                );
            }
            (writer_kind, reader_kind)
                if std::mem::discriminant(writer_kind) == std::mem::discriminant(reader_kind) =>
            {
                self.units(writer_kind.word(), written.logical, read.logical);
            }
            (writer_kind, reader_kind) if is_promoted(writer_kind, reader_kind) => {
                let (from, to) = (writer_kind.word(), reader_kind.word());
                self.find(Effect::Converted, format!("{from} is read as {to}"));
                self.units(from, written.logical, read.logical);
            }
            (writer_kind, reader_kind) => {
                self.find(Effect::Unreadable, rules::no_promotion(writer_kind.word(), reader_kind.word()));
            }
        }
    }

    fn takes(&mut self, what: &str, writer: &Name, reader: &Name) -> bool {
        let takes = reader.takes(writer);
        if !takes {
            self.find(Effect::Unreadable, rules::names_differ(what, &writer.full, &reader.full));
        }
        takes
    }

    /// Units of times are not converted.
    fn units(&mut self, word: &str, writer: Option<Logical>, reader: Option<Logical>) {
        let is_time = |logical: Option<Logical>| logical.is_some_and(|logical| logical != Logical::Uuid);
        if writer == reader || !(is_time(writer) || is_time(reader)) {
            return;
        }
        let name = |logical: Option<Logical>| logical.map_or_else(|| word.to_owned(), |logical| logical.to_string());
        let (from, to) = (name(writer), name(reader));
        match (is_time(writer), is_time(reader)) {
            (true, true) => {
                let sentence = format!("{from} is read as {to}: the same number, with another meaning");
                self.find(Effect::Reinterpreted, sentence);
            }
            _ => self.find(Effect::Converted, format!("{from} is taken for {to}: the same number")),
        }
    }

    fn symbols(&mut self, written: &[String], read: &[String], default: Option<&str>) {
        let missing: Vec<_> =
            written.iter().filter(|symbol| !read.contains(symbol)).map(|symbol| format!("`{symbol}`")).collect();
        if missing.is_empty() {
            return;
        }
        let missing = missing.join(", ");
        if let Some(default) = default {
            let sentence = format!("{missing}: read as `{default}`, the default of the reader's enum");
            self.find(Effect::Reinterpreted, sentence);
        } else {
            let sentence =
                format!("{missing}: not in the reader's enum, which has no default; records that have it are refused");
            self.find(Effect::SomeRefused, sentence);
        }
    }

    fn record(&mut self, written: &[Field], read: &[Field]) {
        let sources = sources(written, read);
        let targets: HashMap<usize, usize> =
            sources.iter().enumerate().filter_map(|(index, source)| Some(((*source)?, index))).collect();
        for (index, field) in written.iter().enumerate() {
            let Some(target) = targets.get(&index).map(|target| &read[*target]) else {
                self.inside(&field.name, |this| {
                    this.find(Effect::Unknown, "the reader does not know the field".to_owned());
                });
                continue;
            };
            self.inside(&target.name, |this| {
                if field.name != target.name {
                    this.find(
                        Effect::Converted,
                        format!("the writer calls it `{}`, an alias of the reader's field", field.name),
                    );
                }
                this.value(field.node, target.node);
            });
        }
        for (field, _) in read.iter().zip(sources).filter(|(_, source)| source.is_none()) {
            self.inside(&field.name, |this| match &field.default {
                Some(default) => {
                    this.find(
                        Effect::Defaulted,
                        format!("the writer does not have the field; the reader's default is {default}"),
                    );
                }
                None => this.find(Effect::Unreadable, rules::NO_DEFAULT.to_owned()),
            });
        }
    }
}

fn first_unreadable(findings: &[Finding]) -> Option<&Finding> {
    findings.iter().find(|finding| finding.effect == Effect::Unreadable)
}

fn is_unreadable(findings: &[Finding]) -> bool {
    first_unreadable(findings).is_some()
}

/// "It is an error if the types are not promotable"; bytes as string are dealt with before.
fn is_promoted(writer: &Kind, reader: &Kind) -> bool {
    matches!(
        (writer, reader),
        (Kind::Int, Kind::Long | Kind::Float | Kind::Double)
            | (Kind::Long, Kind::Float | Kind::Double)
            | (Kind::Float, Kind::Double)
            | (Kind::String, Kind::Bytes)
    )
}
