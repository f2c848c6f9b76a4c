//! Records as the log delivers them, copied once into an arena.
//!
//! Ingest copies each record once, from where it was received or decompressed, into a [`LogBatch`]: one allocation for
//! thousands of them, which goes to another thread as a whole. The arena has one fixed layout, so the digest of a log
//! range ([`crate::digest`]) is a hash over these very bytes, however the range was cut into batches.

use std::ops::Range;

use crate::prefetch::{CACHE_LINE, prefetch};

/// Bytes of the fixed part in front of each record: offset, timestamp, and the lengths of key, value and headers.
const FIXED: usize = 8 + 8 + 4 + 4 + 4;

/// What [`LogBatch::push`] writes for a key or value that is null (a tombstone), as the Kafka protocol does.
const NULL: i32 = -1;

/// Consecutive records of one partition, in offset order, in one allocation.
///
/// Offsets rise but may have gaps (compaction, transaction markers).
#[derive(Debug, Default, Clone)]
pub struct LogBatch {
    /// All records, back to back: fixed part, key, value, headers; little endian.
    bytes: Vec<u8>,
    /// Where each record starts in `bytes`.
    starts: Vec<u32>,
}

/// One record, borrowed from a [`LogBatch`].
#[derive(Debug, Clone, Copy)]
pub struct LogRecord<'a> {
    /// Position in the partition.
    pub offset: i64,
    /// The Kafka record timestamp, milliseconds since the epoch. The clock against which event times are judged.
    pub timestamp_ms: i64,
    /// The record key; `None` where the producer sent none.
    pub key: Option<&'a [u8]>,
    /// The payload; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Record headers, in the order they were sent.
    pub headers: Headers<'a>,
}

/// Record headers, still in their encoded form.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a>(&'a [u8]);

impl LogBatch {
    /// The largest arena, so that positions fit in 32 bits.
    pub const MAX_BYTES: usize = u32::MAX as usize;

    /// An empty batch with room for `records` records of `bytes` bytes in all.
    pub fn with_capacity(records: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes + records * FIXED), starts: Vec::with_capacity(records) }
    }

    /// Makes room for `records` more records of `bytes` bytes in all.
    pub fn reserve(&mut self, records: usize, bytes: usize) {
        self.bytes.reserve(bytes + records * FIXED);
        self.starts.reserve(records);
    }

    /// Appends one record; `headers` in the order they were sent.
    ///
    /// # Panics
    /// If the arena would outgrow [`Self::MAX_BYTES`]; ingest cuts batches far below that.
    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        let start = u32::try_from(self.bytes.len()).expect("a log batch stays below 4 GiB");
        self.starts.push(start);
        // In one piece: this runs for each record.
        let mut fixed = [0; FIXED];
        fixed[..8].copy_from_slice(&offset.to_le_bytes());
        fixed[8..16].copy_from_slice(&timestamp_ms.to_le_bytes());
        fixed[16..20].copy_from_slice(&nullable_length(key).to_le_bytes());
        fixed[20..24].copy_from_slice(&nullable_length(value).to_le_bytes());
        let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
        self.bytes.reserve(FIXED + key.len() + value.len());
        self.bytes.extend_from_slice(&fixed);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        let headers_at = self.bytes.len();
        for (name, content) in headers {
            self.bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
            self.bytes.extend_from_slice(name.as_bytes());
            self.bytes.extend_from_slice(&nullable_length(content).to_le_bytes());
            self.bytes.extend_from_slice(content.unwrap_or_default());
        }
        let headers_length = (self.bytes.len() - headers_at) as u32;
        let headers_length_at = start as usize + FIXED - 4;
        self.bytes[headers_length_at..headers_length_at + 4].copy_from_slice(&headers_length.to_le_bytes());
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Bytes of all records: keys, values, headers and their frame.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes held, for the memory budget.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.starts.capacity() * size_of::<u32>()
    }

    /// The record at `index`.
    pub fn get(&self, index: usize) -> LogRecord<'_> {
        let record = &self.bytes[self.starts[index] as usize..];
        let (fixed, rest) = record.split_at(FIXED);
        let key_length = i32::from_le_bytes(array(&fixed[16..20]));
        let value_length = i32::from_le_bytes(array(&fixed[20..24]));
        let headers_length = u32::from_le_bytes(array(&fixed[24..28])) as usize;
        let (key, rest) = rest.split_at(key_length.max(0) as usize);
        let (value, rest) = rest.split_at(value_length.max(0) as usize);
        LogRecord {
            offset: i64::from_le_bytes(array(&fixed[0..8])),
            timestamp_ms: i64::from_le_bytes(array(&fixed[8..16])),
            key: (key_length != NULL).then_some(key),
            value: (value_length != NULL).then_some(value),
            headers: Headers(&rest[..headers_length]),
        }
    }

    /// The key of the record at `index`; `None` where it has none, or where there is no such record. Cheaper than
    /// [`Self::get`] for who needs no more.
    #[inline]
    pub fn key(&self, index: usize) -> Option<&[u8]> {
        let record = self.bytes.get(*self.starts.get(index)? as usize..)?;
        let (fixed, rest) = record.split_first_chunk::<FIXED>()?;
        let length = i32::from_le_bytes(array(&fixed[16..20]));
        rest.get(..usize::try_from(length).ok()?)
    }

    /// Begins to load the record at `index`; nothing happens for one that is not there. The arena was written on another
    /// core, and its records come too fast for the processor to see the pattern by itself.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        if let Some(start) = self.starts.get(index) {
            let start = *start as usize;
            prefetch(&self.bytes, start);
            prefetch(&self.bytes, start + CACHE_LINE);
        }
    }

    /// The records in offset order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = LogRecord<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The arena bytes of a run of records: what the digest is taken over.
    pub fn raw(&self, records: Range<usize>) -> &[u8] {
        if records.is_empty() {
            return &[];
        }
        let start = self.starts[records.start] as usize;
        let end = self.starts.get(records.end).map_or(self.bytes.len(), |next| *next as usize);
        &self.bytes[start..end]
    }

    /// Offset of the first record.
    pub fn first_offset(&self) -> Option<i64> {
        (!self.is_empty()).then(|| self.get(0).offset)
    }

    /// The log position behind the last record.
    pub fn end_offset(&self) -> Option<i64> {
        self.len().checked_sub(1).map(|last| self.get(last).offset + 1)
    }

    /// Index of the first record at or behind `offset`.
    pub fn position_of(&self, offset: i64) -> usize {
        let mut range = 0..self.len();
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            if self.get(middle).offset < offset {
                range.start = middle + 1;
            } else {
                range.end = middle;
            }
        }
        range.start
    }

    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }
}

impl<'a> Headers<'a> {
    /// Whether the record has no headers.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Names and contents in the order they were sent.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (name, behind) = split_sized(rest);
            let content_length = i32::from_le_bytes(array(&behind[..4]));
            let (content, behind) = behind[4..].split_at(content_length.max(0) as usize);
            rest = behind;
            // Names come in as `&str`; only this module writes the arena.
            Some((std::str::from_utf8(name).unwrap_or_default(), (content_length != NULL).then_some(content)))
        })
    }

    /// Content of the last header of that name, as Kafka's `Headers.lastHeader` does.
    pub fn last(self, name: &str) -> Option<&'a [u8]> {
        self.iter().filter(|(candidate, _)| *candidate == name).last().and_then(|(_, content)| content)
    }
}

fn split_sized(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = u32::from_le_bytes(array(&bytes[..4])) as usize;
    bytes[4..].split_at(length)
}

fn nullable_length(bytes: Option<&[u8]>) -> i32 {
    bytes.map_or(NULL, |bytes| bytes.len() as i32)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> LogBatch {
        let mut batch = LogBatch::default();
        batch.push(7, 100, Some(b"key"), Some(b"value"), [("trace", Some(&b"t1"[..])), ("none", None)]);
        batch.push(9, 101, None, None, []);
        batch.push(12, 102, Some(b""), Some(b""), [("trace", Some(&b"t1"[..])), ("trace", Some(&b"t2"[..]))]);
        batch
    }

    #[test]
    fn records_come_back_as_pushed() {
        let batch = batch();
        let first = batch.get(0);
        assert_eq!((first.offset, first.timestamp_ms), (7, 100));
        assert_eq!((first.key, first.value), (Some(&b"key"[..]), Some(&b"value"[..])));
        assert_eq!(first.headers.iter().collect::<Vec<_>>(), [("trace", Some(&b"t1"[..])), ("none", None)]);
        let tombstone = batch.get(1);
        assert_eq!((tombstone.key, tombstone.value), (None, None));
        assert!(tombstone.headers.is_empty());
        let empty = batch.get(2);
        assert_eq!((empty.key, empty.value), (Some(&b""[..]), Some(&b""[..])));
        assert_eq!(empty.headers.last("trace"), Some(&b"t2"[..]));
    }

    #[test]
    fn positions_allow_gaps() {
        let batch = batch();
        let found: Vec<_> = [0, 7, 8, 9, 10, 12, 13].into_iter().map(|offset| batch.position_of(offset)).collect();
        assert_eq!(found, [0, 0, 1, 1, 2, 2, 3]);
        assert_eq!((batch.first_offset(), batch.end_offset()), (Some(7), Some(13)));
    }

    #[test]
    fn raw_bytes_do_not_depend_on_the_batching() {
        let whole = batch();
        let mut joined = whole.raw(0..1).to_vec();
        joined.extend_from_slice(whole.raw(1..3));
        assert_eq!(joined, whole.raw(0..3));
        assert!(whole.raw(3..3).is_empty());
    }
}
