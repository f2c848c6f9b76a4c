//! From the reader's schema to empty columns and their Arrow types.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, TimeUnit};

use super::column::{Column, Data};
use super::dictionary::Dictionary;
use crate::decode::schema::{self, Kind, Logical, NodeId, Schema, SchemaError, Ticks};

/// Columns, nested ones counted, beyond which a schema is refused: named types can repeat without end.
const MOST_COLUMNS: usize = 10_000;

/// Makes the columns of one reader schema.
pub(super) struct Builder<'s> {
    schema: &'s Schema,
    max_depth: usize,
    /// Named types on the way from the root, to find recursion.
    open: Vec<NodeId>,
    path: Vec<String>,
    count: usize,
}

type Built<T> = Result<T, SchemaError>;

/// The columns of the record at the root of `schema`, and their Arrow fields.
pub(in crate::decode) fn build(schema: &Schema, max_depth: usize) -> Built<(Vec<Column>, Fields)> {
    let Kind::Record { fields, .. } = &schema.node(schema.root()).kind else {
        let problem = format!("the reader schema is of type {}, a record is needed", schema.describe(schema.root()));
        return Err(SchemaError::Invalid { at: "schema".to_owned(), problem });
    };
    let mut builder = Builder { schema, max_depth, open: vec![schema.root()], path: Vec::new(), count: 0 };
    builder.members(fields, Place::Top)
}

/// Strings are kept as dictionaries at the top only: nested ones repeat less, and Arrow handles them less well.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Top,
    Nested,
}

impl Builder<'_> {
    fn members(&mut self, fields: &[schema::Field], place: Place) -> Built<(Vec<Column>, Fields)> {
        let mut columns = Vec::with_capacity(fields.len());
        let mut arrow_fields = Vec::with_capacity(fields.len());
        for field in fields {
            self.path.push(field.name.clone());
            let column = self.column(field.node, place)?;
            self.path.pop();
            arrow_fields.push(arrow_field(&field.name, &column));
            columns.push(column);
        }
        Ok((columns, arrow_fields.into()))
    }

    fn column(&mut self, node: NodeId, place: Place) -> Built<Column> {
        self.count += 1;
        if self.count > MOST_COLUMNS {
            return Err(SchemaError::TooLarge(format!("it has more than {MOST_COLUMNS} columns")));
        }
        let Kind::Union(branches) = &self.schema.node(node).kind else {
            return self.plain(node, place);
        };
        let set: Vec<NodeId> = branches.iter().copied().filter(|branch| !self.schema.is_null(*branch)).collect();
        let nullable = set.len() < branches.len();
        let mut column = match set.as_slice() {
            [] => return self.plain(branches[0], place),
            [one] => self.plain(*one, place)?,
            several => self.union(several)?,
        };
        if nullable {
            column.validity = Some(Vec::new());
        }
        Ok(column)
    }

    /// A union of several types: Parquet has no unions, so it becomes a record with one nullable member for each.
    fn union(&mut self, branches: &[NodeId]) -> Built<Column> {
        let mut children = Vec::with_capacity(branches.len());
        let mut fields: Vec<Field> = Vec::with_capacity(branches.len());
        for branch in branches {
            let described = self.schema.describe(*branch);
            let short = described.rsplit('.').next().unwrap_or(described);
            let mut name = short.to_owned();
            let mut number = 2;
            while fields.iter().any(|field| *field.name() == name) {
                name = format!("{short}_{number}");
                number += 1;
            }
            self.path.push(name.clone());
            let mut child = self.plain(*branch, Place::Nested)?;
            self.path.pop();
            child.validity = Some(Vec::new());
            fields.push(arrow_field(&name, &child));
            children.push(child);
        }
        Ok(column(Data::Struct { rows: 0, children }, DataType::Struct(fields.into())))
    }

    fn plain(&mut self, node: NodeId, place: Place) -> Built<Column> {
        if self.open.len() > self.max_depth {
            return Err(SchemaError::TooLarge(format!("it nests deeper than {} types", self.max_depth)));
        }
        if self.open.contains(&node) {
            let name = self.schema.describe(node).to_owned();
            return Err(SchemaError::Recursive { name, at: self.path.join(".") });
        }
        self.open.push(node);
        let built = self.inner(node, place);
        self.open.pop();
        built
    }

    fn inner(&mut self, node: NodeId, place: Place) -> Built<Column> {
        let (kind, logical) = (&self.schema.node(node).kind, self.schema.node(node).logical);
        Ok(match kind {
            Kind::Null => column(Data::Null(0), DataType::Null),
            Kind::Boolean => column(Data::Boolean(Vec::new()), DataType::Boolean),
            Kind::Int => column(Data::Int(Vec::new()), int_type(logical)),
            Kind::Long => long_column(logical),
            Kind::Float => column(Data::Float(Vec::new()), DataType::Float32),
            Kind::Double => column(Data::Double(Vec::new()), DataType::Float64),
            Kind::String if place == Place::Top && logical.is_none() => {
                let dictionary = Box::new(Dictionary::default());
                column(Data::Dictionary { keys: Vec::new(), dictionary }, dictionary_type())
            }
            Kind::String => text_column(),
            Kind::Bytes => decimal_column(logical)
                .unwrap_or_else(|| column(Data::Binary { offsets: vec![0], bytes: Vec::new() }, DataType::Binary)),
            Kind::Fixed { size: 0, .. } => return self.unsupported("a fixed of no bytes cannot be a column"),
            Kind::Fixed { size, .. } => decimal_column(logical).unwrap_or_else(|| {
                column(Data::Fixed { size: *size, bytes: Vec::new() }, DataType::FixedSizeBinary(*size as i32))
            }),
            Kind::Enum { symbols, .. } if symbols.is_empty() => return self.unsupported("the enum has no symbol"),
            Kind::Enum { symbols, .. } => {
                let symbols = symbols.as_slice().into();
                column(Data::Symbols { keys: Vec::new(), symbols }, dictionary_type())
            }
            Kind::Record { fields, .. } if fields.is_empty() => {
                return self.unsupported("a record without fields cannot be a Parquet column");
            }
            Kind::Record { fields, .. } => {
                let (children, fields) = self.members(fields, Place::Nested)?;
                column(Data::Struct { rows: 0, children }, DataType::Struct(fields))
            }
            Kind::Array(items) => {
                let items = self.column(*items, Place::Nested)?;
                // The names of the Parquet format, so that every reader of Parquet knows the shape.
                let data_type = DataType::List(Arc::new(arrow_field("element", &items)));
                column(Data::List { offsets: vec![0], items: Box::new(items) }, data_type)
            }
            Kind::Map(values) => {
                let values = self.column(*values, Place::Nested)?;
                map_column(values)
            }
            Kind::Union(_) => return self.unsupported("a union in a union"),
        })
    }

    fn unsupported<T>(&self, problem: &str) -> Built<T> {
        Err(SchemaError::Unsupported { at: self.path.join("."), problem: problem.to_owned() })
    }
}

fn column(data: Data, data_type: DataType) -> Column {
    Column { data, validity: None, data_type, ticks: Ticks::Millis }
}

fn arrow_field(name: &str, column: &Column) -> Field {
    Field::new(name, column.data_type.clone(), column.is_nullable())
}

fn text_column() -> Column {
    column(Data::Utf8 { offsets: vec![0], text: String::new() }, DataType::Utf8)
}

fn map_column(values: Column) -> Column {
    let keys = text_column();
    let entries: Fields = vec![arrow_field("key", &keys), arrow_field("value", &values)].into();
    let entries = Field::new("key_value", DataType::Struct(entries), false);
    let data = Data::Map { offsets: vec![0], keys: Box::new(keys), values: Box::new(values) };
    column(data, DataType::Map(Arc::new(entries), false))
}

fn int_type(logical: Option<Logical>) -> DataType {
    match logical {
        Some(Logical::Date) => DataType::Date32,
        Some(Logical::TimeMillis) => DataType::Time32(TimeUnit::Millisecond),
        _ => DataType::Int32,
    }
}

fn long_column(logical: Option<Logical>) -> Column {
    let (data_type, ticks) = match logical {
        Some(Logical::TimeMicros) => (DataType::Time64(TimeUnit::Microsecond), Ticks::Micros),
        Some(Logical::Timestamp(ticks)) => (DataType::Timestamp(time_unit(ticks), Some("UTC".into())), ticks),
        Some(Logical::LocalTimestamp(ticks)) => (DataType::Timestamp(time_unit(ticks), None), ticks),
        _ => (DataType::Int64, Ticks::Millis),
    };
    Column { ticks, ..column(Data::Long(Vec::new()), data_type) }
}

fn time_unit(ticks: Ticks) -> TimeUnit {
    match ticks {
        Ticks::Millis => TimeUnit::Millisecond,
        Ticks::Micros => TimeUnit::Microsecond,
        Ticks::Nanos => TimeUnit::Nanosecond,
    }
}

fn decimal_column(logical: Option<Logical>) -> Option<Column> {
    match logical? {
        Logical::Decimal { precision, scale } if precision <= 38 => {
            Some(column(Data::Decimal128(Vec::new()), DataType::Decimal128(precision, scale)))
        }
        Logical::Decimal { precision, scale } => {
            Some(column(Data::Decimal256(Vec::new()), DataType::Decimal256(precision, scale)))
        }
        _ => None,
    }
}

fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}
