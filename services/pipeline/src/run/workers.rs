//! Worker threads: each runs some of the partitions, on a single-threaded runtime of its own.
//!
//! A partition's work is long stretches of computing between short waits, so partitions of one thread take turns at
//! each batch, and nothing of it is ever moved between threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use kappa_core::decode::SchemaReference;
use kappa_core::partition::PartitionSettings;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet, LocalSet};

use super::Assigned;
use crate::archive::{EncoderLane, SegmentFormat};
use crate::clock::SystemClock;
use crate::hot_store::ClickHouseStore;
use crate::memory::MemoryBudget;
use crate::ops::status::StatusBoard;
use crate::partition::seams::SchemaSource;
use crate::partition::{Observer, Pacing, PartitionContext, PartitionEnd, SegmentSizes, Stores, run_partition};
use crate::registry::{RegistryClient, SchemaVerdict};

/// What all partitions share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) settings: Arc<PartitionSettings>,
    pub(super) format: Arc<SegmentFormat>,
    pub(super) stores: Stores,
    pub(super) registry: Arc<RegistryClient>,
    pub(super) hot_store: ClickHouseStore,
    pub(super) pacing: Pacing,
    pub(super) budget: Arc<MemoryBudget>,
    pub(super) sizes: Arc<SegmentSizes>,
    pub(super) board: Arc<StatusBoard>,
}

/// The worker threads.
#[derive(Debug)]
pub(super) struct Workers {
    topic: String,
    threads: Vec<mpsc::UnboundedSender<Order>>,
    stop: watch::Sender<bool>,
    /// Partitions that ended in another way than asked: their number and why.
    failures: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug)]
enum Order {
    Start(Box<Assigned>),
    Drop(i32),
}

impl Workers {
    pub(super) fn start(shared: &Shared, count: usize, lanes: &[EncoderLane]) -> anyhow::Result<Self> {
        let stop = watch::Sender::new(false);
        let failures = Arc::default();
        let mut threads = Vec::new();
        for number in 0..count.max(1) {
            let (orders, received) = mpsc::unbounded_channel();
            let worker = WorkerThread {
                shared: shared.clone(),
                lane: lanes[number % lanes.len()].clone(),
                stop: stop.subscribe(),
                failures: Arc::clone(&failures),
                running: HashMap::new(),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new()
                .name(format!("kappa-worker-{number}"))
                .spawn(move || LocalSet::new().block_on(&runtime, worker.run(received)))
                .context("cannot start a worker thread")?;
            threads.push(orders);
        }
        Ok(Self { topic: shared.settings.topic.clone(), threads, stop, failures })
    }

    pub(super) fn assign(&self, log: Assigned) {
        tracing::info!(topic = self.topic, partition = log.partition(), "partition assigned");
        self.send(log.partition(), Order::Start(Box::new(log)));
    }

    pub(super) fn revoke(&self, partition: i32) {
        tracing::info!(topic = self.topic, partition, "partition revoked");
        self.send(partition, Order::Drop(partition));
    }

    fn send(&self, partition: i32, order: Order) {
        let thread = &self.threads[partition.unsigned_abs() as usize % self.threads.len()];
        if thread.send(order).is_err() {
            tracing::error!(partition, "the worker thread is gone");
        }
    }

    /// Asks all partitions to seal and commit what they have taken in, and waits for it.
    pub(super) async fn seal_and_stop(self, timeout: Duration) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        // A thread closes its end when its last partition is through.
        let all_done = futures::future::join_all(self.threads.iter().map(mpsc::UnboundedSender::closed));
        if tokio::time::timeout(timeout, all_done).await.is_err() {
            anyhow::bail!(
                "not everything could be sealed within pipeline.shutdown_timeout ({timeout:?}); nothing is lost, the \
                 next start replays it"
            );
        }
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.is_empty() {
            return Ok(());
        }
        anyhow::bail!("partitions have stopped and need a person: {}", failures.join("; "))
    }
}

struct WorkerThread {
    shared: Shared,
    lane: EncoderLane,
    stop: watch::Receiver<bool>,
    failures: Arc<Mutex<Vec<String>>>,
    running: HashMap<i32, (AbortHandle, Observer)>,
}

impl WorkerThread {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut partitions = JoinSet::new();
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                ended = partitions.join_next(), if !partitions.is_empty() => self.on_end(ended),
                order = orders.recv() => match order {
                    Some(Order::Start(log)) => self.start(*log, &mut partitions),
                    Some(Order::Drop(partition)) => self.drop_partition(partition),
                    None => return,
                },
                _ = stop.wait_for(|stop| *stop), if partitions.is_empty() => return,
            }
        }
    }

    fn start(&mut self, log: Assigned, partitions: &mut JoinSet<(i32, PartitionEnd)>) {
        let partition = log.partition();
        self.drop_partition(partition);
        let shared = &self.shared;
        let observer = Observer::new(&shared.board, partition);
        let context = PartitionContext {
            partition,
            settings: Arc::clone(&shared.settings),
            format: Arc::clone(&shared.format),
            lane: self.lane.clone(),
            stores: shared.stores.clone(),
            registry: Registry(Arc::clone(&shared.registry)),
            hot_store: shared.hot_store.for_partition(partition),
            clock: SystemClock,
            pacing: shared.pacing.clone(),
            budget: Arc::clone(&shared.budget),
            sizes: Arc::clone(&shared.sizes),
            observer: observer.clone(),
        };
        let stop = self.stop.clone();
        let running = async move { (partition, run_partition(Arc::new(context), log, stop).await) };
        self.running.insert(partition, (partitions.spawn_local(running), observer));
    }

    fn drop_partition(&mut self, partition: i32) {
        let Some((task, observer)) = self.running.remove(&partition) else { return };
        task.abort();
        observer.remove(partition);
        self.shared.sizes.forget(partition);
    }

    fn on_end(&mut self, ended: Option<Result<(i32, PartitionEnd), tokio::task::JoinError>>) {
        match ended {
            Some(Ok((partition, PartitionEnd::Stopped(stopped)))) => {
                let offset = self.running.get(&partition).and_then(|(_, observer)| observer.position());
                let topic = &self.shared.settings.topic;
                tracing::error!(topic, partition, offset, "partition stopped, it needs a person: {stopped}");
                self.fail(format!("partition {partition}: {stopped}"));
            }
            Some(Ok((partition, end))) => tracing::debug!(partition, ?end, "partition ended"),
            Some(Err(error)) if error.is_panic() => {
                tracing::error!("a partition's worker panicked: {error}");
                self.fail(format!("a worker panicked: {error}"));
            }
            Some(Err(_)) | None => {}
        }
    }

    fn fail(&self, why: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }
}

/// The registry client as the protocol sees it.
#[derive(Debug)]
struct Registry(Arc<RegistryClient>);

impl SchemaSource for Registry {
    async fn schema(&self, reference: SchemaReference) -> SchemaVerdict {
        self.0.schema(reference).await
    }
}
