//! The loop of the thread `kappa-ingest`.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use metrics::{Counter, Gauge};
use rdkafka::Offset;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::backpressure::{self, Gate, Step};
use super::batch_queue::{BatchQueue, MessageBuffer, commit_in_background};
use super::broker_queries::one_partition;
use super::fetcher::Fetcher;
use super::group_member::GroupMember;
use super::properties;
use super::shared::{Arrival, Client, Command, Shared, Slot, WeakClient, lock};
use crate::config::KafkaConfig;
use crate::ops::metrics::{INGEST_HOLDING_BACK, INGEST_PAUSES, INGEST_UNDELIVERED};
use crate::partition::seams::LogLost;

/// The longest sleep. Everything that matters wakes the thread; this bounds `max.poll.interval.ms`.
const IDLE: Duration = Duration::from_millis(100);
/// How often to look whether records may be taken again; nobody says when memory is given back.
const HELD_BACK: Duration = Duration::from_millis(5);
/// The pause before the next attempt of a seek.
const SEEK_AGAIN: Duration = Duration::from_millis(5);
/// How many events to serve before looking at the records again.
const EVENTS_AT_ONCE: usize = 1_000;

/// What the thread owns.
pub(super) struct IngestThread {
    client: Arc<Client>,
    queue: Arc<BatchQueueOf>,
    fetcher: Fetcher,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    /// Seeks that librdkafka was not ready for.
    seeks: Vec<Seek>,
    gate: Gate,
    metrics: Metrics,
}

type BatchQueueOf = BatchQueue<GroupMember>;

struct Seek {
    slot: Arc<Slot>,
    offset: i64,
    epoch: u64,
    answer: oneshot::Sender<Result<(), LogLost>>,
}

struct Metrics {
    pauses: Counter,
    holding_back: Gauge,
    undelivered: Gauge,
}

impl IngestThread {
    /// Makes the client; it connects when it is polled.
    pub(super) fn new(
        config: &KafkaConfig,
        member: GroupMember,
        shared: Arc<Shared>,
        commands: Receiver<Command>,
    ) -> anyhow::Result<Self> {
        let client_config = properties::client_config(config, &shared.limits)?;
        let mut client = BaseConsumer::from_config_and_context(&client_config, member)?;
        let waker = Arc::clone(&shared);
        client.set_nonempty_callback(move || waker.wake());
        let client = Arc::new(client);
        let _ = shared.client.set(WeakClient(Arc::downgrade(&client)));
        let waker = Arc::clone(&shared);
        let queue = Arc::new(BatchQueue::new(&client, &shared.topic, Box::new(move || waker.wake()))?);
        let _ = client.context().queue.set(Arc::downgrade(&queue));
        let fetcher = Fetcher::start(config, &client, &queue, &shared)?;
        Ok(Self {
            client,
            queue,
            fetcher,
            shared,
            commands,
            seeks: Vec::new(),
            gate: Gate::default(),
            metrics: Metrics::new(),
        })
    }

    /// Runs until the consumer is stopped, then leaves the group.
    pub(super) fn run(mut self) {
        self.shared.set_thread(thread::current());
        if let Err(error) = self.client.subscribe(&[&self.shared.topic]) {
            self.member().fatal(format!("the consumer group could not be joined: {error}"));
        }
        let mut buffer = MessageBuffer::new(self.shared.limits.records_per_batch);
        while !self.shared.is_stopping() {
            self.shared.status.count_turn();
            self.serve_events();
            self.serve_commands();
            self.end_if_topic_is_gone();
            if self.steer() {
                thread::park_timeout(HELD_BACK);
            } else if !self.fetcher.take(&mut buffer) {
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
        match self.fetcher.seek(assignment, seek.epoch, seek.offset) {
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
            assignment.finished = true;
            self.fetcher.forget(&assignment.slot);
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
                && let Err(error) = self.fetcher.set_paused(slot.partition, step == Step::Pause)
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

    /// Closes the client: `BaseConsumer::drop` leaves the group and serves the last revoke. It loops until that is done,
    /// so whoever waits for it must not wait for ever.
    fn leave_group(self) {
        let Self { client, queue, fetcher, shared, commands, .. } = self;
        // Nobody gets an answer any more.
        drop(commands);
        drop((fetcher, queue));
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
            pauses: metrics::counter!(INGEST_PAUSES),
            holding_back: metrics::gauge!(INGEST_HOLDING_BACK),
            undelivered: metrics::gauge!(INGEST_UNDELIVERED),
        }
    }
}
