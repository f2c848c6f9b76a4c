//! What the ingest thread, the client's callbacks and the partitions' workers share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::IngestLimits;
use super::backpressure::Backlog;
use super::group_member::GroupMember;
use crate::config::{KafkaConfig, StartPolicy};
use crate::memory::MemoryBudget;
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
}

/// What all parts of one consumer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) topic: String,
    pub(super) start: StartPolicy,
    pub(super) limits: IngestLimits,
    pub(super) budget: Arc<MemoryBudget>,
    /// Runs blocking questions to the brokers.
    pub(super) runtime: Handle,
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
            start: config.start,
            limits,
            budget,
            runtime,
            status: Arc::default(),
            stopping: AtomicBool::new(false),
            topic_gone: OnceLock::new(),
            client: OnceLock::new(),
            thread: OnceLock::new(),
            commands,
            clock: Instant::now(),
            topic_id: Mutex::new(None),
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

impl std::fmt::Debug for WeakClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("WeakClient")
    }
}

/// Locks; a panic elsewhere does not make the plain data behind our locks unusable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
