//! The hot store: ClickHouse, by versioned upserts that may be repeated at will.
//!
//! `version` of a window row is the log position up to which it is true, so the newest truth wins whoever writes it
//! and however often; an anomaly row is keyed by its place in the log, so a replay writes the same row. Inserts are
//! synchronous (`async_insert=0`) and their acknowledgement is durable by the tables' settings.

pub mod row_binary;
mod writer;

pub use row_binary::reserved_columns;
pub use writer::ClickHouseStore;
