//! Looks at everything a few times a second and keeps the picture up to date: the pipeline's board, the books of the
//! producer, and, now and then, ClickHouse.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;

use super::backpressure::Positions;
use super::hot_store_reader::{HotStoreGlance, HotStoreReader};
use super::produced::Produced;
use super::view::{EvolutionView, Stage, View};
use crate::ops::status::{PartitionState, PartitionStatus, StatusBoard};

/// How often the board is looked at: often enough that the producer knows soon when to hold back.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often the curve gets a point.
const POINT_EVERY: Duration = Duration::from_millis(500);

/// How often ClickHouse is asked.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Rates are averages over this long.
const RATE_OVER: Duration = Duration::from_secs(5);

/// Flagged events on the screen.
const LATEST: usize = 6;

/// What the observer looks at.
#[derive(Debug)]
pub struct Observer {
    board: Arc<StatusBoard>,
    produced: Arc<Produced>,
    positions: Arc<Positions>,
    view: SharedView,
    started: Instant,
    /// Moments with what was produced and consumed by then, for the rates.
    moments: VecDeque<(Instant, u64, u64)>,
    last_point: Instant,
    /// Positions seen, of partitions too that are no longer on the board.
    last_positions: BTreeMap<i32, i64>,
}

/// The picture, shared between the observer, the screen and the director of the demo.
#[derive(Debug, Clone, Default)]
pub struct SharedView(Arc<Mutex<View>>);

impl SharedView {
    /// A picture to begin with.
    pub fn new(view: View) -> Self {
        Self(Arc::new(Mutex::new(view)))
    }

    /// The picture now.
    pub fn get(&self) -> View {
        self.lock().clone()
    }

    /// Says how far the demo is.
    pub fn set_stage(&self, stage: Stage) {
        self.lock().stage = stage;
    }

    /// Says that the second version of the schema is registered.
    pub fn set_evolved(&self, schema_id: u32) {
        let mut view = self.lock();
        view.evolution = Some(EvolutionView { schema_id, at: view.elapsed, events: 0 });
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer {
    /// Begins to look.
    pub fn new(board: Arc<StatusBoard>, produced: Arc<Produced>, positions: Arc<Positions>, view: SharedView) -> Self {
        let started = Instant::now();
        Self {
            board,
            produced,
            positions,
            view,
            started,
            moments: VecDeque::new(),
            last_point: started,
            last_positions: BTreeMap::new(),
        }
    }

    /// Looks until dropped.
    pub async fn run(mut self, hot_store: HotStoreReader) {
        let asking = tokio::spawn(keep_asking(hot_store, self.view.clone()));
        let _ends_with_us = AbortOnDrop(asking);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look();
        }
    }

    fn look(&mut self) {
        let report = self.board.report(Duration::MAX);
        for status in &report.partitions {
            if let Some(position) = status.position {
                self.positions.set(status.partition, position);
                self.last_positions.insert(status.partition, position);
            }
        }
        let produced = self.produced.total();
        let consumed = self.last_positions.values().sum::<i64>().max(0) as u64;
        let (produced_rate, consumed_rate) = self.rates(produced, consumed);
        let problems = problems(&self.board);

        let mut view = self.view.lock();
        view.elapsed = self.started.elapsed();
        view.produced = produced;
        view.produced_rate = produced_rate;
        view.punctuality = self.produced.punctuality();
        view.consumed = consumed;
        view.consumed_rate = consumed_rate;
        view.lag_records =
            lag_records(&report.partitions).unwrap_or_else(|| self.positions.unread_total(&self.produced));
        view.lag_seconds = report.partitions.iter().filter_map(|status| status.lag_seconds).fold(0.0, f64::max);
        if !report.partitions.is_empty() {
            view.partitions = report.partitions;
        }
        view.totals = Some(report.totals);
        view.memory = Some(report.memory);
        view.problems = problems;
        if let Some(evolution) = &mut view.evolution {
            evolution.events = self.produced.evolved();
        }
        if self.last_point.elapsed() >= POINT_EVERY {
            self.last_point = Instant::now();
            view.push_rate(consumed_rate);
            view.resident_bytes = resident_bytes();
        }
    }

    fn rates(&mut self, produced: u64, consumed: u64) -> (f64, f64) {
        let now = Instant::now();
        self.moments.push_back((now, produced, consumed));
        while self.moments.front().is_some_and(|(then, ..)| now - *then > RATE_OVER) {
            self.moments.pop_front();
        }
        let Some((then, produced_then, consumed_then)) = self.moments.front() else {
            return (0.0, 0.0);
        };
        let seconds = (now - *then).as_secs_f64().max(LOOK_EVERY.as_secs_f64());
        let rate = |count: u64, before: u64| count.saturating_sub(before) as f64 / seconds;
        (rate(produced, *produced_then), rate(consumed, *consumed_then))
    }
}

/// The lag as the pipeline knows it; `None` until all its partitions do.
fn lag_records(partitions: &[PartitionStatus]) -> Option<u64> {
    let lags: Option<Vec<i64>> = partitions.iter().map(|status| status.lag_records).collect();
    lags.filter(|lags| !lags.is_empty()).map(|lags| lags.iter().sum::<i64>().max(0) as u64)
}

/// What of the pipeline does not go well, a sentence each.
fn problems(board: &StatusBoard) -> Vec<String> {
    let failing = board.dependencies().into_iter().filter(|report| report.ok == Some(false)).map(|report| {
        format!("{} fails: {}", report.dependency.name(), report.last_error.as_deref().unwrap_or("no reason given"))
    });
    let stopped =
        board.partitions().into_iter().filter(|status| status.state == PartitionState::StoppedLoudly).map(|status| {
            let why = status.last_error.as_deref().unwrap_or("see the log");
            format!("partition {} has stopped: {why}", status.partition)
        });
    failing.chain(stopped).collect()
}

async fn keep_asking(hot_store: HotStoreReader, view: SharedView) {
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match hot_store.glance(LATEST).await {
            Ok(glance) => show(&view, glance),
            Err(error) => tracing::debug!(%error, "a look at ClickHouse has failed"),
        }
    }
}

fn show(view: &SharedView, glance: HotStoreGlance) {
    let age = glance.newest_event_ms.map(|newest| (Utc::now().timestamp_millis() - newest).max(0) as u64);
    let mut view = view.lock();
    view.freshness = age.map(Duration::from_millis);
    view.hot_store = glance;
}

/// Memory of this process, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_rates_come_from_the_board() {
        let board = StatusBoard::new("readings");
        let produced = Arc::new(Produced::new(1, 2));
        let positions = Positions::new(2);
        let view = SharedView::default();
        let mut observer = Observer::new(Arc::clone(&board), produced, positions, view.clone());
        let line = board.add_partition(1);
        line.update(|status| {
            status.position = Some(500);
            status.lag_seconds = Some(1.5);
        });
        observer.look();
        board.remove_partition(1, &line);
        observer.look();
        let picture = view.get();
        assert_eq!(picture.consumed, 500);
        assert_eq!(picture.partitions.len(), 1, "the last line stays on the screen");
    }
}
