//! Record batches (magic 2, [KIP-98]): their headers, their checksum, their records.
//!
//! [KIP-98]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-98+-+Exactly+Once+Delivery+and+Transactional+Messaging#KIP98ExactlyOnceDeliveryandTransactionalMessaging-MessageFormat

use std::borrow::Cow;

use crc_fast::CrcAlgorithm;

use super::cursor::{Cursor, Malformed};
use super::decompress::{Codec, DecompressError, Decompressor};

/// Base offset and length: what the length does not count.
const BEFORE_LENGTH: usize = 12;
const MAGIC_AT: usize = 16;
const CHECKSUM_AT: usize = 17;
/// The checksum is over everything from here on.
const ATTRIBUTES_AT: usize = 21;
const HEADER: usize = 61;
const MAGIC: u8 = 2;
/// Bytes of the smallest record, so that a batch cannot claim more records than it has room for.
const SMALLEST_RECORD: usize = 7;

const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// Why a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(
        "a message in the format of before Kafka 0.11 (magic {0}), which the native fetcher does not read; set \
         kafka.fetcher = \"librdkafka\""
    )]
    OldFormat(u8),
    #[error("the record batch has the unknown magic {0}")]
    UnknownMagic(u8),
    #[error("the record batch is damaged: its checksum is {found:08x} and should be {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("the record batch is damaged: {0}")]
    Header(&'static str),
    #[error("the record batch is compressed with an unknown codec")]
    UnknownCodec,
    #[error("the record batch cannot be decompressed: {0}")]
    Decompress(#[from] DecompressError),
    #[error("the record batch is damaged: {0}")]
    Records(#[from] Malformed),
}

/// One whole batch of a response, its checksum not looked at yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordBatch<'a> {
    bytes: &'a [u8],
    pub(super) base_offset: i64,
    /// The position behind the batch, also where compaction took its last records.
    pub(super) end_offset: i64,
    /// In whose term as leader it was written.
    pub(super) leader_epoch: i32,
    pub(super) producer_id: i64,
    pub(super) records: usize,
    attributes: i16,
    base_timestamp: i64,
    max_timestamp: i64,
}

/// The batches of a response, up to one that is cut short or cannot be read.
#[derive(Debug, Clone)]
pub(super) struct RecordBatches<'a> {
    rest: &'a [u8],
}

/// What there is next among the batches of a response.
#[derive(Debug)]
pub(super) enum NextBatch<'a> {
    Whole(RecordBatch<'a>),
    /// The response ends within a batch that has so many bytes, where its length is there.
    CutShort {
        bytes: Option<usize>,
    },
    End,
}

impl<'a> RecordBatches<'a> {
    pub(super) fn new(records: &'a [u8]) -> Self {
        Self { rest: records }
    }

    pub(super) fn next(&mut self) -> Result<NextBatch<'a>, Unreadable> {
        if self.rest.is_empty() {
            return Ok(NextBatch::End);
        }
        let Some(length) = self.rest.get(8..BEFORE_LENGTH) else { return Ok(NextBatch::CutShort { bytes: None }) };
        let mut length = Cursor::new(length);
        let Ok(length) = usize::try_from(length.i32()?) else { return Err(Unreadable::Header("a negative length")) };
        let size = BEFORE_LENGTH + length;
        match self.rest.get(MAGIC_AT).copied() {
            None => return Ok(NextBatch::CutShort { bytes: Some(size) }),
            Some(MAGIC) => {}
            Some(old @ (0 | 1)) => return Err(Unreadable::OldFormat(old)),
            Some(unknown) => return Err(Unreadable::UnknownMagic(unknown)),
        }
        if size < HEADER {
            return Err(Unreadable::Header("a length shorter than its header"));
        }
        let Some((bytes, rest)) = self.rest.split_at_checked(size) else {
            return Ok(NextBatch::CutShort { bytes: Some(size) });
        };
        self.rest = rest;
        RecordBatch::read(bytes).map(NextBatch::Whole)
    }

    /// What follows the last whole batch.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> RecordBatch<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut cursor = Cursor::new(bytes);
        let base_offset = cursor.i64()?;
        cursor.i32()?; // The length.
        let leader_epoch = cursor.i32()?;
        cursor.i8()?; // The magic.
        cursor.i32()?; // The checksum.
        let attributes = cursor.i16()?;
        let last_offset_delta = cursor.i32()?;
        let (base_timestamp, max_timestamp) = (cursor.i64()?, cursor.i64()?);
        let producer_id = cursor.i64()?;
        cursor.i16()?; // The producer's epoch.
        cursor.i32()?; // Its sequence number.
        let records = usize::try_from(cursor.i32()?).map_err(|_| Unreadable::Header("a negative number of records"))?;
        let end_offset = i64::from(last_offset_delta).checked_add(base_offset).and_then(|last| last.checked_add(1));
        match end_offset {
            Some(end_offset) if base_offset >= 0 && last_offset_delta >= 0 => Ok(Self {
                bytes,
                base_offset,
                end_offset,
                leader_epoch,
                producer_id,
                records,
                attributes,
                base_timestamp,
                max_timestamp,
            }),
            _ => Err(Unreadable::Header("impossible offsets")),
        }
    }

    /// Whether it holds a marker of a transaction instead of records.
    pub(super) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether it belongs to a transaction.
    pub(super) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Verifies the checksum and decompresses.
    pub(super) fn open<'d>(&self, decompressor: &'d mut Decompressor) -> Result<Records<'d>, Unreadable>
    where
        'a: 'd,
    {
        let codec = Codec::of_attributes(self.attributes).ok_or(Unreadable::UnknownCodec)?;
        let expected = Cursor::new(&self.bytes[CHECKSUM_AT..ATTRIBUTES_AT]).i32()? as u32;
        let found = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &self.bytes[ATTRIBUTES_AT..]) as u32;
        if found != expected {
            return Err(Unreadable::Checksum { found, expected });
        }
        let bytes = decompressor.decompress(codec, &self.bytes[HEADER..])?;
        if self.records > bytes.len() / SMALLEST_RECORD {
            return Err(Unreadable::Header("more records than there is room for"));
        }
        let append_time = (self.attributes & LOG_APPEND_TIME != 0).then_some(self.max_timestamp);
        Ok(Records {
            cursor: Cursor::new(bytes),
            size: bytes.len(),
            left: self.records,
            base_offset: self.base_offset,
            end_offset: self.end_offset,
            base_timestamp: self.base_timestamp,
            append_time,
        })
    }
}

/// One record of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) offset: i64,
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    headers: &'a [u8],
}

/// A record header: its name, and its content.
pub(super) type Header<'a> = (Cow<'a, str>, Option<&'a [u8]>);

/// The records of an opened batch.
#[derive(Debug)]
pub(super) struct Records<'a> {
    cursor: Cursor<'a>,
    /// Bytes of all records.
    pub(super) size: usize,
    left: usize,
    base_offset: i64,
    end_offset: i64,
    base_timestamp: i64,
    /// The time of all records, where the topic keeps the broker's.
    append_time: Option<i64>,
}

impl<'a> Records<'a> {
    /// The next record. After the last one nothing may be left.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Record<'a>>, Malformed> {
        if self.left == 0 {
            return if self.cursor.rest().is_empty() {
                Ok(None)
            } else {
                Err(self.cursor.malformed("more bytes than records"))
            };
        }
        self.left -= 1;
        let start = self.cursor.position();
        let length = self.cursor.varint()?;
        let Ok(length) = usize::try_from(length) else { return Err(self.cursor.malformed("a negative length")) };
        let mut record = Cursor::new(self.cursor.take(length)?);
        self.read_record(&mut record).map(Some).map_err(|malformed| Malformed { at: start + malformed.at, ..malformed })
    }

    #[inline]
    fn read_record(&self, record: &mut Cursor<'a>) -> Result<Record<'a>, Malformed> {
        record.i8()?; // Attributes: none are in use.
        let timestamp_delta = record.varlong()?;
        let offset = self.base_offset.wrapping_add(i64::from(record.varint()?));
        if offset < self.base_offset || offset >= self.end_offset {
            return Err(record.malformed("an offset outside of its batch"));
        }
        Ok(Record {
            offset,
            timestamp_ms: self.append_time.unwrap_or_else(|| self.base_timestamp.wrapping_add(timestamp_delta)),
            key: record.sized()?,
            value: record.sized()?,
            headers: record.rest(),
        })
    }
}

impl<'a> Record<'a> {
    /// Appends its headers in the order they were sent. Names that are not UTF-8, as they must be, get U+FFFD.
    #[inline]
    pub(super) fn headers(&self, headers: &mut Vec<Header<'a>>) -> Result<(), Malformed> {
        if let [0] = self.headers {
            return Ok(());
        }
        self.read_headers(headers)
    }

    fn read_headers(&self, headers: &mut Vec<Header<'a>>) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(self.headers);
        let count = cursor.varint()?;
        if count < 0 {
            return Err(cursor.malformed("a negative number of headers"));
        }
        for _ in 0..count {
            let name = cursor.sized()?.ok_or(cursor.malformed("a header without a name"))?;
            headers.push((String::from_utf8_lossy(name), cursor.sized()?));
        }
        if cursor.rest().is_empty() { Ok(()) } else { Err(cursor.malformed("more bytes than headers")) }
    }
}

/// Which batches of a response belong to aborted transactions, in the way of Kafka's own consumer: a transaction counts
/// as aborted from its first offset until the producer's abort marker.
#[derive(Debug)]
pub(super) struct AbortedTransactions {
    /// First offset and producer id, the next one last.
    ahead: Vec<(i64, i64)>,
    /// Producers within an aborted transaction.
    open: Vec<i64>,
}

impl AbortedTransactions {
    /// `aborted`: producer id and first offset.
    pub(super) fn new(aborted: &[(i64, i64)]) -> Self {
        let mut ahead: Vec<_> = aborted.iter().map(|(producer, first)| (*first, *producer)).collect();
        ahead.sort_unstable_by(|left, right| right.cmp(left));
        Self { ahead, open: Vec::new() }
    }

    /// Whether the records of the next batch were aborted.
    pub(super) fn contains(&mut self, batch: &RecordBatch<'_>) -> bool {
        while let Some((_, producer)) = self.ahead.pop_if(|(first, _)| *first < batch.end_offset) {
            self.open.push(producer);
        }
        batch.is_transactional() && self.open.contains(&batch.producer_id)
    }

    /// Takes note of a marker. One that commits can only be of a producer that is not in here.
    pub(super) fn marker(&mut self, batch: &RecordBatch<'_>) {
        if let Some(index) = self.open.iter().position(|producer| *producer == batch.producer_id) {
            self.open.swap_remove(index);
        }
    }
}

#[cfg(test)]
#[path = "record_batch_tests.rs"]
mod tests;
