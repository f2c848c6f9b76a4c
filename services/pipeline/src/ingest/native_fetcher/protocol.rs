//! The few requests that fetching takes, in versions without tagged fields that Kafka 2.3 to 4.x, Redpanda and
//! librdkafka's mock cluster answer.
//!
//! | request | version | |
//! |---|---|---|
//! | ApiVersions | 0 | whether the broker speaks the other two ([KIP-35]) |
//! | Fetch | 11 | without a fetch session; each request names its partitions ([KIP-74], [KIP-98], [KIP-320]) |
//! | OffsetForLeaderEpoch | 2 | where the records of a leader's term end ([KIP-101], [KIP-320]) |
//!
//! Fields and their order: <https://kafka.apache.org/protocol.html>, and `clients/src/main/resources/common/message` in
//! Kafka's source.
//!
//! [KIP-35]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-35+-+Retrieving+protocol+version
//! [KIP-74]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-74%3A+Add+Fetch+Response+Size+Limit+in+Bytes
//! [KIP-98]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-98+-+Exactly+Once+Delivery+and+Transactional+Messaging
//! [KIP-101]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-101+-+Alter+Replication+Protocol+to+use+Leader+Epoch+rather+than+High+Watermark+for+Truncation
//! [KIP-320]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-320%3A+Allow+fetchers+to+detect+and+handle+log+truncation

use super::cursor::{Cursor, Malformed};

/// A kind of request, and the version in which we send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Api {
    pub(super) name: &'static str,
    pub(super) key: i16,
    pub(super) version: i16,
}

pub(super) const FETCH: Api = Api { name: "Fetch", key: 1, version: 11 };
pub(super) const API_VERSIONS: Api = Api { name: "ApiVersions", key: 18, version: 0 };
pub(super) const OFFSET_FOR_LEADER_EPOCH: Api = Api { name: "OffsetForLeaderEpoch", key: 23, version: 2 };

/// A consumer is no replica.
const NO_REPLICA: i32 = -1;
/// We do not say which leader's term we expect: a change of it is seen in the batches.
const ANY_LEADER_EPOCH: i32 = -1;

/// A request being written: [`Frame::begin`], the fields, [`Frame::finish`].
#[derive(Debug, Default)]
pub(super) struct Frame(Vec<u8>);

impl Frame {
    /// Starts over, with the header (version 1) of a request.
    pub(super) fn begin(&mut self, api: Api, correlation: i32, client_id: &str) {
        self.0.clear();
        self.i32(0); // The size, see `finish`.
        self.i16(api.key);
        self.i16(api.version);
        self.i32(correlation);
        self.string(client_id);
    }

    /// The bytes to send.
    pub(super) fn finish(&mut self) -> &[u8] {
        let size = (self.0.len() - 4) as i32;
        self.0[..4].copy_from_slice(&size.to_be_bytes());
        &self.0
    }

    fn i8(&mut self, value: i8) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn i16(&mut self, value: i16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Topics have at most 249 letters; longer client ids are cut.
    fn string(&mut self, text: &str) {
        let bytes = &text.as_bytes()[..text.len().min(i16::MAX as usize)];
        self.i16(bytes.len() as i16);
        self.0.extend_from_slice(bytes);
    }
}

/// What is asked of all partitions of a Fetch request together.
#[derive(Debug, Clone, Copy)]
pub(super) struct FetchTerms {
    pub(super) max_wait_ms: i32,
    pub(super) min_bytes: i32,
    pub(super) max_bytes: i32,
    pub(super) read_committed: bool,
}

/// One partition of a Fetch request.
#[derive(Debug, Clone, Copy)]
pub(super) struct FetchPartition {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) max_bytes: i32,
}

pub(super) fn write_fetch(frame: &mut Frame, terms: FetchTerms, topic: &str, partitions: &[FetchPartition]) {
    frame.i32(NO_REPLICA);
    frame.i32(terms.max_wait_ms);
    frame.i32(terms.min_bytes);
    frame.i32(terms.max_bytes);
    frame.i8(i8::from(terms.read_committed));
    frame.i32(0); // No fetch session,
    frame.i32(-1); // nor a new one.
    frame.i32(1);
    frame.string(topic);
    frame.i32(partitions.len() as i32);
    for partition in partitions {
        frame.i32(partition.partition);
        frame.i32(ANY_LEADER_EPOCH);
        frame.i64(partition.offset);
        frame.i64(-1); // The log start offset of a replica.
        frame.i32(partition.max_bytes);
    }
    frame.i32(0); // Topics to forget.
    frame.string(""); // The rack: none, so that the leader itself answers.
}

/// What a Fetch response says of one partition.
#[derive(Debug)]
pub(super) struct FetchedPartition<'a> {
    pub(super) partition: i32,
    pub(super) error: i16,
    pub(super) high_watermark: i64,
    /// Producer id and first offset of each transaction among the records that was aborted.
    pub(super) aborted: Vec<(i64, i64)>,
    /// Record batches back to back; the last may be cut short.
    pub(super) records: &'a [u8],
}

/// A Fetch response.
#[derive(Debug)]
pub(super) struct Fetched<'a> {
    /// For how long the broker will not answer, because of a quota.
    pub(super) throttle_ms: i32,
    /// About the request as a whole.
    pub(super) error: i16,
    pub(super) partitions: Vec<FetchedPartition<'a>>,
}

/// Reads a Fetch response about `topic`; other topics in it are left out.
pub(super) fn read_fetch<'a>(body: &'a [u8], topic: &str) -> Result<Fetched<'a>, Malformed> {
    let mut cursor = Cursor::new(body);
    let mut fetched = Fetched { throttle_ms: cursor.i32()?, error: cursor.i16()?, partitions: Vec::new() };
    cursor.i32()?; // The session.
    for _ in 0..cursor.count()? {
        let ours = cursor.string()? == topic.as_bytes();
        for _ in 0..cursor.count()? {
            let partition = read_fetched_partition(&mut cursor)?;
            if ours {
                fetched.partitions.push(partition);
            }
        }
    }
    Ok(fetched)
}

fn read_fetched_partition<'a>(cursor: &mut Cursor<'a>) -> Result<FetchedPartition<'a>, Malformed> {
    let (partition, error, high_watermark) = (cursor.i32()?, cursor.i16()?, cursor.i64()?);
    cursor.i64()?; // The last stable offset: what lies behind it is not sent to those who read committed records.
    cursor.i64()?; // The log start offset.
    let mut aborted = Vec::new();
    for _ in 0..cursor.count()? {
        aborted.push((cursor.i64()?, cursor.i64()?));
    }
    cursor.i32()?; // The replica to prefer: none, as we named no rack.
    Ok(FetchedPartition { partition, error, high_watermark, aborted, records: cursor.bytes()? })
}

/// Reads an ApiVersions response: what of `needed` the broker does not speak.
pub(super) fn read_missing_api(body: &[u8], needed: &[Api]) -> Result<Option<Api>, Malformed> {
    let mut cursor = Cursor::new(body);
    if cursor.i16()? != 0 {
        return Err(cursor.malformed("an error in place of the versions"));
    }
    let mut spoken = Vec::new();
    for _ in 0..cursor.count()? {
        spoken.push((cursor.i16()?, cursor.i16()?..=cursor.i16()?));
    }
    let speaks = |api: &Api| spoken.iter().any(|(key, versions)| *key == api.key && versions.contains(&api.version));
    Ok(needed.iter().find(|api| !speaks(api)).copied())
}

/// Asks where the records of a leader's term end, for each partition and term.
pub(super) fn write_end_of_epoch(frame: &mut Frame, topic: &str, partitions: &[(i32, i32)]) {
    frame.i32(1);
    frame.string(topic);
    frame.i32(partitions.len() as i32);
    for (partition, epoch) in partitions {
        frame.i32(*partition);
        frame.i32(ANY_LEADER_EPOCH);
        frame.i32(*epoch);
    }
}

/// Where the records of a leader's term end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EndOfEpoch {
    pub(super) partition: i32,
    pub(super) error: i16,
    /// Negative where the broker does not know.
    pub(super) end_offset: i64,
}

pub(super) fn read_end_of_epoch(body: &[u8], topic: &str) -> Result<Vec<EndOfEpoch>, Malformed> {
    let mut cursor = Cursor::new(body);
    let mut ends = Vec::new();
    cursor.i32()?; // The throttle time.
    for _ in 0..cursor.count()? {
        let ours = cursor.string()? == topic.as_bytes();
        for _ in 0..cursor.count()? {
            let (error, partition) = (cursor.i16()?, cursor.i32()?);
            cursor.i32()?; // The term that the end is of: the one asked for or the one before.
            let end_offset = cursor.i64()?;
            if ours {
                ends.push(EndOfEpoch { partition, error, end_offset });
            }
        }
    }
    Ok(ends)
}
