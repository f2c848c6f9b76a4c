//! Two schemas held against one another, for people: before a schema is registered, or a reader is changed.

use super::changes::{Change, changes};
use super::explain::{Finding, explain};
use super::reader::ReaderSchema;
use super::schema::{self, Schema, SchemaError};

/// Any valid Avro schema, one that no columns could be made for too.
#[derive(Debug, Clone)]
pub struct AvroSchema(Schema);

impl AvroSchema {
    /// Parses a schema's text. `references` are the schemas of other subjects whose named types it uses, each behind those
    /// that it uses itself.
    ///
    /// # Errors
    /// If it is not a valid schema.
    pub fn parse(text: &str, references: &[String]) -> Result<Self, SchemaError> {
        schema::parse(text, references).map(Self)
    }

    /// The full name of the record; the word for the type where it is none.
    pub fn name(&self) -> &str {
        self.0.describe(self.0.root())
    }

    /// What is different in `self`, a newer version of `older`. Empty if only documentation and properties have changed.
    pub fn changes_since(&self, older: &Self) -> Vec<Change> {
        changes(&older.0, &self.0)
    }

    /// What becomes of records of this schema when they are read by `reader`, field by field. Nothing is said of what is
    /// read as it was written.
    pub fn read_by(&self, reader: &Self) -> Vec<Finding> {
        explain(&self.0, &reader.0)
    }
}

impl From<&ReaderSchema> for AvroSchema {
    fn from(reader: &ReaderSchema) -> Self {
        Self(reader.schema().clone())
    }
}
