//! What the ingest thread, the client's callbacks and the partitions' workers share.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use kappa_core::record::LogBatch;
use metrics::{Counter, Histogram};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, oneshot};
use tracing::{debug, error, info, warn};

use super::IngestLimits;
use super::backpressure::Backlog;
use super::group_member::GroupMember;
use crate::config::{KafkaConfig, StartPolicy};
use crate::memory::MemoryBudget;
use crate::ops::metrics::{INGEST_BATCHES, INGEST_BYTES, INGEST_RECORDS, STAGE_DURATION};
use crate::partition::seams::{Delivery, LogLost};

/// The client.
pub(super) type Client = BaseConsumer<GroupMember>;

/// What a partition's worker asks of the ingest thread. An answer that is dropped means: no longer assigned.
#[derive(Debug)]
pub(super) enum Command {
    /// Go on at `offset`; what is delivered from then on carries `epoch`.
    Seek { slot: Arc<Slot>, offset: i64, epoch: u64, answer: oneshot::Sender<Result<(), LogLost>> },
    /// Commit `offset`.
    Commit { slot: Arc<Slot>, offset: i64, answer: oneshot::Sender<Result<(), RDKafkaErrorCode>> },
}

/// What arrives in a partition's channel.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Records, and the seek that they belong to.
    Records { epoch: u64, delivery: Delivery },
    /// The log has lost the position.
    Lost(LogLost),
}

/// One assignment of one partition. Assigned again, the partition gets a new one.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) partition: i32,
    /// Cleared on revoke, before anybody hears of it.
    assigned: AtomicBool,
    /// Bytes in the channel.
    undelivered: AtomicUsize,
    /// When something was last taken out of the channel, or put into the empty one: [`Shared::now_ms`].
    moved_at_ms: AtomicU64,
    /// When paused: at how many undelivered bytes to wake the thread. Otherwise zero.
    wake_below: AtomicUsize,
    /// The newest stretch of offsets that holds no records: its first, and the one behind its last.
    without_records: Mutex<Option<(i64, i64)>>,
}

/// Where the records go that are fetched after one seek of one assignment.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    pub(super) slot: Arc<Slot>,
    pub(super) channel: UnboundedSender<Arrival>,
    pub(super) epoch: u64,
}

/// Questions to the brokers under way at once.
const QUESTIONS_AT_ONCE: usize = 16;

/// What all parts of one consumer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) topic: String,
    /// As configured, and when librdkafka was last told.
    pub(super) brokers: CString,
    pub(super) brokers_named_at: Mutex<Instant>,
    pub(super) start: StartPolicy,
    pub(super) limits: IngestLimits,
    pub(super) budget: Arc<MemoryBudget>,
    /// Runs blocking questions to the brokers.
    pub(super) runtime: Handle,
    /// One for each question that may be under way: each takes a thread, and partitions come many at a time.
    pub(super) questions: Semaphore,
    pub(super) status: Arc<IngestStatus>,
    pub(super) stopping: AtomicBool,
    /// Why nothing may be delivered any more.
    pub(super) topic_gone: OnceLock<String>,
    /// Weak: the ingest thread alone decides when the client is closed.
    pub(super) client: OnceLock<WeakClient>,
    thread: OnceLock<Thread>,
    commands: Sender<Command>,
    clock: Instant,
    /// The topic's identity as last asked for, and when.
    pub(super) topic_id: Mutex<Option<(Instant, Option<String>)>>,
    delivered: Delivered,
}

/// Counts what is delivered.
#[derive(Debug)]
struct Delivered {
    records: Counter,
    bytes: Counter,
    batches: Counter,
    /// How long what came at once took on its way to the partitions.
    taking: Histogram,
}

/// [`BaseConsumer`] has no `Debug`.
pub(super) struct WeakClient(pub(super) Weak<Client>);

/// What the client is doing.
#[derive(Debug, Default)]
pub struct IngestStatus {
    problem: Mutex<Option<String>>,
    holding_back: AtomicBool,
    paused_partitions: AtomicUsize,
    /// Turns of the consumer loop.
    turns: AtomicU64,
}

impl IngestStatus {
    /// How often the consumer loop has come round: it stands still only if the loop hangs.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    pub(super) fn count_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// What is wrong between this client and the brokers, as far as it knows.
    pub fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }

    /// Whether records are left in Kafka because memory is short or the workers are behind.
    pub fn is_holding_back(&self) -> bool {
        self.holding_back.load(Ordering::Relaxed)
    }

    /// How many partitions are paused because they take nothing.
    pub fn paused_partitions(&self) -> usize {
        self.paused_partitions.load(Ordering::Relaxed)
    }

    /// Sets or clears the problem; whether that is news.
    pub(super) fn set_problem(&self, problem: Option<&str>) -> bool {
        let mut current = lock(&self.problem);
        let news = current.as_deref() != problem;
        if news {
            *current = problem.map(str::to_owned);
        }
        news
    }

    pub(super) fn set_holding_back(&self, holding_back: bool) {
        self.holding_back.store(holding_back, Ordering::Relaxed);
    }

    pub(super) fn set_paused_partitions(&self, paused: usize) {
        self.paused_partitions.store(paused, Ordering::Relaxed);
    }
}

impl Slot {
    pub(super) fn new(partition: i32) -> Self {
        Self {
            partition,
            assigned: AtomicBool::new(true),
            undelivered: AtomicUsize::new(0),
            moved_at_ms: AtomicU64::new(0),
            wake_below: AtomicUsize::new(0),
            without_records: Mutex::default(),
        }
    }

    pub(super) fn is_assigned(&self) -> bool {
        self.assigned.load(Ordering::Acquire)
    }

    pub(super) fn revoke(&self) {
        self.assigned.store(false, Ordering::Release);
    }

    /// Counts a batch that goes into the channel.
    pub(super) fn sent(&self, bytes: usize, now_ms: u64) {
        if self.undelivered.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.moved_at_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Counts a batch that came out of the channel; whether the thread waits for that.
    pub(super) fn taken(&self, bytes: usize, now_ms: u64) -> bool {
        let left = self.undelivered.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        self.moved_at_ms.store(now_ms, Ordering::Relaxed);
        let wake_below = self.wake_below.load(Ordering::Relaxed);
        wake_below > 0 && left <= wake_below
    }

    pub(super) fn backlog(&self, now_ms: u64) -> Backlog {
        let bytes = self.undelivered.load(Ordering::Relaxed);
        let stalled_ms = if bytes == 0 { 0 } else { now_ms.saturating_sub(self.moved_at_ms.load(Ordering::Relaxed)) };
        let paused = self.wake_below.load(Ordering::Relaxed) > 0;
        Backlog { bytes, stalled_for: Duration::from_millis(stalled_ms), paused }
    }

    /// Notes that the log was read from `after`, where the last record ends, to `end`, and that nothing is there but
    /// markers of transactions.
    pub(super) fn note_without_records(&self, after: i64, end: i64) {
        if after >= end {
            return;
        }
        let mut noted = lock(&self.without_records);
        let from = noted.filter(|(_, noted_end)| *noted_end == after).map_or(after, |(from, _)| from);
        *noted = Some((from, end));
    }

    pub(super) fn without_records(&self) -> Option<(i64, i64)> {
        *lock(&self.without_records)
    }

    /// Notes a pause, and below how many bytes it ends; zero: no longer paused.
    pub(super) fn set_wake_below(&self, bytes: usize) {
        self.wake_below.store(bytes, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn new(
        config: &KafkaConfig,
        limits: IngestLimits,
        budget: Arc<MemoryBudget>,
        runtime: Handle,
        commands: Sender<Command>,
    ) -> Self {
        Self {
            topic: config.topic.clone(),
            // A name with a zero byte in it reaches nobody anyway.
            brokers: CString::new(config.bootstrap_servers()).unwrap_or_default(),
            brokers_named_at: Mutex::new(Instant::now()),
            start: config.start,
            limits,
            budget,
            runtime,
            questions: Semaphore::new(QUESTIONS_AT_ONCE),
            status: Arc::default(),
            stopping: AtomicBool::new(false),
            topic_gone: OnceLock::new(),
            client: OnceLock::new(),
            thread: OnceLock::new(),
            commands,
            clock: Instant::now(),
            topic_id: Mutex::new(None),
            delivered: Delivered {
                records: metrics::counter!(INGEST_RECORDS),
                bytes: metrics::counter!(INGEST_BYTES),
                batches: metrics::counter!(INGEST_BATCHES),
                taking: metrics::histogram!(STAGE_DURATION, "stage" => "fetch"),
            },
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Sends records to a partition's worker; whether there is one.
    pub(super) fn deliver(&self, outlet: &Outlet, batch: LogBatch, high_watermark: Option<i64>) -> bool {
        let bytes = batch.memory();
        self.delivered.records.increment(batch.len() as u64);
        self.delivered.bytes.increment(bytes as u64);
        self.delivered.batches.increment(1);
        outlet.slot.sent(bytes, self.now_ms());
        let delivery = Delivery { high_watermark, reservation: self.budget.reserve(bytes), batch };
        outlet.channel.send(Arrival::Records { epoch: outlet.epoch, delivery }).is_ok()
    }

    /// Notes that all that came at once is delivered.
    pub(super) fn taken_since(&self, started: Instant) {
        self.delivered.taking.record(started.elapsed());
    }

    /// An error that the client reports, by itself or on its event queue; most of them it keeps trying to overcome.
    pub(super) fn client_error(&self, code: RDKafkaErrorCode, text: &str) {
        match code {
            // The text counts the brokers known so far, and so is new each time.
            RDKafkaErrorCode::AllBrokersDown => self.problem(&code.to_string()),
            RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed => self.problem(&format!("{code}: {text}")),
            RDKafkaErrorCode::PollExceeded => warn!("the group took our partitions away: {text}"),
            _ => debug!("Kafka client: {code}: {text}"),
        }
    }

    fn problem(&self, problem: &str) {
        if self.status.set_problem(Some(problem)) {
            error!("Kafka cannot be used at the moment, trying on: {problem}");
        }
    }

    /// Notes that brokers answer.
    pub(super) fn brokers_answer(&self) {
        if self.status.set_problem(None) {
            info!("Kafka can be used again");
        }
    }

    /// Milliseconds since the consumer was made.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.elapsed().as_millis() as u64
    }

    /// The client, unless it is being closed.
    pub(super) fn client(&self) -> Option<Arc<Client>> {
        self.client.get()?.0.upgrade()
    }

    pub(super) fn set_thread(&self, thread: Thread) {
        let _ = self.thread.set(thread);
    }

    /// Wakes the ingest thread.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Asks the ingest thread for something. When it is gone, the answer is dropped.
    pub(super) fn send(&self, command: Command) {
        let _ = self.commands.send(command);
        self.wake();
    }
}

impl Outlet {
    /// Says that the log has lost the position.
    pub(super) fn lose(&self, lost: LogLost) {
        let _ = self.channel.send(Arrival::Lost(lost));
    }
}

impl std::fmt::Debug for WeakClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("WeakClient")
    }
}

/// Locks; a panic elsewhere does not make the plain data behind our locks unusable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
