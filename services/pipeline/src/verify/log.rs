//! (A, D) The archive against the log, where that still has the records: their number and digest by segment, and the raw
//! bytes of the rejected ones.

use std::iter::Peekable;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use xxhash_rust::xxh3::Xxh3;

use super::Shared;
use super::chain::{Chain, Segment};
use super::contents::check_hour;
use super::dead_letters;
use super::kafka::ANSWER;
use super::message::{digested, headers_of, timestamp_of};
use super::report::Check;
use crate::dead_letters::DeadLetter;

/// How long the log may be silent although it should have records.
const SILENCE: Duration = Duration::from_mins(1);
/// Records after which the progress is told.
const RECORDS_A_STEP: u64 = 10_000;

/// One partition of the log, to be held against its chain.
pub(super) struct LogCheck<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) client: &'a ClientConfig,
    /// For the object store.
    pub(super) runtime: &'a Handle,
    pub(super) partition: i32,
}

/// A segment that is being read.
struct OpenSegment<'a> {
    segment: &'a Segment,
    /// Whether the log still has all of it.
    is_whole: bool,
    digest: Xxh3,
    records: u64,
    /// The dead letters, in order; what is left at the end is not in the log.
    letters: Peekable<std::vec::IntoIter<DeadLetter>>,
}

impl LogCheck<'_> {
    /// Reads the log along the chain. Blocks.
    pub(super) fn run(&self, chain: &Chain) -> anyhow::Result<()> {
        let partition = self.partition;
        let Some(end) = chain.end() else { return Ok(()) };
        let consumer: BaseConsumer = self.client.create().context("cannot make a consumer")?;
        // Asked now: when the archive was listed, the log of a topic under load was longer than before.
        let bounds = consumer.fetch_watermarks(&self.shared.topic, partition, ANSWER);
        let (low, high) = bounds.with_context(|| format!("bounds of partition {partition}"))?;
        if end > high {
            let sentence =
                format!("partition {partition}: the archive reaches {end}, the log only {high}: is it another topic?");
            self.shared.report.differs(Check::Log, Some(partition), end, sentence);
            return Ok(());
        }
        let needed = || chain.segments.iter().filter(|segment| self.shared.scope.needs(segment));
        let lost: i64 = needed().map(|segment| low.clamp(segment.start, segment.end) - segment.start).sum();
        if lost > 0 {
            let sentence =
                format!("partition {partition}: {lost} archived offsets before {low}; the log has lost them");
            self.shared.report.not_checked(Check::Log, sentence);
        }
        self.shared.progress.done(needed().filter(|segment| segment.end <= low).map(records_of).sum());
        let readable: Vec<&Segment> = needed().filter(|segment| segment.end > low).collect();
        for neighbours in readable.chunk_by(|segment, next| segment.end == next.start) {
            self.read(&consumer, neighbours, low)?;
        }
        Ok(())
    }

    /// Reads segments that follow one another.
    fn read(&self, consumer: &BaseConsumer, segments: &[&Segment], low: i64) -> anyhow::Result<()> {
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(()) };
        let mut position = TopicPartitionList::new();
        let from = Offset::Offset(first.start.max(low));
        position.add_partition_offset(&self.shared.topic, self.partition, from)?;
        consumer.assign(&position).context("cannot read the log")?;
        let mut following = segments.iter();
        let mut open = following.next().map(|segment| self.open(segment, low)).transpose()?;
        let (mut buffer, mut untold, mut heard) = (Vec::new(), 0, Instant::now());
        while open.is_some() {
            let is_over = match consumer.poll(Duration::from_millis(500)) {
                None if heard.elapsed() > SILENCE => bail!("Kafka sends nothing for {} s", SILENCE.as_secs()),
                None => continue,
                Some(Ok(message)) => {
                    while let Some(through) = open.take_if(|reading| message.offset() >= reading.segment.end) {
                        self.finish(through);
                        open = following.next().map(|segment| self.open(segment, low)).transpose()?;
                    }
                    let Some(reading) = &mut open else { break };
                    self.take(reading, &message, &mut buffer);
                    message.offset() + 1 >= last.end
                }
                Some(Err(KafkaError::PartitionEOF(_))) => true,
                Some(Err(KafkaError::MessageConsumption(code))) if is_lost(code) => {
                    let at = open.map_or(last.end, |reading| reading.segment.start);
                    let sentence = format!(
                        "partition {}: from offset {at} on; the log lost it while it was read ({code})",
                        self.partition
                    );
                    self.shared.report.not_checked(Check::Log, sentence);
                    return Ok(());
                }
                Some(Err(error)) if is_passing(&error) => continue,
                Some(Err(error)) => return Err(error).context("cannot read the log"),
            };
            heard = Instant::now();
            untold += 1;
            if untold >= RECORDS_A_STEP || is_over {
                self.shared.progress.done(std::mem::take(&mut untold));
            }
            if is_over {
                if let Some(reading) = open.take() {
                    self.finish(reading);
                }
                // Of these the log has no record at all.
                for segment in following.by_ref() {
                    self.finish(self.open(segment, low)?);
                }
            }
        }
        Ok(())
    }

    fn open<'s>(&self, segment: &'s Segment, low: i64) -> anyhow::Result<OpenSegment<'s>> {
        let mut letters = Vec::new();
        if segment.rejects > 0
            && let Some(Ok(found)) = self.runtime.block_on(dead_letters::read(self.shared, segment))?
        {
            // What is wrong with the object itself is told where it is held against the footer.
            letters = found;
            letters.sort_by_key(|letter| letter.offset);
            letters.dedup_by_key(|letter| letter.offset);
            letters.retain(|letter| letter.offset >= low);
        }
        let is_whole = segment.start >= low;
        Ok(OpenSegment { segment, is_whole, digest: Xxh3::new(), records: 0, letters: letters.into_iter().peekable() })
    }

    fn take(&self, open: &mut OpenSegment<'_>, message: &BorrowedMessage<'_>, buffer: &mut Vec<u8>) {
        let (offset, timestamp_ms) = (message.offset(), timestamp_of(message));
        let headers = headers_of(message);
        if open.records == 0
            && open.is_whole
            && let Err(sentence) = check_hour(open.segment, timestamp_ms)
        {
            let sentence =
                format!("partition {}: archive object {}: {sentence}", self.partition, open.segment.object.key);
            self.shared.report.differs(Check::Chain, Some(self.partition), offset, sentence);
        }
        open.records += 1;
        digested(buffer, (offset, timestamp_ms), message.key(), message.payload(), &headers);
        open.digest.update(buffer);
        while let Some(letter) = open.letters.next_if(|letter| letter.offset <= offset) {
            if letter.offset < offset {
                self.letter_differs(letter.offset, "the log has no such record");
                continue;
            }
            self.shared.report.examined(Check::DeadLetters, "records equal to the log's", 1);
            for (what, is_equal) in [
                ("value", letter.value.as_deref() == message.payload()),
                ("key", letter.key.as_deref() == message.key()),
                ("timestamp", letter.timestamp_ms == timestamp_ms),
                ("headers", letter.headers == headers),
            ] {
                if !is_equal {
                    self.letter_differs(offset, &format!("its {what} is not that of the log's record"));
                }
            }
        }
    }

    fn letter_differs(&self, offset: i64, what: &str) {
        let sentence = format!("partition {}, offset {offset}: dead letter: {what}", self.partition);
        self.shared.report.differs(Check::DeadLetters, Some(self.partition), offset, sentence);
    }

    fn finish(&self, open: OpenSegment<'_>) {
        let report = &self.shared.report;
        report.examined(Check::Log, "records", open.records);
        for letter in open.letters {
            self.letter_differs(letter.offset, "the log has no such record");
        }
        if !open.is_whole {
            return;
        }
        report.examined(Check::Log, "segments", 1);
        let segment = open.segment;
        let range = format!("partition {}, segment [{}, {})", self.partition, segment.start, segment.end);
        let (accounted, digest) = (records_of(segment), format!("{:032x}", open.digest.digest128()));
        let (rows, rejects) = (segment.rows, segment.rejects);
        let sentence = if accounted != open.records {
            format!("{range}: {rows} rows + {rejects} rejects, but the log has {} records", open.records)
        } else if segment.digest != digest {
            format!("{range}: the digest of the log's records is {digest}, in the footer {}", segment.digest)
        } else {
            return;
        };
        report.differs(Check::Log, Some(self.partition), segment.start, sentence);
    }
}

fn records_of(segment: &Segment) -> u64 {
    segment.rows + segment.rejects
}

fn is_lost(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset)
}

/// Connections come and go; librdkafka looks after them itself.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    let code = error.rdkafka_error_code();
    code.is_some_and(|code| matches!(code, AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve))
}
