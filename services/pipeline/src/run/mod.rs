//! The composition: everything that `kappa run` starts, connects and stops.
//!
//! Ingest hands out assigned partitions; each goes to a worker thread, which runs it through
//! [`crate::partition::run_partition`] until it is revoked or the process stops. Object stores, registry, ClickHouse
//! and HTTP live on the surrounding tokio runtime; decoding and counting on the workers; Parquet on the encoder lanes.

mod settings;
mod workers;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kappa_core::contract::rules::{ContractRules, Severity};
use tokio::sync::{mpsc, watch};

pub use settings::partition_settings;

use crate::archive::{EncoderLane, SegmentFormat};
use crate::config::Config;
use crate::hot_store::ClickHouseStore;
use crate::ingest::{AssignmentEvent, Consumer, IngestLimits, IngestStatus, KafkaPartitionLog};
use crate::memory::MemoryBudget;
use crate::ops::Dependency;
use crate::ops::http::HttpServer;
use crate::ops::metrics::{CHECKPOINT_INTERVAL, Metrics, STORE_PROBE};
use crate::ops::object_stores;
use crate::ops::probe;
use crate::ops::status::StatusBoard;
use crate::ops::totals::ViolationAction;
use crate::partition::{Pacing, SegmentSizes, Stores};
use crate::registry::RegistryClient;
use workers::{Shared, Workers};

/// Behind the head by more than this, provisional rows are skipped.
const CATCHING_UP_AFTER: Duration = Duration::from_secs(10);

/// How often the board is told what no partition tells.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// A pipeline that is ready to run.
#[derive(Debug)]
pub struct Application {
    config: Config,
    http: HttpServer,
    board: Arc<StatusBoard>,
    budget: Arc<MemoryBudget>,
    stores: Stores,
    workers: Workers,
}

impl Application {
    /// Opens the stores, binds the HTTP port (port 0 takes a free one), and starts the workers. Nothing outside is asked
    /// yet.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let settings = Arc::new(partition_settings(&config)?);
        let board = StatusBoard::for_group(&config.kafka.topic, &config.kafka.group);
        announce_contract(&settings.contract, &board);
        let http = HttpServer::bind(&config.http, Arc::clone(&board), Metrics::shared()?).await?;
        let stores = object_stores::open_all(&config)?;
        let registry = RegistryClient::new(&config.registry)?.with_board(Arc::clone(&board));
        let hot_store =
            ClickHouseStore::start(&config.hot_store, &config.event, &config.kafka.topic, Arc::clone(&board))?;
        let budget = MemoryBudget::new(config.limits.memory as usize);
        let indexed = [config.event.key.as_slice(), std::slice::from_ref(&config.event.time)].concat();
        let format = SegmentFormat::new(Arc::clone(&settings.archive_schema), &indexed);
        let shared = Shared {
            format: Arc::new(format),
            settings,
            stores: stores.clone(),
            registry: Arc::new(registry),
            hot_store,
            pacing: pacing(&config),
            budget: Arc::clone(&budget),
            sizes: Arc::new(SegmentSizes::default()),
            board: Arc::clone(&board),
        };
        metrics::gauge!(CHECKPOINT_INTERVAL).set(config.checkpoint.interval.as_secs_f64());
        let workers = Workers::start(&shared, config.pipeline.workers, &lanes(config.pipeline.workers)?)?;
        Ok(Self { config, http, board, budget, stores, workers })
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// What the pipeline is doing.
    pub fn status(&self) -> Arc<StatusBoard> {
        Arc::clone(&self.board)
    }

    /// Waits for the object stores, joins the consumer group, and runs until `stop`; then seals and commits what was
    /// taken in, leaves the group and returns. Kafka, the registry and ClickHouse may be away all the while.
    ///
    /// # Errors
    /// If an object store cannot be used whatever one waits for (it does not create atomically, it denies access), if the
    /// consumer cannot go on, or if not everything could be sealed within `pipeline.shutdown_timeout`: what was not is
    /// replayed by the next start.
    pub async fn run_until_stopped(self, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let Self { config, http, board, budget, stores, workers } = self;
        let (http_stop, http_stopped) = watch::channel(false);
        let http = tokio::spawn(http.serve(until_true(http_stopped)));
        tokio::pin!(stop);
        let usable = tokio::select! {
            () = &mut stop => Ok(false),
            usable = wait_until_usable(&stores, &board) => usable.map(|()| true),
        };
        let outcome = match usable {
            Ok(true) => consume(config, board, budget, workers, stop).await,
            // Nothing was taken in yet, so there is nothing to seal.
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        http_stop.send_replace(true);
        if let Ok(Err(error)) = http.await {
            tracing::warn!("the HTTP server failed: {error:#}");
        }
        outcome
    }
}

/// Counters that are there before their first event: Prometheus would not see it otherwise.
fn announce_contract(contract: &ContractRules, board: &StatusBoard) {
    for rule in contract.rules() {
        let action = match rule.severity {
            Severity::Error => ViolationAction::Rejected,
            Severity::Warning => ViolationAction::Warned,
        };
        board.totals().add_violations(&rule.name, action, 0);
    }
    let contract = contract.label().unwrap_or("none: see contract.file");
    tracing::info!(contract, "the data contract whose rules judge the records");
}

/// Every start asks again whether the stores create atomically: everything rests on it.
async fn wait_until_usable(stores: &Stores, board: &StatusBoard) -> anyhow::Result<()> {
    let named = [
        ("archive", "archive.url", &stores.archive),
        ("dead_letter", "dead_letter.url", &stores.dead_letters),
        ("state", "state.url", &stores.state),
    ];
    let probed = named.map(|(store, key, root)| (metrics::gauge!(STORE_PROBE, "store" => store), key, root));
    for (gauge, key, root) in &probed {
        gauge.set(0.0);
        probe::wait_until_usable(key, root, board).await?;
        gauge.set(1.0);
    }
    Ok(())
}

/// From joining the group to leaving it.
async fn consume(
    config: Config,
    board: Arc<StatusBoard>,
    budget: Arc<MemoryBudget>,
    workers: Workers,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> anyhow::Result<()> {
    let limits = IngestLimits::for_memory(config.limits.memory as usize);
    let (events, mut assignments) = mpsc::unbounded_channel();
    let consumer = Consumer::start(&config.kafka, limits, Arc::clone(&budget), events)?;
    let housekeeping = tokio::spawn(keep_house(Arc::clone(&board), budget, consumer.status()));
    let failure = loop {
        tokio::select! {
            () = &mut stop => break None,
            event = assignments.recv() => match event {
                Some(AssignmentEvent::Assigned(log)) => workers.assign(log),
                Some(AssignmentEvent::NothingAssigned) => board.set_assigned(),
                Some(AssignmentEvent::Revoked { partition }) => workers.revoke(partition),
                Some(AssignmentEvent::Fatal(error)) => break Some(anyhow::anyhow!(error)),
                None => break Some(anyhow::anyhow!("the consumer has ended")),
            },
        }
    };
    tracing::info!("stopping: sealing what was taken in");
    board.set_stopping();
    let sealed = workers.seal_and_stop(config.pipeline.shutdown_timeout).await;
    tokio::task::spawn_blocking(move || consumer.stop()).await.context("leaving the consumer group")?;
    housekeeping.abort();
    failure.map_or(sealed, Err)
}

fn pacing(config: &Config) -> Pacing {
    Pacing {
        emit_interval: config.hot_store.emit_interval,
        checkpoint_interval: config.checkpoint.interval,
        max_segment_bytes: config.checkpoint.max_bytes as usize,
        catching_up_after: CATCHING_UP_AFTER,
    }
}

/// As many encoder threads as workers: encoding costs about as much as everything else together.
fn lanes(workers: usize) -> anyhow::Result<Vec<EncoderLane>> {
    let lanes = (0..workers.max(1)).map(EncoderLane::start).collect::<Result<_, _>>();
    lanes.context("cannot start the encoder threads")
}

async fn until_true(mut signal: watch::Receiver<bool>) {
    // A dropped sender means the same: stop.
    _ = signal.wait_for(|stop| *stop).await;
}

async fn keep_house(board: Arc<StatusBoard>, budget: Arc<MemoryBudget>, ingest: Arc<IngestStatus>) {
    let mut turns = 0;
    loop {
        if ingest.turns() != turns {
            turns = ingest.turns();
            board.beat();
        }
        board.set_memory(budget.used() as u64, budget.limit() as u64);
        board.set_memory_exhausted(budget.is_exhausted());
        match ingest.problem() {
            Some(problem) => board.dependency_failing(Dependency::Kafka, problem),
            None => board.dependency_ok(Dependency::Kafka),
        }
        tokio::time::sleep(HOUSEKEEPING).await;
    }
}

/// What a worker is handed for a partition.
type Assigned = KafkaPartitionLog;
