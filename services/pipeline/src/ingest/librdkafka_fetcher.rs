//! Records from librdkafka: taken from its queue and copied into one batch per partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kappa_core::record::LogBatch;
use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use tracing::{debug, error};

use super::batch_queue::{BatchQueue, Message, MessageBuffer, Messages};
use super::broker_queries::one_partition;
use super::group_member::{Assignment, Assignments, GroupMember};
use super::shared::{Arrival, Client, Shared, lock};
use crate::memory::Reservation;
use crate::partition::seams::LogLost;

/// Milliseconds between two looks at the positions.
const BETWEEN_POSITIONS_MS: u64 = 1_000;
/// How long librdkafka's main thread may take for a seek.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// librdkafka as the one who fetches.
pub(super) struct LibrdkafkaFetcher {
    client: Arc<Client>,
    queue: Arc<BatchQueue<GroupMember>>,
    shared: Arc<Shared>,
    /// When positions were last looked at: [`Shared::now_ms`].
    positions_at_ms: AtomicU64,
    /// What librdkafka may prefetch.
    _prefetch: Reservation,
}

impl LibrdkafkaFetcher {
    pub(super) fn new(client: &Arc<Client>, queue: &Arc<BatchQueue<GroupMember>>, shared: &Arc<Shared>) -> Self {
        Self {
            client: Arc::clone(client),
            queue: Arc::clone(queue),
            _prefetch: shared.budget.reserve(shared.limits.prefetch_bytes),
            shared: Arc::clone(shared),
            positions_at_ms: AtomicU64::new(0),
        }
    }

    /// Seeks, then lets the partition be fetched. Forwards again first: the end of an earlier assignment undoes it, on
    /// librdkafka's own thread.
    pub(super) fn seek(&self, partition: i32, offset: i64) -> KafkaResult<()> {
        self.queue.forward(partition);
        let target = one_partition(&self.shared.topic, partition, Some(Offset::Offset(offset)))?;
        for element in self.client.seek_partitions(target, SEEK_TIMEOUT)?.elements() {
            element.error()?;
        }
        self.set_paused(partition, false)
    }

    pub(super) fn set_paused(&self, partition: i32, paused: bool) -> KafkaResult<()> {
        let partitions = one_partition(&self.shared.topic, partition, None)?;
        if paused { self.client.pause(&partitions) } else { self.client.resume(&partitions) }
    }

    /// Takes what waits in the queue, if there is anything, and sends it to the workers.
    pub(super) fn take(&self, buffer: &mut MessageBuffer) -> bool {
        self.note_markers();
        if self.queue.waiting_records() == 0 {
            return false;
        }
        let started = Instant::now();
        self.deliver(&self.queue.take(buffer, self.shared.limits.linger));
        self.shared.taken_since(started);
        true
    }

    /// Now and then: markers of transactions move librdkafka's position, and are never delivered.
    fn note_markers(&self) {
        let now_ms = self.shared.now_ms();
        if now_ms < self.positions_at_ms.load(Ordering::Relaxed) + BETWEEN_POSITIONS_MS {
            return;
        }
        self.positions_at_ms.store(now_ms, Ordering::Relaxed);
        let Ok(positions) = self.client.position() else { return };
        let mut assignments = lock(&self.client.context().assignments);
        for element in positions.elements_for_topic(&self.shared.topic) {
            if let Offset::Offset(position) = element.offset()
                && let Some(assignment) = assignments.get_mut(element.partition())
                && assignment.epoch.is_some()
            {
                assignment.slot.note_without_records(assignment.next_offset, position);
            }
        }
    }

    /// Copies the messages into one batch per partition and sends these.
    fn deliver(&self, messages: &Messages<'_>) {
        let mut assignments = lock(&self.client.context().assignments);
        let touched = make_room(&mut assignments, messages);
        let mut failures = Vec::new();
        for message in messages.iter() {
            let Some(assignment) = assignments.get_mut(message.partition()) else { continue };
            if assignment.finished || assignment.epoch.is_none() {
                continue;
            }
            match message.error() {
                None => copy(assignment, message),
                Some((code, text)) => {
                    if let Some(lost) = self.partition_error(assignment, message.offset(), code, &text) {
                        failures.push((message.partition(), lost));
                    }
                }
            }
        }
        for partition in touched {
            if let Some(assignment) = assignments.get_mut(partition) {
                self.send(assignment);
            }
        }
        for (partition, lost) in failures {
            if let Some(assignment) = assignments.get_mut(partition) {
                let _ = assignment.channel.send(Arrival::Lost(lost));
                self.finish(assignment);
            }
        }
        drop(assignments);
        self.shared.brokers_answer();
    }

    fn send(&self, assignment: &mut Assignment) {
        let batch = std::mem::take(&mut assignment.batch);
        let (Some(epoch), Some(end)) = (assignment.epoch, batch.end_offset()) else { return };
        assignment.next_offset = end;
        assignment.last_error = None;
        let outlet = assignment.outlet(epoch);
        let high_watermark = self.queue.cached_high_watermark(assignment.slot.partition);
        if !self.shared.deliver(&outlet, batch, high_watermark) {
            debug!(partition = assignment.slot.partition, "nobody takes its records any more");
            self.finish(assignment);
        }
    }

    fn finish(&self, assignment: &mut Assignment) {
        assignment.finished = true;
        if let Err(error) = self.set_paused(assignment.slot.partition, true) {
            debug!(partition = assignment.slot.partition, "could not be paused: {error}");
        }
    }

    /// An error in place of a record. The first kind means that librdkafka cannot go on from the position, or goes on
    /// *behind* what it could not read; the rest it overcomes by itself.
    fn partition_error(
        &self,
        assignment: &mut Assignment,
        offset: i64,
        code: RDKafkaErrorCode,
        text: &str,
    ) -> Option<LogLost> {
        let partition = assignment.slot.partition;
        let topic = &self.shared.topic;
        match code {
            // Such an error has no version, so one from before the seek is not dropped; but it is about another offset.
            RDKafkaErrorCode::AutoOffsetReset if offset < assignment.next_offset => None,
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                assignment.finished = true;
                Some(LogLost(format!("partition {partition} of `{topic}` no longer has offset {offset}: {text}")))
            }
            RDKafkaErrorCode::BadMessage
            | RDKafkaErrorCode::BadCompression
            | RDKafkaErrorCode::NotImplemented
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::MessageSizeTooLarge => {
                assignment.finished = true;
                Some(LogLost(format!("partition {partition} of `{topic}` cannot be read at offset {offset}: {text}")))
            }
            _ => {
                if assignment.last_error.replace(code) != Some(code) {
                    error!(partition, "Kafka cannot be read at the moment, trying on: {code}: {text}");
                }
                self.shared.client_error(code, text);
                None
            }
        }
    }
}

/// Sizes each partition's batch exactly, in a first pass that also brings the messages into the cache.
fn make_room(assignments: &mut Assignments, messages: &Messages<'_>) -> Vec<i32> {
    let mut touched = Vec::new();
    for message in messages.iter() {
        let Some(assignment) = assignments.get_mut(message.partition()) else { continue };
        let (records, bytes) = assignment.expected;
        if records == 0 {
            touched.push(message.partition());
        }
        assignment.expected = (records + 1, bytes + message.size());
    }
    for partition in &touched {
        let Some(assignment) = assignments.get_mut(*partition) else { continue };
        let (records, bytes) = std::mem::take(&mut assignment.expected);
        if assignment.epoch.is_some() && !assignment.finished {
            assignment.batch = LogBatch::with_capacity(records, bytes);
        }
    }
    touched
}

fn copy(assignment: &mut Assignment, message: Message<'_>) {
    let offset = message.offset();
    if offset < assignment.next_offset {
        return;
    }
    assignment.next_offset = offset + 1;
    let headers = message.headers();
    let headers = headers.iter().map(|(name, value)| (name.as_ref(), *value));
    assignment.batch.push(offset, message.timestamp_ms(), message.key(), message.value(), headers);
}
