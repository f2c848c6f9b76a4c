//! One run: prepares, sends and watches, waits for the rest, has everything sealed, and compares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::canary::{CanaryBook, PollQuality, now_us, poll_canaries};
use crate::checks::{self, Found};
use crate::click_house::{ClickHouse, quoted};
use crate::detection;
use crate::fleet::{Fleet, FleetOptions};
use crate::kafka_log;
use crate::local_pipeline::LocalPipeline;
use crate::measured::Measured;
use crate::objects::{self, LogRange, Stock};
use crate::pipeline::{Pipelines, Status};
use crate::process::{network, usages};
use crate::progress::Progress;
use crate::registry::register_schema;
use crate::scenario::Scenario;
use crate::schedule::{Punctuality, Timetable};
use crate::send::{Generator, GeneratorOptions, Live, Outcome};
use crate::shape::RateCurve;
use crate::target::Target;
use crate::timeline::Sample;

/// How often everything is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked whether the rest is processed.
const DRAIN_POLL: Duration = Duration::from_millis(100);

/// How long the pipeline may take until all partitions run.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// How long the canaries may take to become visible once everything is processed.
const LAST_CANARY_TIMEOUT: Duration = Duration::from_secs(15);

/// How far ahead the schedule starts, so that everything is set up when the first event is due.
pub const HEAD_START: Duration = Duration::from_millis(500);

/// What a run needs besides the target.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the scenario.
    pub name: String,
    /// What is sent and judged.
    pub scenario: Scenario,
    /// How long the rest may take to be processed, and then to be sealed by a pipeline that is not ours to stop.
    pub drain_timeout: Duration,
    /// The same for sealing.
    pub seal_timeout: Duration,
}

/// What is there before the run.
struct Before {
    ends: Vec<i64>,
    taken_in: u64,
    counted: u64,
    since_ms: i64,
    stocks: BTreeMap<&'static str, Stock>,
    requests: BTreeMap<String, f64>,
}

/// The run in progress.
struct Run<'run> {
    plan: &'run Plan,
    target: &'run Target,
    pipelines: Pipelines,
    click_house: ClickHouse,
    progress: &'run Progress,
    interrupt: watch::Receiver<bool>,
    curve: RateCurve,
    start: Instant,
    start_ms: i64,
    samples: Vec<Sample>,
    taken_in_before: u64,
    ends_before: Vec<i64>,
    last_status: Status,
}

/// Runs the plan against the target. `local` is the pipeline if it is ours: only then can it be paused and told to seal.
pub async fn run(
    plan: &Plan,
    target: &Target,
    local: Option<&mut LocalPipeline>,
    progress: &Progress,
    interrupt: watch::Receiver<bool>,
) -> anyhow::Result<Measured> {
    if local.is_none() && !plan.scenario.pauses.is_empty() {
        bail!(
            "scenario `{}` pauses the pipeline, which is only possible with one of the harness's own: leave --config away",
            plan.name
        );
    }
    let client = reqwest::Client::new();
    let click_house = ClickHouse::new(&target.hot_store)?;
    let pipelines = Pipelines::new(&target.pipelines)?;
    progress.say("registering the schema, waiting for the pipeline");
    let schema_id = register_schema(&client, &target.registry, &target.kafka.topic).await?;
    let start_ms_about = now_us() / 1_000;
    let before = look_before(plan, target, &pipelines, &click_house, start_ms_about).await?;
    let mut local = local;
    wait_until_running(&pipelines, before.ends.len(), local.as_deref_mut()).await?;

    let start = Instant::now() + HEAD_START;
    let start_ms = now_us() / 1_000 + HEAD_START.as_millis() as i64;
    let options = FleetOptions { schema_id, partitions: before.ends.len() as i32 };
    let fleet = Fleet::new(&plan.scenario, options, start_ms)?;
    let canary_rate = plan.scenario.canary.rate_per_partition * f64::from(fleet.busy_partitions());
    let book = Arc::new(CanaryBook::new(fleet.busy_partitions()));
    let mut run = Run {
        plan,
        target,
        pipelines,
        click_house,
        progress,
        interrupt,
        curve: plan.scenario.curve(),
        start,
        start_ms,
        samples: Vec::new(),
        taken_in_before: before.taken_in,
        ends_before: before.ends.clone(),
        last_status: Status::default(),
    };
    let (stop_polling, stopped) = watch::channel(false);
    let polls = tokio::spawn(poll_canaries(
        run.click_house.clone(),
        target.kafka.topic.clone(),
        fleet.busy_partitions(),
        plan.scenario.canary.poll,
        Arc::clone(&book),
        stopped,
    ));
    let generator = Generator::start(
        GeneratorOptions { kafka: target.kafka.clone(), start, start_ms, canaries: Arc::clone(&book) },
        fleet,
        Timetable::new(run.curve.clone(), canary_rate),
        Punctuality::new(plan.scenario.warm_up(), plan.scenario.gates.slip_limit)?,
    )?;
    let usages_before = usages(&target.processes);
    let ended_early = run.watch_sending(&generator, &book, local.as_deref_mut()).await?;
    let live = Arc::clone(&generator.live);
    let outcome = generator.outcome()?;
    progress.say("everything is sent; waiting for the rest to be processed");
    let range = run.range(&before).await?;
    let drain = run.drain(&range, &live, &book, local.as_deref_mut()).await?;
    run.wait_for_canaries(&book, drain.is_some()).await;
    let usages_after = usages(&target.processes);
    let requests = run.requests_since(&before).await;
    let _ = stop_polling.send(true);
    let polls: PollQuality = polls.await.context("the poller has panicked")?;

    progress.say("having everything sealed, and comparing");
    let sealed = run.seal(&range, local).await;
    let (checks, unchecked) = match sealed {
        Ok(()) => match run.check(&range, &before, &outcome).await {
            Ok(checks) => (checks, None),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        },
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    };
    let detection = run.detect(&outcome).await?;
    Ok(Measured {
        name: plan.name.clone(),
        scenario: plan.scenario.clone(),
        start_ms,
        canaries_missing: book.missing(),
        arrivals: book.arrivals(),
        polls,
        drain,
        ended_early,
        usages: (usages_before, usages_after),
        requests,
        stocks: run.stocks_since(&before).await?,
        tables: run.tables().await.unwrap_or_default(),
        checks,
        unchecked,
        detection,
        outcome,
        samples: run.samples,
    })
}

async fn look_before(
    plan: &Plan,
    target: &Target,
    pipelines: &Pipelines,
    click_house: &ClickHouse,
    now_ms: i64,
) -> anyhow::Result<Before> {
    let latest = plan.scenario.mix.delays.iter().map(|delay| delay.to).max().unwrap_or_default();
    // Windows that a late event may fall into, and one more.
    let since_ms = now_ms - latest.as_millis() as i64 - 120_000;
    let ends = kafka_log::end_offsets(&target.kafka).await?;
    let counted = checks::counted(click_house, &target.kafka.topic, since_ms)
        .await
        .context("ClickHouse does not have the pipeline's tables: run `kappa migrate` first")?;
    // A pipeline that is only just starting has taken in nothing.
    let taken_in = pipelines.status().await.map_or(0, |status| status.taken_in);
    let requests = all_requests(pipelines, click_house).await;
    Ok(Before { ends, taken_in, counted, since_ms, stocks: stocks(target).await?, requests })
}

async fn stocks(target: &Target) -> anyhow::Result<BTreeMap<&'static str, Stock>> {
    let (archive, dead_letters, state) = tokio::try_join!(
        objects::stock(&target.archive),
        objects::stock(&target.dead_letters),
        objects::stock(&target.state)
    )?;
    Ok(BTreeMap::from([("archive", archive), ("dead_letters", dead_letters), ("state", state)]))
}

/// Writes as the pipeline counts them, and statements as ClickHouse does for all its users.
async fn all_requests(pipelines: &Pipelines, click_house: &ClickHouse) -> BTreeMap<String, f64> {
    let mut requests: BTreeMap<String, f64> =
        pipelines.requests().await.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    let events = "SELECT event, value FROM system.events WHERE event IN ('InsertQuery', 'InsertedRows')";
    for row in click_house.rows(events).await.unwrap_or_default() {
        if let [event, value] = row.as_slice()
            && let Ok(value) = value.parse()
        {
            let name = if event == "InsertQuery" { "clickhouse_server_inserts" } else { "clickhouse_server_rows" };
            requests.insert(name.to_owned(), value);
        }
    }
    requests
}

async fn wait_until_running(
    pipelines: &Pipelines,
    partitions: usize,
    mut local: Option<&mut LocalPipeline>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        if let Some(local) = local.as_deref_mut() {
            local.check()?;
        }
        let status = pipelines.status().await;
        if status.as_ref().is_ok_and(|status| status.running() >= partitions) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let status =
                status.context("the pipeline does not answer: start it, or name its address with --status-url")?;
            let trouble = status.trouble().unwrap_or_else(|| "look at its log".to_owned());
            bail!("only {} of {partitions} partitions run after {READY_TIMEOUT:?}: {trouble}", status.running());
        }
        tokio::time::sleep(DRAIN_POLL).await;
    }
}

impl Run<'_> {
    /// Samples until the generator has ended. Whether it was ended by hand.
    async fn watch_sending(
        &mut self,
        generator: &Generator,
        book: &CanaryBook,
        mut local: Option<&mut LocalPipeline>,
    ) -> anyhow::Result<bool> {
        let mut ticks = tokio::time::interval_at((self.start).into(), SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut interrupt = self.interrupt.clone();
        let mut is_paused = false;
        let mut is_interrupted = false;
        while !generator.has_ended() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = tokio::time::sleep(DRAIN_POLL) => {
                    self.pause_as_planned(&mut is_paused, local.as_deref_mut())?;
                    continue;
                }
                _ = interrupt.wait_for(|stop| *stop), if !is_interrupted => {
                    is_interrupted = true;
                    generator.live.stop.store(true, Relaxed);
                    self.progress.say("ending early; the report will be of what was measured");
                    continue;
                }
            }
            if let Some(local) = local.as_deref_mut() {
                local.check()?;
            }
            self.sample(&generator.live, book).await;
        }
        if let (true, Some(local)) = (is_paused, local) {
            local.set_paused(false)?;
        }
        Ok(is_interrupted)
    }

    fn pause_as_planned(&self, is_paused: &mut bool, local: Option<&mut LocalPipeline>) -> anyhow::Result<()> {
        let Some(local) = local else {
            return Ok(());
        };
        let now = self.start.elapsed();
        let should = self.plan.scenario.pauses.iter().any(|pause| (pause.at..pause.at + pause.length).contains(&now));
        if should != *is_paused {
            *is_paused = should;
            local.set_paused(should)?;
            self.progress.say(if should { "the pipeline stands still now" } else { "the pipeline goes on" });
        }
        Ok(())
    }

    async fn sample(&mut self, live: &Live, book: &CanaryBook) {
        let status = self.pipelines.status().await;
        // After the answer: what came meanwhile counts as lag, so that it is rather too large than too small.
        let sent = live.sent.load(Relaxed);
        let acknowledged = live.acknowledged.load(Relaxed).min(sent);
        let waiting = sent - acknowledged;
        let at = self.start.elapsed().as_secs_f64();
        let rate = self.curve.rate_at(at).max(1.0);
        let has_answered = status.is_ok();
        if let Ok(status) = status {
            self.last_status = status;
        }
        // Its totals are the fresher ones, its positions outlive a restart.
        let by_totals = self.last_status.taken_in.saturating_sub(self.taken_in_before);
        let taken_in = by_totals.max(self.last_status.processed_since(&self.ends_before));
        let lag_records = acknowledged.saturating_sub(taken_in) as f64;
        let lag_seconds = if has_answered {
            // It tells the age of the newest record that it has, and part of that is Kafka's.
            (self.last_status.lag_seconds() - waiting as f64 / rate).max(0.0)
        } else {
            lag_records / rate
        };
        let sample = Sample {
            at,
            sent,
            waiting,
            taken_in,
            lag_records,
            lag_told: self.last_status.lag_records() as f64,
            lag_seconds,
            has_answered,
            usages: usages(&self.target.processes),
            network: network(),
        };
        self.progress.show(&sample, self.samples.last(), &book.latest_arrivals(1_000), live.slipped.load(Relaxed));
        self.samples.push(sample);
    }

    /// The part of the log that is this run's.
    async fn range(&self, before: &Before) -> anyhow::Result<LogRange> {
        let ends = kafka_log::end_offsets(&self.target.kafka).await?;
        Ok(before.ends.iter().copied().zip(ends).collect())
    }

    /// Waits until everything is processed; how long that took.
    async fn drain(
        &mut self,
        range: &LogRange,
        live: &Live,
        book: &CanaryBook,
        mut local: Option<&mut LocalPipeline>,
    ) -> anyhow::Result<Option<Duration>> {
        let ends: Vec<i64> = range.iter().map(|(_, end)| *end).collect();
        let started = Instant::now();
        let mut next_sample = Instant::now();
        loop {
            if let Some(local) = local.as_deref_mut() {
                local.check()?;
            }
            if Instant::now() >= next_sample {
                self.sample(live, book).await;
                next_sample += SAMPLE_INTERVAL;
            }
            let status = self.pipelines.status().await;
            if status.is_ok_and(|status| status.has_reached(&ends, false)) {
                let took = started.elapsed();
                self.sample(live, book).await;
                return Ok(Some(took));
            }
            if started.elapsed() > self.plan.drain_timeout {
                return Ok(None);
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    async fn wait_for_canaries(&self, book: &CanaryBook, is_drained: bool) {
        let deadline = Instant::now() + LAST_CANARY_TIMEOUT;
        while is_drained && book.missing() > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    async fn requests_since(&self, before: &Before) -> BTreeMap<String, f64> {
        let mut requests = all_requests(&self.pipelines, &self.click_house).await;
        for (name, count) in &mut requests {
            *count -= before.requests.get(name).copied().unwrap_or(0.0);
        }
        requests
    }

    async fn stocks_since(&self, before: &Before) -> anyhow::Result<BTreeMap<&'static str, Stock>> {
        let mut stocks = stocks(self.target).await?;
        for (place, stock) in &mut stocks {
            let earlier = before.stocks.get(place).copied().unwrap_or_default();
            stock.objects = stock.objects.saturating_sub(earlier.objects);
            stock.bytes = stock.bytes.saturating_sub(earlier.bytes);
        }
        Ok(stocks)
    }

    /// Ours is told to seal and leave; any other seals when it is time to.
    async fn seal(&self, range: &LogRange, local: Option<&mut LocalPipeline>) -> anyhow::Result<()> {
        if let Some(local) = local {
            return local.seal().await;
        }
        let ends: Vec<i64> = range.iter().map(|(_, end)| *end).collect();
        let deadline = Instant::now() + self.plan.seal_timeout;
        loop {
            if self.pipelines.status().await.is_ok_and(|status| status.has_reached(&ends, true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "not everything is committed after {:?}: give the pipeline a shorter checkpoint.interval, or raise --seal-timeout",
                    self.plan.seal_timeout
                );
            }
            tokio::time::sleep(SAMPLE_INTERVAL).await;
        }
    }

    async fn check(&self, range: &LogRange, before: &Before, outcome: &Outcome) -> anyhow::Result<Vec<checks::Check>> {
        let counted = checks::counted(&self.click_house, &self.target.kafka.topic, before.since_ms).await?;
        let found = Found {
            range: range.clone(),
            counted: counted.saturating_sub(before.counted),
            archived: objects::archived(&self.target.archive, range).await.context("the archive")?,
            dead_letters: objects::dead_letters(&self.target.dead_letters, range).await.context("the dead letters")?,
        };
        Ok(checks::compare(&outcome.sent, &found))
    }

    async fn detect(&self, outcome: &Outcome) -> anyhow::Result<Option<detection::Detection>> {
        if self.plan.scenario.anomalies_per_minute <= 0.0 {
            return Ok(None);
        }
        let flags = detection::read_flags(&self.click_house, &self.target.kafka.topic, self.start_ms).await?;
        Ok(Some(detection::compare(&outcome.labels, &flags, outcome.sent.valid)))
    }

    async fn tables(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let question = format!(
            "SELECT table, count(), sum(rows), sum(bytes_on_disk) FROM system.parts \
             WHERE active AND database = {} AND table IN ('windows_1m', 'anomalies') GROUP BY table",
            quoted(self.click_house.database())
        );
        let mut tables = BTreeMap::new();
        for row in self.click_house.rows(&question).await? {
            for (index, what) in ["parts", "rows", "bytes"].iter().enumerate() {
                if let Some(Ok(value)) = row.get(index + 1).map(|field| field.parse()) {
                    tables.insert(format!("{}_{what}", row[0]), value);
                }
            }
        }
        Ok(tables)
    }
}
