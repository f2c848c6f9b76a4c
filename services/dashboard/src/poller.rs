//! Asks for everything that is watched, once for all viewers.
//!
//! Two loops: pipelines every second, ClickHouse every two. Each makes a frame, as text, which is sent to whoever watches;
//! so a viewer more costs a few kilobytes a second and no question. A question that takes long is asked less often, and
//! while nobody watches ClickHouse is asked just often enough that the last hour is there for the next viewer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::anomalies::Anomaly;
use crate::click_house::{ClickHouse, FOR_THE_POLLER, Parameter, QueryError};
use crate::fleet::{Fleet, KEPT_WINDOWS, LIVE_WINDOWS, Minute, SETTLING_WINDOWS, Site};
use crate::metrics::Metrics;
use crate::pipeline_status::{Pipeline, RejectSample, Watch};
use crate::statements::Statements;

/// How often pipelines are asked.
const PULSE_EVERY: Duration = Duration::from_secs(1);

/// How often ClickHouse is asked while somebody watches.
const GLANCE_EVERY: Duration = Duration::from_secs(2);

/// How often while nobody does: the peaks of the sites need a look each minute.
const GLANCE_UNWATCHED: Duration = Duration::from_secs(20);

/// ClickHouse rests for so many times as long as the questions took it.
const REST: u32 = 4;

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// How often minutes that have passed are read again.
const SETTLE_EVERY: Duration = Duration::from_mins(1);

/// Points of the curve of the rate, one a second.
const RATE_POINTS: usize = 300;

/// Anomalies and worst sensors are those of so many milliseconds.
const ODD_SINCE_MS: i64 = 15 * 60_000;

/// What the poller makes: the newest frame of each kind, and what is asked for by itself.
#[derive(Debug)]
pub struct Feeds {
    /// How pipelines do; empty before the first.
    pub pulse: watch::Sender<Arc<str>>,
    /// What ClickHouse shows; empty before the first.
    pub fleet: watch::Sender<Arc<str>>,
    /// The newest refused records.
    pub rejects: watch::Sender<Arc<Vec<PipelineRejects>>>,
    /// Somebody has begun to watch.
    pub arrived: Notify,
}

impl Default for Feeds {
    fn default() -> Self {
        Self {
            pulse: watch::Sender::new("".into()),
            fleet: watch::Sender::new("".into()),
            rejects: watch::Sender::new(Arc::default()),
            arrived: Notify::new(),
        }
    }
}

impl Feeds {
    /// Whether everything was asked once, with whatever result.
    pub fn are_filled(&self) -> bool {
        !self.pulse.borrow().is_empty() && !self.fleet.borrow().is_empty()
    }
}

/// Refused records of one pipeline.
#[derive(Debug, Clone, Serialize)]
pub struct PipelineRejects {
    /// Host and port.
    pub pipeline: String,
    /// Newest first within a reason.
    pub samples: Vec<RejectSample>,
}

#[derive(Debug, Serialize)]
struct Pulse<'a> {
    now_ms: i64,
    /// Of all pipelines that answer together.
    rate: Option<f64>,
    rate_history: &'a VecDeque<Option<u64>>,
    pipelines: &'a [Pipeline],
}

#[derive(Debug, Serialize)]
struct FleetFrame<'a> {
    now_ms: i64,
    click_house: &'a Answering,
    window_ms: i64,
    live_windows: i64,
    newest_ms: Option<i64>,
    minutes: Vec<&'a Minute>,
    sites: &'a [Site],
    metrics: &'a [String],
    worst: &'a [WorstSensor],
    anomalies: &'a [Anomaly],
}

/// Whether ClickHouse answers.
#[derive(Debug, Default, Serialize)]
struct Answering {
    ok: bool,
    error: Option<String>,
    failing_since_ms: Option<i64>,
    /// When it answered last.
    as_of_ms: Option<i64>,
    /// How long the last questions took it.
    took_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct WorstSensor {
    sensor: String,
    site: String,
    flags: u64,
    score: Option<f64>,
    metric: String,
    kind: String,
    time_ms: i64,
}

/// Asks all pipelines until dropped.
pub async fn watch_pipelines(mut watches: Vec<Watch>, feeds: Arc<Feeds>, metrics: Arc<Metrics>) {
    let mut history = VecDeque::new();
    let mut ticks = tokio::time::interval(PULSE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut pipelines = futures::future::join_all(watches.iter_mut().map(Watch::look)).await;
        let rejects = pipelines.iter_mut().filter_map(|pipeline| {
            let samples = std::mem::take(&mut pipeline.status.as_mut()?.recent_rejects);
            Some(PipelineRejects { pipeline: pipeline.name.clone(), samples })
        });
        feeds.rejects.send_replace(Arc::new(rejects.collect()));
        let rates: Vec<f64> = pipelines.iter().filter_map(|pipeline| pipeline.rate).collect();
        let rate = (!rates.is_empty()).then(|| rates.iter().sum());
        if history.len() == RATE_POINTS {
            history.pop_front();
        }
        history.push_back(rate.map(|rate: f64| rate.round() as u64));
        let pulse = Pulse { now_ms: now_ms(), rate, rate_history: &history, pipelines: &pipelines };
        publish(&feeds.pulse, &pulse, &metrics);
    }
}

/// Asks ClickHouse until dropped.
#[derive(Debug)]
pub struct FleetWatch {
    click_house: ClickHouse,
    statements: Arc<Statements>,
    feeds: Arc<Feeds>,
    metrics: Arc<Metrics>,
    fleet: Fleet,
    window_ms: i64,
    worst: Vec<WorstSensor>,
    anomalies: Vec<Anomaly>,
    answering: Answering,
    settled_at: Option<Instant>,
}

impl FleetWatch {
    /// Nothing is asked yet.
    pub fn new(
        click_house: ClickHouse,
        statements: Arc<Statements>,
        feeds: Arc<Feeds>,
        metrics: Arc<Metrics>,
        window_ms: i64,
    ) -> Self {
        Self {
            click_house,
            statements,
            feeds,
            metrics,
            fleet: Fleet::new(window_ms),
            window_ms,
            worst: Vec::new(),
            anomalies: Vec::new(),
            answering: Answering::default(),
            settled_at: None,
        }
    }

    /// Goes on until dropped.
    pub async fn run(mut self) {
        loop {
            let started = Instant::now();
            let result = self.look().await;
            self.note(&result, started.elapsed());
            self.publish();
            let every = if self.feeds.fleet.receiver_count() > 0 { GLANCE_EVERY } else { GLANCE_UNWATCHED };
            let rest = (started.elapsed() * REST).min(LONGEST_REST).max(every.saturating_sub(started.elapsed()));
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.feeds.arrived.notified(), if every == GLANCE_UNWATCHED => {}
            }
        }
    }

    async fn look(&mut self) -> Result<(), QueryError> {
        let now_ms = now_ms();
        if self.settled_at.is_none_or(|settled| settled.elapsed() >= SETTLE_EVERY) {
            // The whole hour at the start and after an outage.
            let windows = if self.settled_at.is_none() { KEPT_WINDOWS } else { SETTLING_WINDOWS };
            let range = self.fleet.range(now_ms, windows);
            let rows = self.click_house.rows(&self.statements.minutes, &range_of(range), FOR_THE_POLLER).await?;
            self.fleet.take_minutes(&rows, range, now_ms);
            self.settled_at = Some(Instant::now());
        }
        let range = self.fleet.range(now_ms, LIVE_WINDOWS);
        let rows = self.click_house.rows(&self.statements.fleet, &range_of(range), FOR_THE_POLLER).await?;
        self.fleet.take_glance(&rows, range, now_ms);
        let since = [("from", Parameter::Integer(now_ms - ODD_SINCE_MS))];
        self.worst = self.click_house.rows(&self.statements.worst, &since, FOR_THE_POLLER).await?;
        self.anomalies = self.click_house.rows(&self.statements.newest_anomalies, &since, FOR_THE_POLLER).await?;
        Ok(())
    }

    fn note(&mut self, result: &Result<(), QueryError>, took: Duration) {
        let answering = &mut self.answering;
        answering.took_ms = took.as_millis() as u64;
        match result {
            Ok(()) => {
                if let Some(since_ms) = answering.failing_since_ms.take() {
                    tracing::info!(after_seconds = (now_ms() - since_ms) / 1_000, "ClickHouse answers again");
                }
                answering.ok = true;
                answering.error = None;
                answering.as_of_ms = Some(now_ms());
            }
            Err(error) => {
                if answering.failing_since_ms.is_none() {
                    tracing::warn!("{error}; asking again until it answers");
                    answering.failing_since_ms = Some(now_ms());
                }
                answering.ok = false;
                answering.error = Some(error.to_string());
                self.settled_at = None;
            }
        }
        self.metrics.click_house_is_up(result.is_ok());
    }

    fn publish(&self) {
        let frame = FleetFrame {
            now_ms: now_ms(),
            click_house: &self.answering,
            window_ms: self.window_ms,
            live_windows: LIVE_WINDOWS,
            newest_ms: self.fleet.newest_ms(),
            minutes: self.fleet.minutes().collect(),
            sites: self.fleet.sites(),
            metrics: self.fleet.metrics(),
            worst: &self.worst,
            anomalies: &self.anomalies,
        };
        publish(&self.feeds.fleet, &frame, &self.metrics);
    }
}

fn range_of((from_ms, to_ms): (i64, i64)) -> [(&'static str, Parameter<'static>); 2] {
    [("from", Parameter::Integer(from_ms)), ("to", Parameter::Integer(to_ms))]
}

fn publish(feed: &watch::Sender<Arc<str>>, frame: &impl Serialize, metrics: &Metrics) {
    match serde_json::to_string(frame) {
        Ok(text) => {
            metrics.frame();
            feed.send_replace(text.into());
        }
        Err(error) => tracing::error!("a frame cannot be written: {error}"),
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}
