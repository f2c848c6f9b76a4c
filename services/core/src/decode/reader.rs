//! The schema that the pipeline reads by: it decides the columns, whatever the writers send.

use std::sync::Arc;

use arrow_schema::Fields;

use super::columns::{self, Columns};
use super::schema::{self, Field, Kind, NodeId, Schema, SchemaError};
use super::{DecodeLimits, defaults};

/// The reader's schema with the Arrow types that follow from it.
#[derive(Debug, Clone)]
pub struct ReaderSchema {
    schema: Schema,
    /// Empty columns, copied for whoever decodes.
    prototype: Columns,
    fields: Fields,
    json: Arc<str>,
}

impl ReaderSchema {
    /// Parses the text of an `.avsc` file.
    ///
    /// # Errors
    /// If it is not a valid schema of a record; if a type in it contains itself, has no column type (a record or enum
    /// or fixed with nothing in it), or nests deeper than [`DecodeLimits::max_depth`] is by default; if a default does
    /// not fit its field.
    pub fn parse(avsc: &str) -> Result<Self, SchemaError> {
        let limits = DecodeLimits::default();
        if avsc.len() > limits.max_schema_bytes {
            return Err(SchemaError::TooLarge(format!("{} bytes, of {}", avsc.len(), limits.max_schema_bytes)));
        }
        let schema = schema::parse(avsc, &[])?;
        let (columns, fields) = columns::build(&schema, limits.max_depth)?;
        // Parsed once already, so this is JSON; printed again, it has no white space.
        let json =
            serde_json::from_str::<serde_json::Value>(avsc).map_or_else(|_| avsc.to_owned(), |json| json.to_string());
        let json: Arc<str> = json.into();
        check_defaults(&schema)?;
        Ok(Self { schema, prototype: Columns::new(columns, Arc::clone(&json)), fields, json })
    }

    /// One Arrow field for each field of the record, in order, `_extra` not among them.
    ///
    /// Strings at the top level and enums are `Dictionary(Int32, Utf8)`; nested strings and every uuid string `Utf8`;
    /// records `Struct`; arrays `List`; maps `Map` in the order that was sent, repeated keys too. A union with `null` is
    /// a nullable column; a union of several other types is a `Struct` with one nullable member for each, called by its
    /// type, exactly one of them set, because Parquet has no unions.
    pub fn arrow_fields(&self) -> &Fields {
        &self.fields
    }

    /// Empty columns for this schema, for decoders with the same limits.
    pub fn new_columns(&self, limits: &DecodeLimits) -> Columns {
        self.prototype.clone().with_limits(limits)
    }

    /// The index of a field by its name in this schema.
    pub fn index_of(&self, field: &str) -> Option<usize> {
        self.fields.iter().position(|candidate| candidate.name() == field)
    }

    /// The symbols of an enum; none for anything else.
    pub fn enum_symbols(&self, index: usize) -> Vec<&str> {
        let column = self.prototype.column(index);
        (0..column.symbol_count() as u32).map(|symbol| column.symbol_name(symbol)).collect()
    }

    /// The names under which a field was known before, by its name in this schema.
    pub fn aliases_of(&self, field: &str) -> &[String] {
        let Kind::Record { fields, .. } = &self.schema.node(self.schema.root()).kind else { return &[] };
        let found = fields.iter().find(|candidate| candidate.name == field);
        found.map(|field| field.aliases.as_slice()).unwrap_or_default()
    }

    /// The index of the field in an older version of this schema that became `field`: by its name, else by an alias.
    fn index_in(&self, older: &Self, field: &str) -> Option<usize> {
        older.index_of(field).or_else(|| self.aliases_of(field).iter().find_map(|alias| older.index_of(alias)))
    }

    /// The index of the field in another version of this schema that plays the part of the one at `index` here.
    pub fn counterpart(&self, index: usize, other: &Self) -> Option<usize> {
        let field = self.fields[index].name();
        // Either may be the newer one.
        self.index_in(other, field).or_else(|| {
            let names = other.fields.iter().map(|field| field.name().as_str());
            names.enumerate().find(|(_, name)| other.aliases_of(name).contains(field)).map(|(index, _)| index)
        })
    }

    /// The schema as JSON without white space, all attributes kept in the order in which they were written.
    ///
    /// Not the "Parsing Canonical Form" of the specification: that drops logical types, defaults and aliases, without
    /// which the archive could not be read again the same way.
    pub fn json(&self) -> &str {
        &self.json
    }

    pub(super) fn shared_json(&self) -> &Arc<str> {
        &self.json
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(super) fn prototype(&self) -> &Columns {
        &self.prototype
    }

    /// The default of a field in Avro's binary encoding.
    pub(super) fn encoded_default(&self, field: &Field) -> Option<Vec<u8>> {
        let mut encoded = Vec::new();
        defaults::encode(&self.schema, field.node, field.default.as_ref()?, &mut encoded).ok()?;
        Some(encoded)
    }
}

/// Finds a default that does not fit before a record needs it.
fn check_defaults(schema: &Schema) -> Result<(), SchemaError> {
    for node in 0..schema.len() as NodeId {
        let Kind::Record { name, fields } = &schema.node(node).kind else {
            continue;
        };
        for field in fields {
            let Some(default) = &field.default else {
                continue;
            };
            let checked = defaults::encode(schema, field.node, default, &mut Vec::new());
            checked.map_err(|problem| SchemaError::Invalid {
                at: format!("`{}.{}`", name.unqualified(), field.name),
                problem: format!("the default does not fit: {problem}"),
            })?;
        }
    }
    Ok(())
}
