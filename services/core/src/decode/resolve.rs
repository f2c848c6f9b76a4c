//! Schema resolution (specification 1.12, "Schema Resolution"), done once for each pair of schemas.
//!
//! Logical types take no part in it, but for decimals, whose precision and scale must match. A writer's `long` or
//! `timestamp-micros` read as `timestamp-millis` is the same number with another meaning, as it is in Java: units are
//! not converted.

use std::collections::HashMap;

use super::columns::Column;
use super::program::{DefaultOp, EnumOp, FieldOp, ItemsOp, Op, RecordOp, Target, UnionOp};
use super::reader::ReaderSchema;
use super::rules;
use super::schema::{Field, Kind, Logical, NodeId, Schema};

/// Operations beyond which a pair of schemas is refused: unions of records of one name can multiply.
const MOST_OPERATIONS: usize = 100_000;

/// A writer's schema that the reader's cannot read.
#[derive(Debug)]
pub(super) struct Mismatch {
    /// Innermost first.
    path: Vec<String>,
    pub(super) rule: String,
}

type Resolved<T> = Result<T, Mismatch>;

impl Mismatch {
    fn new(rule: String) -> Self {
        Self { path: Vec::new(), rule }
    }

    fn inside(mut self, name: &str) -> Self {
        self.path.push(name.to_owned());
        self
    }

    /// The path of the field, outermost first; empty for the schema as a whole.
    pub(super) fn path(&self) -> String {
        let outermost_first: Vec<_> = self.path.iter().rev().map(String::as_str).collect();
        outermost_first.join(".").replace(".[]", "[]")
    }
}

/// The program that reads records of `writer` into the columns of `reader`.
pub(super) fn resolve(writer: &Schema, reader: &ReaderSchema) -> Resolved<RecordOp> {
    let (writer_kind, reader_kind) =
        (&writer.node(writer.root()).kind, &reader.schema().node(reader.schema().root()).kind);
    let mut resolver = Resolver::new(writer, reader);
    let Kind::Record { .. } = writer_kind else {
        return Err(Mismatch::new(rules::no_record(writer_kind.word())));
    };
    resolver.record(writer_kind, reader_kind, &reader.prototype().fields)
}

struct Resolver<'s> {
    writer: &'s Schema,
    reader: &'s ReaderSchema,
    smallest: Smallest<'s>,
    operations: usize,
}

impl<'s> Resolver<'s> {
    fn new(writer: &'s Schema, reader: &'s ReaderSchema) -> Self {
        Self { writer, reader, smallest: Smallest::new(writer), operations: 0 }
    }

    /// The operation that reads the writer's type `writer` into `column`, which is of the reader's type `reader`.
    fn value(&mut self, writer: NodeId, reader: NodeId, column: &Column) -> Resolved<Op> {
        self.operations += 1;
        if self.operations > MOST_OPERATIONS {
            return Err(Mismatch::new(rules::TOO_INTRICATE.to_owned()));
        }
        let (writer_schema, reader_schema) = (self.writer, self.reader.schema());
        if let Kind::Union(branches) = &writer_schema.node(writer).kind {
            return self.writer_union(branches, reader, column);
        }
        if let Kind::Union(branches) = &reader_schema.node(reader).kind {
            return self.reader_union(writer, branches, column);
        }
        self.plain(writer, reader, column)
    }

    /// "If writer's is a union, but reader's is not: if the reader's schema matches the selected writer's schema, it is
    /// recursively resolved against it." Which one is selected, only the data says.
    fn writer_union(&mut self, branches: &[NodeId], reader: NodeId, column: &Column) -> Resolved<Op> {
        let mut operations = Vec::with_capacity(branches.len());
        let mut first_mismatch = None;
        let mut matches = 0;
        for branch in branches {
            match self.value(*branch, reader, column) {
                Ok(operation) => {
                    matches += 1;
                    operations.push(operation);
                }
                Err(mismatch) => {
                    let detail = rules::refused_branch(self.writer.describe(*branch), &mismatch.rule);
                    operations.push(Op::Refuse(detail.into()));
                    first_mismatch.get_or_insert(mismatch);
                }
            }
        }
        match first_mismatch {
            Some(mismatch) if matches == 0 => Err(mismatch),
            _ => {
                let has_extra = operations.iter().any(Op::has_extra);
                Ok(Op::Union(Box::new(UnionOp { branches: operations.into(), has_extra })))
            }
        }
    }

    /// "If reader's is a union, but writer's is not: the first schema in the reader's union that matches the writer's
    /// schema is recursively resolved against it."
    fn reader_union(&mut self, writer: NodeId, branches: &[NodeId], column: &Column) -> Resolved<Op> {
        let reader_schema = self.reader.schema();
        let members = branches.iter().filter(|branch| !reader_schema.is_null(**branch)).count();
        let mut first_mismatch = None;
        for branch in closest_first((self.writer, writer), (reader_schema, branches)) {
            let before = branches.iter().take_while(|other| **other != branch);
            let member = before.filter(|other| !reader_schema.is_null(**other)).count();
            let is_member = members > 1 && !reader_schema.is_null(branch);
            let target = if is_member { column.child(member) } else { column };
            match self.plain(writer, branch, target) {
                Ok(Op::Null) => return Ok(Op::Null),
                Ok(operation) if is_member => return Ok(Op::Member(member, Box::new(operation))),
                Ok(operation) => return Ok(operation),
                Err(mismatch) => first_mismatch = first_mismatch.or(Some(mismatch)),
            }
        }
        let rule = match first_mismatch {
            // A branch of the same kind failed somewhere inside: say where.
            Some(mismatch) if !mismatch.path.is_empty() => return Err(mismatch),
            _ => rules::no_branch(self.writer.describe(writer)),
        };
        Err(Mismatch::new(rule))
    }

    fn plain(&mut self, writer: NodeId, reader: NodeId, column: &Column) -> Resolved<Op> {
        let (writer_schema, reader_schema) = (self.writer, self.reader.schema());
        let (writer_node, reader_node) = (writer_schema.node(writer), reader_schema.node(reader));
        if let Some(rule) = rules::decimals_differ(writer_node.logical, reader_node.logical) {
            return Err(Mismatch::new(rule));
        }
        let decimal = match reader_node.logical {
            Some(Logical::Decimal { precision, .. }) => Some(precision),
            _ => None,
        };
        Ok(match (&writer_node.kind, &reader_node.kind) {
            (Kind::Null, Kind::Null) => Op::Null,
            (Kind::Boolean, Kind::Boolean) => Op::Boolean,
            (Kind::Int, Kind::Int) => Op::Int,
            (Kind::Int, Kind::Long) => Op::IntToLong,
            (Kind::Int, Kind::Float) => Op::IntToFloat,
            (Kind::Int, Kind::Double) => Op::IntToDouble,
            (Kind::Long, Kind::Long) => Op::Long,
            (Kind::Long, Kind::Float) => Op::LongToFloat,
            (Kind::Long, Kind::Double) => Op::LongToDouble,
            (Kind::Float, Kind::Float) => Op::Float,
            (Kind::Float, Kind::Double) => Op::FloatToDouble,
            (Kind::Double, Kind::Double) => Op::Double,
            (Kind::String | Kind::Bytes, Kind::String) if column.is_dictionary() => Op::Dictionary,
            (Kind::String | Kind::Bytes, Kind::String) => Op::Text,
            (Kind::String | Kind::Bytes, Kind::Bytes) => match decimal {
                Some(digits) => Op::Decimal { size: None, digits },
                None => Op::Bytes,
            },
            (Kind::Fixed { name: writer_name, size: writer_size }, Kind::Fixed { name, size }) => {
                if !name.takes(writer_name) {
                    return Err(Mismatch::new(rules::names_differ("fixed", &writer_name.full, &name.full)));
                }
                if writer_size != size {
                    return Err(Mismatch::new(rules::sizes_differ(&writer_name.full, *writer_size, *size)));
                }
                decimal.map_or(Op::Fixed(*size), |digits| Op::Decimal { size: Some(*size), digits })
            }
            (writer_kind @ Kind::Enum { .. }, reader_kind @ Kind::Enum { .. }) => {
                enumeration(writer_kind, reader_kind)?
            }
            (writer_kind @ Kind::Record { .. }, reader_kind @ Kind::Record { .. }) => {
                Op::Record(Box::new(self.record(writer_kind, reader_kind, column.children())?))
            }
            (Kind::Array(writer_items), Kind::Array(reader_items)) => {
                Op::List(Box::new(self.items(*writer_items, *reader_items, column, 0)?))
            }
            (Kind::Map(writer_values), Kind::Map(reader_values)) => {
                // A key takes at least the byte of its length, and its offset in memory.
                Op::Map(Box::new(self.items(*writer_values, *reader_values, column, 1)?))
            }
            (writer_kind, reader_kind) => {
                return Err(Mismatch::new(rules::no_promotion(writer_kind.word(), reader_kind.word())));
            }
        })
    }

    fn items(&mut self, writer: NodeId, reader: NodeId, column: &Column, key: usize) -> Resolved<ItemsOp> {
        let items = column.items();
        let item = self.value(writer, reader, items).map_err(|mismatch| mismatch.inside("[]"))?;
        let smallest = self.smallest.of(writer) + key;
        Ok(ItemsOp { smallest, width: items.row_width() + key * 4, has_extra: item.has_extra(), item })
    }

    fn record(&mut self, writer: &Kind, reader: &Kind, columns: &[Column]) -> Resolved<RecordOp> {
        let (Kind::Record { name: writer_name, fields: written }, Kind::Record { name, fields: read }) =
            (writer, reader)
        else {
            return Err(Mismatch::new("not two records".to_owned()));
        };
        if !name.takes(writer_name) {
            return Err(Mismatch::new(rules::names_differ("record", &writer_name.full, &name.full)));
        }
        let sources = sources(written, read);
        let mut targets = vec![None; written.len()];
        for (index, source) in sources.iter().enumerate() {
            if let Some(source) = source {
                targets[*source] = Some(index);
            }
        }
        let mut fields = Vec::with_capacity(written.len());
        for (field, target) in written.iter().zip(targets) {
            let target = self.target(field, target, read, columns)?;
            fields.push(FieldOp { name: field.name.as_str().into(), target });
        }
        let mut defaults = Vec::new();
        for (column, field) in read.iter().enumerate().filter(|(column, _)| sources[*column].is_none()) {
            defaults.push(self.default(column, field, &columns[column])?);
        }
        let has_extra = fields.iter().any(|field| !matches!(field.target, Target::Column(..)));
        Ok(RecordOp { fields: fields.into(), defaults: defaults.into(), has_extra })
    }

    fn target(&mut self, field: &Field, index: Option<usize>, read: &[Field], columns: &[Column]) -> Resolved<Target> {
        let Some(index) = index else {
            return Ok(Target::Extra(field.node));
        };
        let operation = self.value(field.node, read[index].node, &columns[index]);
        let operation = operation.map_err(|mismatch| mismatch.inside(&read[index].name))?;
        let has_extra = operation.has_extra();
        Ok(if has_extra { Target::ColumnAndExtra(index, operation) } else { Target::Column(index, operation) })
    }

    /// "If the reader's record schema has a field that contains a default value, and writer's schema does not have a
    /// field with the same name, then the reader should use the default value from its field."
    fn default(&mut self, column: usize, field: &Field, target: &Column) -> Resolved<DefaultOp> {
        let Some(encoded) = self.reader.encoded_default(field) else {
            return Err(Mismatch::new(rules::NO_DEFAULT.to_owned()).inside(&field.name));
        };
        // A default is a value of the reader's own schema.
        let mut own = Resolver::new(self.reader.schema(), self.reader);
        own.operations = self.operations;
        let op = own.value(field.node, field.node, target).map_err(|mismatch| mismatch.inside(&field.name))?;
        self.operations = own.operations;
        Ok(DefaultOp { name: field.name.as_str().into(), column, encoded: encoded.into(), op })
    }
}

/// The branches of a reader's union in the order in which they are tried.
///
/// As Java does, a branch of the very same type and full name is preferred to one that merely matches, and that to one
/// that needs a promotion.
pub(super) fn closest_first(writer: (&Schema, NodeId), reader: (&Schema, &[NodeId])) -> Vec<NodeId> {
    let ((writer, node), (reader, branches)) = (writer, reader);
    let writer = &writer.node(node).kind;
    let closeness = |branch: &NodeId| {
        let reader = &reader.node(*branch).kind;
        match (writer.name(), reader.name()) {
            (Some(writer_name), Some(reader_name)) if writer_name.full == reader_name.full => 0,
            (Some(_), Some(_)) => 1,
            _ if writer.word() == reader.word() => 0,
            _ => 2,
        }
    };
    let mut candidates = branches.to_vec();
    candidates.sort_by_key(closeness);
    candidates
}

/// For each field of the reader, the index of the writer's field that it takes.
///
/// The same name wins; an alias is only looked at where no field has the name, in the order of the aliases. A field of
/// the writer is taken once.
pub(super) fn sources(written: &[Field], read: &[Field]) -> Vec<Option<usize>> {
    let by_name: HashMap<&str, usize> =
        written.iter().enumerate().map(|(index, field)| (field.name.as_str(), index)).collect();
    let find = |name: &str| by_name.get(name).copied();
    let mut taken = vec![false; written.len()];
    let mut sources: Vec<_> = read.iter().map(|field| find(&field.name)).collect();
    sources.iter().flatten().for_each(|source| taken[*source] = true);
    for (source, field) in sources.iter_mut().zip(read).filter(|(source, _)| source.is_none()) {
        *source = field.aliases.iter().filter_map(|alias| find(alias)).find(|source| !taken[*source]);
        if let Some(source) = source {
            taken[*source] = true;
        }
    }
    sources
}

/// "If the writer's symbol is not present in the reader's enum and the reader has a default value, then that value is
/// used, otherwise an error is signalled": for records that have the symbol.
fn enumeration(writer: &Kind, reader: &Kind) -> Resolved<Op> {
    let (Kind::Enum { name: writer_name, symbols: written, .. }, Kind::Enum { name, symbols, default }) =
        (writer, reader)
    else {
        return Err(Mismatch::new("not two enums".to_owned()));
    };
    if !name.takes(writer_name) {
        return Err(Mismatch::new(rules::names_differ("enum", &writer_name.full, &name.full)));
    }
    let keys: HashMap<&str, i32> =
        symbols.iter().enumerate().map(|(key, symbol)| (symbol.as_str(), key as i32)).collect();
    let fallback = default.as_deref().and_then(|symbol| keys.get(symbol).copied());
    let symbols = written.iter().map(|symbol| {
        let key = keys.get(symbol.as_str()).copied().or(fallback);
        key.ok_or_else(|| symbol.as_str().into())
    });
    Ok(Op::Enum(Box::new(EnumOp { name: name.full.as_str().into(), symbols: symbols.collect() })))
}

/// Fewest bytes that values of each type take, to hold counts against the bytes that are left.
struct Smallest<'s> {
    schema: &'s Schema,
    /// `None` while unknown; a type met within itself counts as zero, which is never too much.
    known: Vec<Option<usize>>,
}

/// Types nested deeper than this count as zero.
const DEEPEST_LOOK: usize = 64;

impl<'s> Smallest<'s> {
    fn new(schema: &'s Schema) -> Self {
        Self { schema, known: vec![None; schema.len()] }
    }

    fn of(&mut self, node: NodeId) -> usize {
        self.look(node, 0)
    }

    fn look(&mut self, node: NodeId, depth: usize) -> usize {
        if let Some(known) = self.known[node] {
            return known;
        }
        if depth > DEEPEST_LOOK {
            return 0;
        }
        self.known[node] = Some(0);
        let schema = self.schema;
        let smallest = match &schema.node(node).kind {
            Kind::Null => 0,
            Kind::Fixed { size, .. } => *size,
            Kind::Float => 4,
            Kind::Double => 8,
            Kind::Record { fields, .. } => {
                fields.iter().fold(0, |sum: usize, field| sum.saturating_add(self.look(field.node, depth + 1)))
            }
            Kind::Union(branches) => {
                let branch = branches.iter().map(|branch| self.look(*branch, depth + 1)).min();
                branch.unwrap_or(0).saturating_add(1)
            }
            _ => 1,
        };
        // Small enough to multiply without a thought.
        let smallest = smallest.min(1 << 20);
        self.known[node] = Some(smallest);
        smallest
    }
}
