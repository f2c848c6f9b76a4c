//! Records from Kafka: a consumer group member that hands out each assigned partition as a [`PartitionLog`].
//!
//! One thread, `kappa-ingest`, owns the librdkafka client and serves the group's events. Records come by one of two
//! fetchers. The *native* one reads record batches from the brokers' answers into each partition's [`LogBatch`], on threads
//! of its own; the partitions of the client then stay paused. *librdkafka* as the fetcher fills one queue that all
//! partitions are forwarded to; `kappa-ingest` drains it and copies each message. Either sends its batches through the
//! partition's channel. What the partition's worker asks of the client (seek, commit) goes the other way, through a command
//! channel; what only asks the brokers (committed offset, watermarks) runs on blocking threads.
//!
//! | file | what |
//! |---|---|
//! | [`properties`] | the librdkafka properties, and which of them are not the user's to set |
//! | [`ingest_thread`] | the loop: events, commands, backpressure |
//! | [`group_member`] | the client's callbacks: assign, revoke, commit results, errors |
//! | [`backpressure`] | when to stop taking, and which partition to pause |
//! | [`fetcher`] | which of the two fetches |
//! | [`native_fetcher`] | from the brokers' answers to the workers |
//! | [`librdkafka_fetcher`] | from librdkafka's queue to the workers |
//! | [`partition_log`] | the worker's side of one partition |
//! | [`broker_queries`] | questions to the brokers, with waiting and retries |
//! | [`batch_queue`] | the calls that need `unsafe` |
//!
//! # How a partition starts
//! The rebalance callback may not block, and the worker first has to find its snapshot. So the callback forwards the
//! partition's queue, *pauses the partition, then assigns it*, and fetching begins with the worker's first
//! [`PartitionLog::seek`]. A seek is a version barrier inside either fetcher (what was fetched before it is dropped), and
//! a new epoch here (batches made before it are dropped when they are received).
//!
//! # A topic that is deleted, or deleted and created again
//! Every few seconds the topic's id is compared with the first one seen. When the topic is gone, or is another one of the
//! same name, every partition ends with [`LogLost`], and [`AssignmentEvent::Fatal`] says why.
//!
//! # What cannot get lost or come twice
//! With librdkafka as the fetcher, pausing drops what was prefetched and goes on at the position of what the application took
//! (`rd_kafka_toppar_pause_resume`). Pauses by us happen on the thread that takes, so that position is exact. librdkafka
//! pauses partitions by itself around rebalances, on its own thread; a race can then deliver a record twice, never skip
//! one. So the thread drops what lies below a partition's next offset.
//!
//! [`PartitionLog`]: crate::partition::seams::PartitionLog
//! [`PartitionLog::seek`]: crate::partition::seams::PartitionLog::seek
//! [`LogLost`]: crate::partition::seams::LogLost
//! [`LogBatch`]: kappa_core::record::LogBatch

mod backpressure;
mod batch_queue;
mod broker_queries;
mod fetcher;
mod group_member;
mod ingest_thread;
mod librdkafka_fetcher;
mod native_fetcher;
mod partition_log;
mod properties;
mod shared;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

pub(crate) use native_fetcher::unsupported_by_native_fetcher;
pub use partition_log::{KafkaGroup, KafkaPartitionLog};
pub use shared::IngestStatus;

use crate::config::KafkaConfig;
use crate::memory::MemoryBudget;
use group_member::GroupMember;
use ingest_thread::IngestThread;
use shared::Shared;

/// How long [`Consumer::stop`] waits for the group to be left.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// What the group says about this member's partitions.
#[derive(Debug)]
pub enum AssignmentEvent {
    /// A partition is ours. Nothing is fetched until its first seek.
    Assigned(KafkaPartitionLog),
    /// The group has answered, and has no partition for this member beyond those that it has.
    NothingAssigned,
    /// A partition is no longer ours; its log delivers and commits nothing any more.
    Revoked {
        /// The partition.
        partition: i32,
    },
    /// The member cannot go on, and why: the topic is gone, or the group fenced this client for good.
    Fatal(String),
}

/// How much may be on its way between Kafka and the workers.
#[derive(Debug, Clone)]
pub struct IngestLimits {
    /// Bytes that all workers together have not taken yet, beyond which nothing more is taken from librdkafka.
    pub undelivered_bytes: usize,
    /// The most that one partition may have of it before it is paused (less with many partitions).
    pub partition_undelivered_bytes: usize,
    /// What librdkafka may prefetch as the fetcher; then held from the memory budget throughout. The native fetcher's
    /// answers have half of it at most, as long as batches are no larger.
    pub prefetch_bytes: usize,
    /// Most records of one batch: as many as stay in a core's cache between being taken and being copied.
    pub records_per_batch: usize,
    /// How long to wait for a batch to become full once its first record is there. Adds to the latency of each record.
    pub linger: Duration,
}

impl IngestLimits {
    /// For a process with a gigabyte or more.
    pub const DEFAULT: Self = Self {
        undelivered_bytes: 16 << 20,
        partition_undelivered_bytes: 8 << 20,
        prefetch_bytes: 16 << 20,
        records_per_batch: 2_000,
        linger: Duration::from_millis(5),
    };

    /// The limits for a process that may use `memory` bytes.
    pub fn for_memory(memory: usize) -> Self {
        let share = (memory / 64).clamp(1 << 20, 16 << 20);
        Self {
            undelivered_bytes: share,
            partition_undelivered_bytes: (share / 2).clamp(512 << 10, 8 << 20),
            prefetch_bytes: share,
            ..Self::DEFAULT
        }
    }
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A running member of the consumer group.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread is done; joining alone has no time limit.
    done: Receiver<()>,
    /// See [`watch_topic`].
    watch: tokio::task::JoinHandle<()>,
}

impl Consumer {
    /// Joins the group. Does not wait for brokers: they may come up later.
    ///
    /// # Errors
    /// Properties that librdkafka refuses, or that are not the user's to set. Outside of a tokio runtime.
    pub fn start(
        config: &KafkaConfig,
        limits: IngestLimits,
        budget: Arc<MemoryBudget>,
        events: UnboundedSender<AssignmentEvent>,
    ) -> anyhow::Result<Self> {
        let runtime = Handle::try_current().context("the consumer must be started within a tokio runtime")?;
        let (commands, received_commands) = mpsc::channel();
        let shared = Arc::new(Shared::new(config, limits, budget, runtime, commands));
        let member = GroupMember::new(Arc::clone(&shared), events.clone());
        let thread = IngestThread::new(config, member, Arc::clone(&shared), received_commands)?;
        let (done_sender, done) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("kappa-ingest".to_owned())
            .spawn(move || {
                thread.run();
                drop(done_sender);
            })
            .context("cannot start the ingest thread")?;
        let watch = tokio::spawn(watch_topic(Arc::clone(&shared), events));
        Ok(Self { shared, thread: Some(thread), done, watch })
    }

    /// What the client is doing, for `/status`.
    pub fn status(&self) -> Arc<IngestStatus> {
        Arc::clone(&self.shared.status)
    }

    /// Leaves the group, so that others take over at once. Call it when the partitions are sealed and committed.
    ///
    /// Blocks for [`LEAVE_WITHIN`] at most: without a coordinator the group cannot be left, and `BaseConsumer::drop` would
    /// loop until it is. The thread is then left behind; the process is about to end.
    pub fn stop(mut self) {
        self.ask_to_stop();
        if self.done.recv_timeout(LEAVE_WITHIN) == Err(RecvTimeoutError::Timeout) {
            warn!("the consumer group could not be left within {LEAVE_WITHIN:?}; it will notice by itself");
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the ingest thread panicked");
        }
    }

    fn ask_to_stop(&self) {
        self.watch.abort();
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

/// Waits until the topic is gone, or is another one of the same name; then everything ends.
async fn watch_topic(shared: Arc<Shared>, events: UnboundedSender<AssignmentEvent>) {
    let reason = broker_queries::topic_gone(&shared).await;
    shared.status.set_problem(Some(&reason));
    let _ = shared.topic_gone.set(reason.clone());
    shared.wake();
    let _ = events.send(AssignmentEvent::Fatal(reason));
}
