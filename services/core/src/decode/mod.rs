//! From the bytes of a log record to a row: framing, schema resolution, columns.
//!
//! A value is first [`unframe`]d: which schema was it written with, and where does its body start? For each such schema
//! a [`Decoder`] is compiled once against the [`ReaderSchema`], which is the pipeline's own. Compiling does all that
//! Avro's schema resolution asks for (specification 1.12), so that decoding looks no name up: one pass over the body
//! appends to [`Columns`], which become Arrow arrays without a copy.
//!
//! The input is not trusted. Lengths are checked before memory is taken, depth and expansion are bounded
//! ([`DecodeLimits`]), and a body must end exactly where its last field does. A record is appended whole or not at all:
//! on any fault the columns are cut back to the rows before it, and the fault becomes a
//! [`Reject`](crate::reject::Reject) that names field and byte.

mod avro;
mod changes;
mod columns;
mod cursor;
mod decimal;
mod decoder;
mod defaults;
mod explain;
mod fault;
mod frame;
mod json;
mod natural;
mod program;
mod reader;
mod resolve;
mod rules;
mod run;
mod schema;

pub use avro::AvroSchema;
pub use changes::{Change, ChangeKind};
pub(crate) use columns::hand_out;
pub use columns::{Column, Columns};
pub use decoder::{CompileError, Decoder};
pub use explain::{Effect, Finding};
pub use frame::{SchemaReference, VALUE_SCHEMA_HEADER, unframe};
pub use natural::{NaturalSchema, Reading, ReadingFailure};
pub use reader::ReaderSchema;
pub use schema::SchemaError;

/// What a record or schema may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Levels of nesting, in the values that go to `_extra`; at most [`Self::DEEPEST`].
    pub max_depth: usize,
    /// Bytes of a body, and of what its arrays, maps and defaults expand to in memory; at most
    /// [`Self::LARGEST_RECORD`].
    pub max_record_bytes: usize,
    /// Bytes of a schema with those that it refers to.
    pub max_schema_bytes: usize,
}

impl DecodeLimits {
    /// The deepest nesting that the stack of any thread holds.
    pub const DEEPEST: usize = 256;

    /// The largest record that always fits behind the rows of columns that are not full.
    pub const LARGEST_RECORD: usize = 64 << 20;
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_depth: 64, max_record_bytes: 1 << 20, max_schema_bytes: 1 << 20 }
    }
}
