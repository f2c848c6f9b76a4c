//! One writer's schema, compiled against the reader's.

use std::sync::Arc;

use super::DecodeLimits;
use super::columns::{Columns, EXTRA_FACTOR};
use super::cursor::Cursor;
use super::fault::Outcome;
use super::json::Sink;
use super::program::RecordOp;
use super::reader::ReaderSchema;
use super::resolve::{Mismatch, resolve};
use super::run::Run;
use super::schema::{self, Schema};
use crate::reject::{Reason, Reject, about_field};

/// Decodes the bodies of one writer's schema into the columns of one reader's.
#[derive(Debug)]
pub struct Decoder {
    writer: Schema,
    program: RecordOp,
    /// Says which columns fit.
    reader: Arc<str>,
    max_depth: usize,
    max_record_bytes: usize,
}

/// Why no record of a writer's schema can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The writer's schema is not Avro, or beyond the limits.
    #[error("not a valid Avro schema: {0}")]
    NotAvro(String),
    /// The reader's schema cannot read what the writer's writes.
    #[error("{} (Avro 1.12, Schema Resolution)", about_field(path, rule))]
    Incompatible {
        /// Path of the field, by the reader's names; empty for the schema as a whole.
        path: String,
        /// What the rule demands and what was found.
        rule: String,
    },
}

impl From<CompileError> for Reject {
    fn from(error: CompileError) -> Self {
        let reason = match &error {
            CompileError::NotAvro(_) => Reason::SchemaNotAvro,
            CompileError::Incompatible { .. } => Reason::IncompatibleSchema,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<Mismatch> for CompileError {
    fn from(mismatch: Mismatch) -> Self {
        Self::Incompatible { path: mismatch.path(), rule: mismatch.rule }
    }
}

impl Decoder {
    /// Compiles a writer's schema against the reader's. `references` are the schemas of other subjects whose named types
    /// it uses, each behind those that it uses itself.
    ///
    /// # Errors
    /// If the writer's schema is not Avro or too large, or cannot be resolved to the reader's by the rules of the
    /// specification. Branches of a writer's union and symbols of its enums that the reader lacks are no error here, but
    /// in the records that have them.
    pub fn compile(
        writer: &str,
        references: &[String],
        reader: &ReaderSchema,
        limits: &DecodeLimits,
    ) -> Result<Self, CompileError> {
        let bytes = references.iter().map(String::len).sum::<usize>() + writer.len();
        if bytes > limits.max_schema_bytes {
            return Err(CompileError::NotAvro(format!("{bytes} bytes, of {} allowed", limits.max_schema_bytes)));
        }
        let writer = schema::parse(writer, references).map_err(|error| CompileError::NotAvro(error.to_string()))?;
        let program = resolve(&writer, reader)?;
        Ok(Self {
            writer,
            program,
            reader: Arc::clone(reader.shared_json()),
            max_depth: limits.max_depth.min(DecodeLimits::DEEPEST),
            max_record_bytes: limits.max_record_bytes.min(DecodeLimits::LARGEST_RECORD),
        })
    }

    /// Appends exactly one row to `columns`, or leaves them exactly as they were.
    ///
    /// # Errors
    /// With the reason for the dead letters and a sentence that names the field and the byte of `body`.
    pub fn decode(&self, body: &[u8], columns: &mut Columns) -> Result<(), Reject> {
        self.check(body, columns)?;
        match self.append(body, columns) {
            Ok(()) => {
                columns.rows += 1;
                Ok(())
            }
            Err(fault) => {
                columns.roll_back(columns.rows);
                Err(fault.into_reject())
            }
        }
    }

    /// What must hold before anything is appended.
    #[inline]
    fn check(&self, body: &[u8], columns: &Columns) -> Result<(), Reject> {
        if body.len() > self.max_record_bytes {
            let detail = format!("the body has {} bytes, {} are allowed", body.len(), self.max_record_bytes);
            return Err(Reject::new(Reason::TooLarge, detail));
        }
        if columns.is_full() {
            return Err(Reject::new(Reason::TooLarge, "the columns are full; their rows must be taken first"));
        }
        if !Arc::ptr_eq(&self.reader, &columns.reader) && self.reader != columns.reader {
            return Err(Reject::new(Reason::IncompatibleSchema, "the columns are of another reader schema"));
        }
        Ok(())
    }

    fn append(&self, body: &[u8], columns: &mut Columns) -> Outcome<()> {
        let start = columns.extra.committed();
        let text = &mut columns.extra.text;
        let limit = start + self.max_record_bytes.saturating_mul(EXTRA_FACTOR);
        let sink = Sink { schema: &self.writer, text, limit, max_depth: self.max_depth, values: 0 };
        let mut run = Run { cursor: Cursor::new(body), budget: self.max_record_bytes, sink };
        run.record(&self.program, &mut columns.fields)?;
        run.cursor.end()?;
        let has_extra = run.sink.values > 0;
        columns.grown += body.len() + (self.max_record_bytes - run.budget);
        if has_extra {
            columns.grown += columns.extra.text.len() - start;
            columns.extra.commit(columns.rows);
        } else {
            columns.extra.text.truncate(start);
        }
        Ok(())
    }
}
