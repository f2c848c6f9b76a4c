//! Record batches and answers for tests, written from the protocol's description alone: nothing here is shared with the
//! code that reads them, the checksum included.

use std::io::Write;

/// A record as a producer sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) offset_delta: i32,
    pub(super) timestamp_delta: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Sent {
    pub(super) fn simple(offset_delta: i32) -> Self {
        let value = Some(format!("value {offset_delta}").into_bytes());
        Self { offset_delta, timestamp_delta: 0, key: None, value, headers: Vec::new() }
    }
}

/// A batch; [`Self::encode`] makes the bytes.
#[derive(Debug, Clone)]
pub(super) struct SentBatch {
    pub(super) base_offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) base_timestamp: i64,
    pub(super) max_timestamp: i64,
    pub(super) append_time: bool,
    pub(super) transactional: bool,
    pub(super) control: bool,
    pub(super) producer_id: i64,
    /// Numbers as in the protocol; 5 is snappy as the Java client frames it.
    pub(super) codec: u8,
    /// Larger than that of the last record where compaction took some.
    pub(super) last_offset_delta: i32,
    pub(super) records: Vec<Sent>,
}

impl SentBatch {
    pub(super) fn new(base_offset: i64, records: Vec<Sent>) -> Self {
        Self {
            base_offset,
            leader_epoch: 0,
            base_timestamp: 1_000,
            max_timestamp: 2_000,
            append_time: false,
            transactional: false,
            control: false,
            producer_id: -1,
            codec: 0,
            last_offset_delta: records.last().map_or(0, |record| record.offset_delta),
            records,
        }
    }

    /// So many simple records.
    pub(super) fn simple(base_offset: i64, count: i32) -> Self {
        Self::new(base_offset, (0..count).map(Sent::simple).collect())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for record in &self.records {
            let mut body = vec![0];
            varint(&mut body, record.timestamp_delta);
            varint(&mut body, record.offset_delta.into());
            sized(&mut body, record.key.as_deref());
            sized(&mut body, record.value.as_deref());
            varint(&mut body, record.headers.len() as i64);
            for (name, content) in &record.headers {
                sized(&mut body, Some(name.as_bytes()));
                sized(&mut body, content.as_deref());
            }
            sized(&mut records, Some(&body));
        }
        self.encode_around(&compress(self.codec, &records))
    }

    /// The batch around records that are compressed already.
    pub(super) fn encode_around(&self, records: &[u8]) -> Vec<u8> {
        let mut covered = Vec::new();
        let codec = if self.codec == 5 { 2 } else { self.codec };
        let attributes = i16::from(codec)
            | i16::from(self.append_time) << 3
            | i16::from(self.transactional) << 4
            | i16::from(self.control) << 5;
        covered.extend(attributes.to_be_bytes());
        covered.extend(self.last_offset_delta.to_be_bytes());
        covered.extend(self.base_timestamp.to_be_bytes());
        covered.extend(self.max_timestamp.to_be_bytes());
        covered.extend(self.producer_id.to_be_bytes());
        covered.extend(0_i16.to_be_bytes());
        covered.extend((-1_i32).to_be_bytes());
        covered.extend((self.records.len() as i32).to_be_bytes());
        covered.extend(records);
        let mut batch = Vec::new();
        batch.extend(self.base_offset.to_be_bytes());
        batch.extend((covered.len() as i32 + 9).to_be_bytes());
        batch.extend(self.leader_epoch.to_be_bytes());
        batch.push(2);
        batch.extend(crc32c(&covered).to_be_bytes());
        batch.extend(covered);
        batch
    }
}

/// One partition of an answer.
pub(super) struct SentPartition {
    pub(super) partition: i32,
    pub(super) error: i16,
    pub(super) aborted: Vec<(i64, i64)>,
    pub(super) records: Vec<u8>,
}

/// A Fetch response, version 11.
pub(super) fn fetch_response(topic: &str, partitions: &[SentPartition]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0_i32.to_be_bytes());
    body.extend(0_i16.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend((topic.len() as i16).to_be_bytes());
    body.extend(topic.as_bytes());
    body.extend((partitions.len() as i32).to_be_bytes());
    for partition in partitions {
        body.extend(partition.partition.to_be_bytes());
        body.extend(partition.error.to_be_bytes());
        body.extend(1_000_000_i64.to_be_bytes());
        body.extend(1_000_000_i64.to_be_bytes());
        body.extend(0_i64.to_be_bytes());
        body.extend((partition.aborted.len() as i32).to_be_bytes());
        for (producer, first) in &partition.aborted {
            body.extend(producer.to_be_bytes());
            body.extend(first.to_be_bytes());
        }
        body.extend((-1_i32).to_be_bytes());
        body.extend((partition.records.len() as i32).to_be_bytes());
        body.extend(&partition.records);
    }
    body
}

pub(super) fn compress(codec: u8, bytes: &[u8]) -> Vec<u8> {
    match codec {
        0 => bytes.to_vec(),
        1 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        2 => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
        3 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        4 => zstd::stream::encode_all(bytes, 1).unwrap(),
        5 => {
            let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
            for chunk in bytes.chunks(1_000) {
                let block = snap::raw::Encoder::new().compress_vec(chunk).unwrap();
                framed.extend((block.len() as i32).to_be_bytes());
                framed.extend(block);
            }
            framed
        }
        _ => unreachable!(),
    }
}

fn varint(bytes: &mut Vec<u8>, value: i64) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits >= 0x80 {
        bytes.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    bytes.push(bits as u8);
}

fn sized(bytes: &mut Vec<u8>, content: Option<&[u8]>) {
    varint(bytes, content.map_or(-1, |content| content.len() as i64));
    bytes.extend(content.unwrap_or_default());
}

/// Castagnoli's polynomial, bit by bit.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let mut checksum = u32::MAX;
    for byte in bytes {
        checksum ^= u32::from(*byte);
        for _ in 0..8 {
            checksum = (checksum >> 1) ^ (0x82f6_3b78 & (checksum & 1).wrapping_neg());
        }
    }
    !checksum
}
