//! The loop of the thread `kappa-ingest`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use kappa_core::record::LogBatch;
use metrics::{Counter, Gauge, Histogram};
use rdkafka::ClientConfig;
use rdkafka::Offset;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use super::backpressure::{self, Gate, Step};
use super::batch_queue::{BatchQueue, Message, MessageBuffer, Messages, commit_in_background};
use super::broker_queries::one_partition;
use super::group_member::{Assignment, Assignments, GroupMember};
use super::shared::{Arrival, Client, Command, Shared, Slot, WeakClient, lock};
use crate::memory::Reservation;
use crate::ops::metrics::{
    INGEST_BATCHES, INGEST_BYTES, INGEST_HOLDING_BACK, INGEST_PAUSES, INGEST_RECORDS, INGEST_UNDELIVERED,
    STAGE_DURATION,
};
use crate::partition::seams::{Delivery, LogLost};

/// The longest sleep. Everything that matters wakes the thread; this bounds `max.poll.interval.ms`.
const IDLE: Duration = Duration::from_millis(100);
/// How often to look whether records may be taken again; nobody says when memory is given back.
const HELD_BACK: Duration = Duration::from_millis(5);
/// How long librdkafka's main thread may take for a seek, and the pause before the next attempt.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
const SEEK_AGAIN: Duration = Duration::from_millis(5);
/// How many events to serve before looking at the records again.
const EVENTS_AT_ONCE: usize = 1_000;

/// What the thread owns.
pub(super) struct IngestThread {
    client: Arc<Client>,
    queue: Arc<BatchQueueOf>,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    /// Seeks that librdkafka was not ready for.
    seeks: Vec<Seek>,
    gate: Gate,
    metrics: Metrics,
    /// What librdkafka may prefetch.
    _prefetch: Reservation,
}

type BatchQueueOf = BatchQueue<GroupMember>;

struct Seek {
    slot: Arc<Slot>,
    offset: i64,
    epoch: u64,
    answer: oneshot::Sender<Result<(), LogLost>>,
}

struct Metrics {
    records: Counter,
    bytes: Counter,
    batches: Counter,
    pauses: Counter,
    holding_back: Gauge,
    undelivered: Gauge,
    /// Once for each take from the client, whatever it brings.
    fetch: Histogram,
}

impl IngestThread {
    /// Makes the client; it connects when it is polled.
    pub(super) fn new(
        config: &ClientConfig,
        member: GroupMember,
        shared: Arc<Shared>,
        commands: Receiver<Command>,
    ) -> anyhow::Result<Self> {
        let mut client = BaseConsumer::from_config_and_context(config, member)?;
        let waker = Arc::clone(&shared);
        client.set_nonempty_callback(move || waker.wake());
        let client = Arc::new(client);
        let _ = shared.client.set(WeakClient(Arc::downgrade(&client)));
        let prefetch = shared.budget.reserve(shared.limits.prefetch_bytes);
        let waker = Arc::clone(&shared);
        let queue = Arc::new(BatchQueue::new(&client, &shared.topic, Box::new(move || waker.wake()))?);
        let _ = client.context().queue.set(Arc::downgrade(&queue));
        Ok(Self {
            client,
            queue,
            shared,
            commands,
            seeks: Vec::new(),
            gate: Gate::default(),
            metrics: Metrics::new(),
            _prefetch: prefetch,
        })
    }

    /// Runs until the consumer is stopped, then leaves the group.
    pub(super) fn run(mut self) {
        self.shared.set_thread(thread::current());
        if let Err(error) = self.client.subscribe(&[&self.shared.topic]) {
            self.member().fatal(format!("the consumer group could not be joined: {error}"));
        }
        let mut buffer = MessageBuffer::new(self.shared.limits.records_per_batch);
        while !self.shared.stopping.load(Ordering::Acquire) {
            self.shared.status.count_turn();
            self.serve_events();
            self.serve_commands();
            self.end_if_topic_is_gone();
            if self.steer() {
                thread::park_timeout(HELD_BACK);
            } else if self.queue.waiting_records() > 0 {
                let started = Instant::now();
                let messages = self.queue.take(&mut buffer, self.shared.limits.linger);
                self.deliver(&messages);
                self.metrics.fetch.record(started.elapsed());
            } else {
                thread::park_timeout(if self.seeks.is_empty() { IDLE } else { SEEK_AGAIN });
            }
        }
        self.leave_group();
    }

    fn member(&self) -> &GroupMember {
        self.client.context()
    }

    /// Rebalances, commit results, errors, log lines. Polling also tells the group that we are alive.
    fn serve_events(&self) {
        for _ in 0..EVENTS_AT_ONCE {
            // Other errors come to `ClientContext::error` as well. A record would be from before its partition was
            // forwarded, so from before the first seek.
            if let Some(Err(KafkaError::MessageConsumptionFatal(code))) = self.client.poll(Duration::ZERO) {
                let (code, reason) = self.client.client().fatal_error().unwrap_or((code, String::new()));
                self.member().fatal(format!("the Kafka client cannot go on: {code}: {reason}"));
            }
            if self.queue.waiting_events() == 0 {
                break;
            }
        }
    }

    fn serve_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Seek { slot, offset, epoch, answer } => self.seeks.push(Seek { slot, offset, epoch, answer }),
                Command::Commit { slot, offset, answer } => self.commit(&slot, offset, answer),
            }
        }
        for seek in std::mem::take(&mut self.seeks) {
            self.serve_seek(seek);
        }
    }

    /// On this thread, so that an offset is never sent for a partition that was given up in a callback before.
    fn commit(&self, slot: &Arc<Slot>, offset: i64, answer: oneshot::Sender<Result<(), RDKafkaErrorCode>>) {
        let member = self.member();
        if lock(&member.assignments).of_slot(slot).is_none() {
            return; // Dropping `answer` says so.
        }
        member.expect_commit(slot.partition, offset, answer);
        let sent = one_partition(&self.shared.topic, slot.partition, Some(Offset::Offset(offset)))
            .map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
            .and_then(|offsets| commit_in_background(&self.queue, &offsets));
        if let Err(code) = sent {
            member.answer_commit(slot.partition, offset, Err(code));
        }
    }

    /// Moves the partition and lets it go on, or tries again in a moment.
    fn serve_seek(&mut self, seek: Seek) {
        let mut assignments = lock(&self.client.context().assignments);
        let Some(assignment) = assignments.of_slot(&seek.slot) else { return };
        if assignment.finished {
            let reason = format!("partition {} has lost its position already", seek.slot.partition);
            let _ = seek.answer.send(Err(LogLost(reason)));
            return;
        }
        // From here on nothing of an earlier seek is delivered, whether this attempt succeeds or not.
        assignment.epoch = None;
        match move_to(&self.client, &self.queue, &self.shared.topic, seek.slot.partition, seek.offset) {
            Ok(()) => {
                assignment.epoch = Some(seek.epoch);
                assignment.next_offset = seek.offset;
                seek.slot.set_wake_below(0);
                let _ = seek.answer.send(Ok(()));
            }
            Err(error) => {
                debug!(partition = seek.slot.partition, "not ready for a seek: {error}");
                drop(assignments);
                self.seeks.push(seek);
            }
        }
    }

    /// Ends every partition that has not ended yet, so that no record of another topic is taken for one of ours.
    fn end_if_topic_is_gone(&self) {
        let Some(reason) = self.shared.topic_gone.get() else { return };
        let mut assignments = lock(&self.client.context().assignments);
        for assignment in assignments.iter_mut().filter(|assignment| !assignment.finished) {
            let _ = assignment.channel.send(Arrival::Lost(LogLost(reason.clone())));
            self.finish(assignment);
        }
    }

    /// Pauses and resumes partitions; whether to take nothing at all now.
    fn steer(&mut self) -> bool {
        let now_ms = self.shared.now_ms();
        let assignments = lock(&self.client.context().assignments);
        let share = backpressure::partition_share(&self.shared.limits, assignments.count);
        let (mut undelivered, mut held, mut paused) = (0, 0, 0);
        for assignment in assignments.iter().filter(|assignment| !assignment.finished && assignment.epoch.is_some()) {
            let slot = &assignment.slot;
            let backlog = slot.backlog(now_ms);
            let step = backpressure::step(backlog, share);
            if let Some(step) = step
                && let Err(error) = set_paused(&self.client, &self.shared.topic, slot.partition, step == Step::Pause)
            {
                warn!(partition = slot.partition, "could not be paused or resumed: {error}");
                continue;
            }
            match step {
                Some(Step::Pause) => {
                    debug!(partition = slot.partition, "paused: its records are not taken");
                    slot.set_wake_below(backpressure::resume_below(share).max(1));
                    self.metrics.pauses.increment(1);
                }
                Some(Step::Resume) => {
                    debug!(partition = slot.partition, "resumed");
                    slot.set_wake_below(0);
                }
                None => {}
            }
            let is_paused = step.map_or(backlog.paused, |step| step == Step::Pause);
            held += backlog.bytes;
            paused += usize::from(is_paused);
            undelivered += if is_paused { 0 } else { backlog.bytes };
        }
        drop(assignments);
        let hold_back = self.gate.update(undelivered, &self.shared.limits, self.shared.budget.is_exhausted());
        self.metrics.undelivered.set(held as f64);
        self.metrics.holding_back.set(f64::from(u8::from(hold_back)));
        self.shared.status.set_paused_partitions(paused);
        self.shared.status.set_holding_back(hold_back);
        hold_back
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
        self.member().brokers_answer();
    }

    fn send(&self, assignment: &mut Assignment) {
        let batch = std::mem::take(&mut assignment.batch);
        let (Some(epoch), Some(end)) = (assignment.epoch, batch.end_offset()) else { return };
        assignment.next_offset = end;
        assignment.last_error = None;
        let bytes = batch.memory();
        self.metrics.records.increment(batch.len() as u64);
        self.metrics.bytes.increment(bytes as u64);
        self.metrics.batches.increment(1);
        assignment.slot.sent(bytes, self.shared.now_ms());
        let delivery = Delivery {
            high_watermark: self.queue.cached_high_watermark(assignment.slot.partition),
            reservation: self.shared.budget.reserve(bytes),
            batch,
        };
        if assignment.channel.send(Arrival::Records { epoch, delivery }).is_err() {
            debug!(partition = assignment.slot.partition, "nobody takes its records any more");
            self.finish(assignment);
        }
    }

    /// Stops fetching for a partition that nothing will be delivered of any more.
    fn finish(&self, assignment: &mut Assignment) {
        assignment.finished = true;
        if let Err(error) = set_paused(&self.client, &self.shared.topic, assignment.slot.partition, true) {
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
                    error!(
                        topic,
                        partition,
                        offset = assignment.next_offset,
                        "Kafka cannot be read at the moment, trying on: {code}: {text}"
                    );
                }
                self.member().client_error(code, text);
                None
            }
        }
    }

    /// Closes the client: `BaseConsumer::drop` leaves the group and serves the last revoke. It loops until that is done,
    /// so whoever waits for it must not wait for ever.
    fn leave_group(self) {
        let Self { client, queue, shared, commands, .. } = self;
        // Nobody gets an answer any more.
        drop(commands);
        drop(queue);
        let mut client = client;
        loop {
            // Questions to the brokers that are still under way hold the client; each has a timeout.
            match Arc::try_unwrap(client) {
                Ok(client) => return drop(client),
                Err(still_used) => client = still_used,
            }
            client.poll(Duration::ZERO);
            thread::park_timeout(HELD_BACK);
            shared.status.set_holding_back(false);
        }
    }
}

impl Metrics {
    fn new() -> Self {
        Self {
            records: metrics::counter!(INGEST_RECORDS),
            bytes: metrics::counter!(INGEST_BYTES),
            batches: metrics::counter!(INGEST_BATCHES),
            pauses: metrics::counter!(INGEST_PAUSES),
            holding_back: metrics::gauge!(INGEST_HOLDING_BACK),
            undelivered: metrics::gauge!(INGEST_UNDELIVERED),
            fetch: metrics::histogram!(STAGE_DURATION, "stage" => "fetch"),
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

/// Seeks, then lets the partition be fetched. Forwards again first: the end of an earlier assignment undoes it, on
/// librdkafka's own thread.
fn move_to(client: &Client, queue: &BatchQueueOf, topic: &str, partition: i32, offset: i64) -> KafkaResult<()> {
    queue.forward(partition);
    let target = one_partition(topic, partition, Some(Offset::Offset(offset)))?;
    for element in client.seek_partitions(target, SEEK_TIMEOUT)?.elements() {
        element.error()?;
    }
    set_paused(client, topic, partition, false)
}

fn set_paused(client: &Client, topic: &str, partition: i32, paused: bool) -> KafkaResult<()> {
    let partitions = one_partition(topic, partition, None)?;
    if paused { client.pause(&partitions) } else { client.resume(&partitions) }
}
