//! The digest of a log range: the same for the same records, however they were batched.

use xxhash_rust::xxh3::Xxh3;

use crate::record::LogBatch;

/// A running digest over records: offset, timestamp, key, value and headers of each.
///
/// XXH3-128 over the arena layout of [`LogBatch`]. It tells apart two cuts, or two topics, that were mixed up; it is
/// no defence against somebody who can write to both the log and the archive.
#[derive(Clone)]
pub struct LogDigest(Xxh3);

impl LogDigest {
    /// The digest of nothing.
    pub fn new() -> Self {
        Self(Xxh3::new())
    }

    /// Adds a run of records.
    pub fn update(&mut self, batch: &LogBatch, records: std::ops::Range<usize>) {
        self.0.update(batch.raw(records));
    }

    /// 32 hexadecimal digits.
    pub fn finish(&self) -> String {
        format!("{:032x}", self.0.digest128())
    }
}

impl Default for LogDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for LogDigest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("LogDigest").field(&self.finish()).finish()
    }
}
