//! One run: a producer, owners that crash, pause, stop and overlap, stores that fail; and at the end the invariants.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kappa_core::anomaly::{ConfiguredDetector, Robust};
use kappa_core::archive::archive_schema;
use kappa_core::contract::rules::ContractRules;
use kappa_core::contract::{EventFields, TimeLimits};
use kappa_core::decode::{DecodeLimits, ReaderSchema};
use kappa_core::partition::{AwaitedAnswers, PartitionSettings};
use kappa_core::windows::WindowSettings;
use kappa_pipeline::archive::{EncoderLane, SegmentFormat};
use kappa_pipeline::memory::MemoryBudget;
use kappa_pipeline::ops::status::StatusBoard;
use kappa_pipeline::partition::seams::WallClock;
use kappa_pipeline::partition::{
    Observer, Pacing, PartitionContext, PartitionEnd, SegmentSizes, StoppedLoudly, Stores, run_partition,
};
use kappa_pipeline::storage::StoreRoot;
use object_store::path::Path;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};

use crate::group_and_log::{Brokers, Start};
use crate::hot_store::{HotTables, SimHotStore};
use crate::invariants::{self, Durable};
use crate::mutation::Mutation;
use crate::object_store::SimStore;
use crate::records;
use crate::registry::{KNOWN_AFTER_MS, SimRegistry};
use crate::world::{Faults, LATEST, World};

pub(crate) const TOPIC: &str = "readings";
pub(crate) const WINDOW_MS: i64 = 5_000;
pub(crate) const LATENESS_MS: i64 = 2_000;

/// How long the last owner may take to finish once all faults are over.
const RECOVERY: Duration = Duration::from_mins(10);

/// The committed one, and the one before it for an owner that is just starting from it.
const KEPT_SNAPSHOTS: usize = 2;

/// What happened in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) records: u64,
    pub(crate) segments: u64,
    pub(crate) rejects: u64,
    pub(crate) crashes: u64,
    pub(crate) graceful_stops: u64,
    pub(crate) zombies: u64,
    pub(crate) pauses: u64,
    /// Segments that somebody else had sealed, gone through again.
    pub(crate) adopted_segments: u64,
    pub(crate) refused_commits: u64,
    pub(crate) store_faults: u64,
    pub(crate) duplicates: u64,
    pub(crate) late_rows: u64,
    /// Readings that came again.
    pub(crate) readings_again: u64,
    pub(crate) anomalies: u64,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, number) in [
            (&mut self.records, other.records),
            (&mut self.segments, other.segments),
            (&mut self.rejects, other.rejects),
            (&mut self.crashes, other.crashes),
            (&mut self.graceful_stops, other.graceful_stops),
            (&mut self.zombies, other.zombies),
            (&mut self.pauses, other.pauses),
            (&mut self.adopted_segments, other.adopted_segments),
            (&mut self.refused_commits, other.refused_commits),
            (&mut self.store_faults, other.store_faults),
            (&mut self.duplicates, other.duplicates),
            (&mut self.late_rows, other.late_rows),
            (&mut self.readings_again, other.readings_again),
            (&mut self.anomalies, other.anomalies),
        ] {
            *sum += number;
        }
    }
}

/// The simulated clock.
#[derive(Debug, Clone)]
struct SimClock(Arc<World>);

impl WallClock for SimClock {
    fn now_ms(&self) -> i64 {
        self.0.now_ms() + self.0.faults().clock_skew_ms
    }
}

/// One owner of the partition, alive or believed dead.
struct Process {
    running: JoinHandle<PartitionEnd>,
    /// Whether it stands still, as after SIGSTOP. Time goes on.
    paused: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    board: Arc<StatusBoard>,
}

/// Runs one seed to its end.
pub(crate) fn run_seed(seed: u64) -> Result<Outcome, String> {
    simulate(async { Scenario::new(seed, None, None).run().await })
}

/// Runs one seed with a rule of the protocol broken.
pub(crate) fn run_mutated(seed: u64, mutation: Mutation) -> Result<Outcome, String> {
    if mutation.needs_a_late_schema() {
        return simulate(async { Scenario::new(seed, Some(Start::Earliest), Some(mutation)).run_late_schema().await });
    }
    simulate(async { Scenario::new(seed, None, Some(mutation)).run().await })
}

/// Runs one seed of the topic that is deleted and created again; how many records of the old one were archived.
pub(crate) fn run_recreated_topic(seed: u64) -> Result<u64, String> {
    simulate(async { Scenario::new(seed, Some(Start::Earliest), None).run_recreated().await })
}

/// Runs one seed of the schema that is registered while two owners ask for it.
pub(crate) fn run_late_schema(seed: u64) -> Result<Outcome, String> {
    simulate(async { Scenario::new(seed, Some(Start::Earliest), None).run_late_schema().await })
}

fn simulate<T>(run: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.map_err(|error| error.to_string())?, run)
}

struct Scenario {
    world: Arc<World>,
    store: SimStore,
    hot_store: SimHotStore,
    brokers: Arc<Brokers>,
    settings: Arc<PartitionSettings>,
    next_member: u64,
    pacing: Pacing,
    format: Arc<SegmentFormat>,
    length: Length,
}

/// Most runs are short, so that there can be many; some go on until much has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Short,
    Long,
}

impl Scenario {
    fn new(seed: u64, start: Option<Start>, mutation: Option<Mutation>) -> Self {
        let world = World::new(seed, mutation);
        let store = SimStore::new(&world);
        let tables: Arc<Mutex<HotTables>> = Arc::default();
        let hot_store = SimHotStore { world: Arc::clone(&world), tables: Arc::clone(&tables) };
        let durable =
            Durable { store: Arc::clone(&store.inner), tables, world: Arc::clone(&world), footers: Mutex::default() };
        let drawn = if world.happens(30) { Start::Latest } else { Start::Earliest };
        let start = start.unwrap_or(drawn);
        let brokers = Brokers::new(&world, start, move |first, offset| durable.check_commit(first, offset));
        let pacing = Pacing {
            emit_interval: Duration::from_millis(200 + world.below(1_000)),
            checkpoint_interval: Duration::from_millis(1_000 + world.below(15_000)),
            max_segment_bytes: 6_000 + world.below(200_000) as usize,
            catching_up_after: Duration::from_secs(5),
        };
        let mut settings = settings(1 + world.below(60) as usize);
        Arc::make_mut(&mut settings).awaited = mutation.map_or(AwaitedAnswers::BOTH, Mutation::awaited_answers);
        let format = SegmentFormat::new(Arc::clone(&settings.archive_schema), &[]).without_compression();
        let length = if seed.is_multiple_of(50) { Length::Long } else { Length::Short };
        Self { world, store, hot_store, brokers, settings, next_member: 0, pacing, format: Arc::new(format), length }
    }

    async fn run(mut self) -> Result<Outcome, String> {
        let most_at_once = if self.length == Length::Long { 30 } else { 8 };
        let producer =
            tokio::task::spawn_local(produce(Arc::clone(&self.world), Arc::clone(&self.brokers), most_at_once));
        let mut zombies: Vec<Process> = Vec::new();
        let mut owner = self.first_owners(&mut zombies).await;
        let changes = if self.length == Length::Long { 4 + self.world.below(8) } else { 1 + self.world.below(4) };
        for _ in 0..changes {
            self.change_the_weather();
            // Often soon enough to hit the middle of a seal, sometimes late enough for many.
            let pause = self.world.below([500, 4_000, 30_000][self.world.below(3) as usize]);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            zombies.retain(|zombie| !zombie.running.is_finished());
            owner = self.change_the_owner(owner, &mut zombies).await?;
        }
        producer.abort();
        self.end(owner, zombies).await
    }

    /// The schema of many records is registered just while a first owner, which then stands still, and a second one ask for
    /// it: the first has refused what the second accepts, and either may be the one that seals it.
    async fn run_late_schema(mut self) -> Result<Outcome, String> {
        self.world.set_late_schemas(20);
        let before = KNOWN_AFTER_MS as u64 - 3_000;
        tokio::time::sleep(Duration::from_millis(before + self.world.below(3_000))).await;
        let producer = tokio::task::spawn_local(produce(Arc::clone(&self.world), Arc::clone(&self.brokers), 8));
        let first = self.start();
        tokio::time::sleep(Duration::from_millis(self.world.below(4_000))).await;
        self.pause(&first);
        self.world.count(|outcome| outcome.zombies += 1);
        let second = self.start();
        tokio::time::sleep(Duration::from_millis(self.world.below(40_000))).await;
        producer.abort();
        self.end(second, vec![first]).await
    }

    /// All faults are over, and nobody produces any more: whoever owns the partition comes to the end of the log.
    async fn end(mut self, owner: Process, zombies: Vec<Process>) -> Result<Outcome, String> {
        self.world.set_faults(Faults::NONE);
        let finished = self.finish(owner).await;
        for zombie in zombies {
            self.count_adoptions(&zombie);
            zombie.running.abort();
        }
        finished?;
        tokio::time::sleep(LATEST).await;
        invariants::check_all(&self.store.inner, &self.hot_store, &self.brokers, &self.world).await?;
        let outcome = self.world.outcome();
        self.leave_it_tidy().await?;
        Ok(outcome)
    }

    /// Snapshots that were left, also by owners that came back when they were owners no more, are gone with the first
    /// commit of the next one.
    async fn leave_it_tidy(&mut self) -> Result<(), String> {
        if invariants::snapshot_positions(&self.store.inner).await?.len() <= KEPT_SNAPSHOTS {
            return Ok(());
        }
        let world = Arc::clone(&self.world);
        self.brokers.append(|offset| records::make(&world, offset));
        let heir = self.start();
        self.finish(heir).await?;
        let left = invariants::snapshot_positions(&self.store.inner).await?;
        if left.len() > KEPT_SNAPSHOTS {
            return Err(format!("snapshots are left at {left:?}, committed is {:?}", self.brokers.committed()));
        }
        Ok(())
    }

    /// Several owners at once that all find a group without an offset, now and then after records have come already.
    async fn first_owners(&mut self, zombies: &mut Vec<Process>) -> Process {
        tokio::time::sleep(Duration::from_millis(self.world.below(4_000))).await;
        self.change_the_weather();
        let mut owner = self.start();
        for _ in 0..self.world.below(3) {
            tokio::time::sleep(Duration::from_millis(self.world.below(2_000))).await;
            self.world.count(|outcome| outcome.zombies += 1);
            zombies.push(std::mem::replace(&mut owner, self.start()));
        }
        owner
    }

    /// The topic is deleted and created again under the running owner: it must stop, and nothing of the new topic may
    /// become durable in archive or dead letters.
    async fn run_recreated(mut self) -> Result<u64, String> {
        let (world, brokers) = (Arc::clone(&self.world), Arc::clone(&self.brokers));
        let producer = tokio::task::spawn_local(produce(Arc::clone(&world), Arc::clone(&brokers), 30));
        let owner = self.start();
        tokio::time::sleep(Duration::from_millis(world.below(30_000))).await;
        self.change_the_weather();
        let old = brokers.recreate(|offset| records::make(&world, offset));
        let ended = tokio::time::timeout(RECOVERY, owner.running).await;
        producer.abort();
        match ended {
            Ok(Ok(PartitionEnd::Stopped(StoppedLoudly::TopicRecreated { .. }))) => {}
            other => return Err(format!("another topic was not noticed: {other:?}")),
        }
        invariants::check_nothing_else(&self.store.inner, &old).await
    }

    fn change_the_weather(&self) {
        let stormy = self.world.happens(60);
        let faults = Faults {
            store_errors: if stormy { 5 + self.world.below(30) as u32 } else { 0 },
            lost_acknowledgements: if stormy { 5 + self.world.below(20) as u32 } else { 0 },
            false_conflicts: if stormy { self.world.below(10) as u32 } else { 0 },
            duplicates: if stormy { self.world.below(10) as u32 } else { 0 },
            longest_delay_ms: [5, 100, 1_500][self.world.below(3) as usize],
            clock_skew_ms: [0, 0, 0, 7_000, -7_000, 3_600_000, -3_600_000][self.world.below(7) as usize],
        };
        self.world.set_faults(faults);
    }

    async fn change_the_owner(&mut self, owner: Process, zombies: &mut Vec<Process>) -> Result<Process, String> {
        match self.world.below(6) {
            0 => {
                // The group gives the partition to another member before this one notices: two owners at once.
                self.world.count(|outcome| outcome.zombies += 1);
                zombies.push(owner);
            }
            1 => {
                // It stands still, is believed dead, and goes on later from where it was.
                self.world.count(|outcome| outcome.zombies += 1);
                self.pause(&owner);
                zombies.push(owner);
            }
            2 => {
                // It stands still, and nobody notices.
                self.pause(&owner);
                return Ok(owner);
            }
            3 => {
                owner.stop.send_replace(true);
                let within = Duration::from_millis(self.world.below(20_000));
                self.world.count(|outcome| outcome.graceful_stops += 1);
                let mut running = owner.running;
                match tokio::time::timeout(within, &mut running).await {
                    Ok(Ok(PartitionEnd::Stopped(stopped))) => return Err(format!("stopped loudly: {stopped}")),
                    // Out of time: killed.
                    Err(_) => running.abort(),
                    Ok(_) => {}
                }
            }
            _ => {
                self.world.count(|outcome| outcome.crashes += 1);
                self.count_adoptions(&owner);
                if owner.running.is_finished()
                    && let Ok(PartitionEnd::Stopped(stopped)) = owner.running.await
                {
                    return Err(format!("stopped loudly: {stopped}"));
                }
                // Otherwise dropped wherever it is waiting just now.
            }
        }
        Ok(self.start())
    }

    /// Lets a process stand still for some time.
    fn pause(&self, process: &Process) {
        self.world.count(|outcome| outcome.pauses += 1);
        process.paused.send_replace(true);
        let (paused, pause) = (process.paused.clone(), Duration::from_millis(self.world.below(40_000)));
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            paused.send_replace(false);
        });
    }

    fn count_adoptions(&self, process: &Process) {
        process.running.abort();
        let adopted = process.board.totals().adopted_segments.get();
        self.world.count(|outcome| outcome.adopted_segments += adopted);
    }

    fn start(&mut self) -> Process {
        self.next_member += 1;
        let log = self.brokers.assign(self.next_member);
        let board = StatusBoard::new(TOPIC);
        let budget = MemoryBudget::new(1 << 30);
        let root = |name: &str| StoreRoot { store: Arc::new(self.store.clone()), prefix: Path::from(name) };
        let context = PartitionContext {
            partition: 0,
            format: Arc::clone(&self.format),
            settings: Arc::clone(&self.settings),
            lane: EncoderLane::Inline,
            stores: Stores { archive: root("archive"), dead_letters: root("dead"), state: root("state") },
            registry: SimRegistry(Arc::clone(&self.world)),
            hot_store: self.hot_store.clone(),
            clock: SimClock(Arc::clone(&self.world)),
            pacing: self.pacing.clone(),
            budget,
            sizes: Arc::new(SegmentSizes::default()),
            observer: Observer::new(&board, 0),
        };
        let (stop, stopped) = watch::channel(false);
        // With all the tasks that it starts, so that they stand still and end together.
        let tasks = LocalSet::new();
        let running = tasks.spawn_local(run_partition(Arc::new(context), log, stopped));
        let (paused, is_paused) = watch::channel(false);
        tokio::task::spawn_local(host(tasks, is_paused));
        Process { running, paused, stop, board }
    }

    /// The last owner must come to the end of the log by itself, and seal it.
    async fn finish(&self, owner: Process) -> Result<(), String> {
        let goal = self.brokers.end();
        let deadline = tokio::time::Instant::now() + RECOVERY;
        // Without this the last owner could be asked to stop before it has read the rest.
        while self.brokers.committed().is_none_or(|committed| committed < goal) {
            if owner.running.is_finished() {
                return Err(format!("the last owner has ended by itself: {:?}", owner.running.await));
            }
            if tokio::time::Instant::now() > deadline {
                return Err(format!("not recovered: committed {:?} of {goal}", self.brokers.committed()));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        owner.stop.send_replace(true);
        let board = Arc::clone(&owner.board);
        match tokio::time::timeout(RECOVERY, owner.running).await {
            Ok(Ok(PartitionEnd::Sealed)) => {
                self.world.count(|outcome| outcome.adopted_segments += board.totals().adopted_segments.get());
                Ok(())
            }
            other => Err(format!("the last owner did not stop as asked: {other:?}")),
        }
    }
}

/// Runs the tasks of a process whenever it does not stand still.
async fn host(mut tasks: LocalSet, mut paused: watch::Receiver<bool>) {
    loop {
        let stands_still = tokio::select! {
            biased;
            paused = paused.wait_for(|paused| *paused) => paused.is_ok(),
            () = &mut tasks => false,
        };
        if !stands_still || paused.wait_for(|paused| !*paused).await.is_err() {
            return;
        }
    }
}

async fn produce(world: Arc<World>, brokers: Arc<Brokers>, most_at_once: u64) {
    loop {
        // Bursts and pauses.
        for _ in 0..world.below(most_at_once) {
            brokers.append(|offset| records::make(&world, offset));
        }
        tokio::time::sleep(Duration::from_millis(50 + world.below(800))).await;
    }
}

pub(crate) fn settings(rows_per_batch: usize) -> Arc<PartitionSettings> {
    let reader = ReaderSchema::parse(records::READER).expect("the reader schema is valid");
    let key = ["sensor_id".to_owned()];
    Arc::new(PartitionSettings {
        topic: TOPIC.to_owned(),
        archive_schema: archive_schema(&reader),
        event: EventFields::bind(&reader, &key, "event_time", "value", None)
            .and_then(|event| event.with_sequence(&reader, Some("sequence")))
            .expect("the fields exist"),
        reader,
        time_limits: TimeLimits { max_event_age_ms: 86_400_000, max_future_skew_ms: 60_000 },
        contract: ContractRules::default(),
        decode_limits: DecodeLimits::default(),
        windows: WindowSettings { length_ms: WINDOW_MS, allowed_lateness_ms: LATENESS_MS, forget_after_ms: 3_600_000 },
        detector: ConfiguredDetector::Robust(Robust::new(20, 20, 12.0, 30)),
        rows_per_batch,
        bytes_per_batch: 1 << 20,
        hash_seed: 1,
        awaited: AwaitedAnswers::BOTH,
    })
}
