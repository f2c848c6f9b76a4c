//! The generator's thread: sends on schedule what the fleet measures.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use crate::canary::CanaryBook;
use crate::fleet::{Fleet, Sent};
use crate::schedule::{Clock as _, Punctuality, Sink, Stream, Timetable, WallClock, run_open_loop};
use crate::shape::RateCurve;
use crate::signal::Label;
use crate::target::Kafka;
use crate::topic_producer::TopicProducer;

/// How long the last records may take to be acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_mins(2);

/// Records are handed over in batches of at most so many: a fraction of a millisecond's worth.
const LARGEST_BATCH: usize = 256;

/// How long one wait for room in the producer's queue lasts.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(2);

/// How often delivery reports are looked at, of which there are only failures, and it is written down how many records
/// wait.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What the generator tells while it works.
#[derive(Debug, Default)]
pub struct Live {
    /// Records handed to the producer.
    pub sent: AtomicU64,
    /// Of these, acknowledged by Kafka.
    pub acknowledged: AtomicU64,
    /// Of these, later than the limit.
    pub slipped: AtomicU64,
    /// The largest delay, microseconds.
    pub worst_us: AtomicU64,
    /// Records that were not acknowledged.
    pub failed: AtomicU64,
    /// Set to end early.
    pub stop: AtomicBool,
}

/// What the generator has done.
#[derive(Debug)]
pub struct Outcome {
    /// How the schedule was kept.
    pub punctuality: Punctuality,
    /// What was sent.
    pub sent: Sent,
    /// The anomalies in it.
    pub labels: Vec<Label>,
    /// How many records waited for Kafka, from the first to the last, at every look.
    pub waiting: Vec<Waiting>,
    /// Records that were not acknowledged: nobody can say whether they are in the log.
    pub failed: u64,
    /// From the start to the last record handed over.
    pub sending: Duration,
    /// From then until everything was acknowledged.
    pub flushing: Duration,
}

impl Outcome {
    /// What waited for Kafka at each look in a part of the schedule, in seconds at the rate of that moment.
    pub fn waiting_seconds(&self, curve: &RateCurve, part: &Range<f64>) -> Vec<f64> {
        let looks = self.waiting.iter().filter(|look| part.contains(&look.at));
        // Behind schedule there are looks after its end.
        let rate_at = |at: f64| curve.rate_at(at.min(curve.seconds())).max(1.0);
        looks.map(|look| look.records as f64 / rate_at(look.at)).collect()
    }
}

/// Records that were handed to the producer and not acknowledged yet, at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waiting {
    /// Seconds from the start of the schedule.
    pub at: f64,
    /// How many.
    pub records: u64,
}

/// The generator at work.
#[derive(Debug)]
pub struct Generator {
    thread: JoinHandle<anyhow::Result<Outcome>>,
    /// What it tells.
    pub live: Arc<Live>,
}

/// What the generator needs.
#[derive(Debug)]
pub struct GeneratorOptions {
    /// Where to.
    pub kafka: Kafka,
    /// When the schedule starts.
    pub start: Instant,
    /// The same moment, milliseconds since the epoch.
    pub start_ms: i64,
    /// Where the canaries are written down.
    pub canaries: Arc<CanaryBook>,
}

impl Generator {
    /// Starts the thread; the first record is due at `options.start`.
    pub fn start(
        options: GeneratorOptions,
        fleet: Fleet,
        timetable: Timetable,
        punctuality: Punctuality,
    ) -> anyhow::Result<Self> {
        let live = Arc::new(Live::default());
        let failures = Failures(Arc::clone(&live));
        let producer = TopicProducer::new(&producer_config(&options.kafka), failures, &options.kafka.topic)?;
        let (clock, sharing) = (WallClock::starting_at(options.start), Arc::clone(&live));
        let work = move || {
            thread::sleep(options.start.saturating_duration_since(Instant::now()));
            let queue = Queue {
                producer,
                live: sharing,
                start: options.start,
                handed_over: 0,
                last_look: Instant::now(),
                waiting: Vec::new(),
            };
            let mut sender = Sender { queue, fleet, options };
            let punctuality = run_open_loop(&clock, timetable, punctuality, &mut sender)?;
            sender.finish(punctuality, clock.elapsed())
        };
        let thread =
            thread::Builder::new().name("generator".to_owned()).spawn(work).context("cannot start a thread")?;
        Ok(Self { thread, live })
    }

    /// Whether everything is sent and acknowledged, or something is wrong.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// What it has done. Blocks until it has ended.
    pub fn outcome(self) -> anyhow::Result<Outcome> {
        self.thread.join().map_err(|_| anyhow!("the generator has panicked"))?
    }
}

/// A producer for high rates whose records still go out at once: what latency it adds is part of what is measured.
fn producer_config(kafka: &Kafka) -> ClientConfig {
    let mut config = kafka.client_config();
    config
        .set("compression.type", "lz4")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "1048576")
        // Half of what a record costs the sending thread is its delivery report; failures are all that counts here.
        .set("delivery.report.only.error", "true");
    config
}

struct Sender {
    queue: Queue,
    fleet: Fleet,
    options: GeneratorOptions,
}

/// The producer's queue, and who watches it.
struct Queue {
    producer: TopicProducer<Failures>,
    live: Arc<Live>,
    start: Instant,
    /// Records in the producer's hands so far.
    handed_over: u64,
    last_look: Instant,
    waiting: Vec<Waiting>,
}

impl Sink for Sender {
    fn send(&mut self, stream: Stream, due: Duration) -> anyhow::Result<()> {
        let due_ms = self.options.start_ms + due.as_millis() as i64;
        let record = match stream {
            Stream::Load => self.fleet.next(due_ms)?,
            Stream::Canary(number) => {
                let record = self.fleet.canary(number, due_ms);
                self.options.canaries.sent(record.partition, due_ms);
                record
            }
        };
        if self.queue.producer.add(&record) < LARGEST_BATCH {
            return Ok(());
        }
        self.queue.hand_over()
    }

    fn between_batches(&mut self, punctuality: &Punctuality) -> anyhow::Result<bool> {
        self.queue.hand_over()?;
        let live = &self.queue.live;
        live.slipped.store(punctuality.slipped, Relaxed);
        live.worst_us.store(punctuality.worst.as_micros() as u64, Relaxed);
        let is_to_stop = live.stop.load(Relaxed);
        if self.queue.last_look.elapsed() > LOOK_INTERVAL {
            self.queue.look();
        } else {
            self.queue.tell();
        }
        Ok(is_to_stop)
    }
}

impl Sender {
    fn finish(mut self, punctuality: Punctuality, sending: Duration) -> anyhow::Result<Outcome> {
        self.queue.look();
        // What is still on its way belongs to the time after the load.
        let waiting = std::mem::take(&mut self.queue.waiting);
        let flushing = self.queue.flush()?;
        let (sent, labels) = self.fleet.into_books();
        let failed = self.queue.live.failed.load(Relaxed);
        Ok(Outcome { punctuality, sent, labels, waiting, failed, sending, flushing })
    }
}

impl Queue {
    /// Hands over what is due. Blocks while the queue is full: what comes after it then slips.
    fn hand_over(&mut self) -> anyhow::Result<()> {
        loop {
            match self.producer.hand_over() {
                Ok(0) => return Ok(()),
                Ok(records) => self.handed_over += records as u64,
                Err(RDKafkaErrorCode::QueueFull) => self.wait_for_room()?,
                Err(code) => return Err(anyhow!("cannot hand a record to the producer: {code}")),
            }
        }
    }

    fn wait_for_room(&mut self) -> anyhow::Result<()> {
        if self.live.stop.load(Relaxed) {
            bail!("Kafka takes nothing any more, and the run was ended: the producer's queue is full");
        }
        self.producer.poll(WAIT_FOR_ROOM);
        if self.last_look.elapsed() > LOOK_INTERVAL {
            self.look();
        }
        Ok(())
    }

    /// Tells how far everything is; how many records wait.
    fn tell(&self) -> u64 {
        let waiting = self.producer.waiting();
        let failed = self.live.failed.load(Relaxed);
        self.live.sent.store(self.handed_over, Relaxed);
        self.live.acknowledged.store(self.handed_over.saturating_sub(waiting + failed), Relaxed);
        waiting
    }

    /// Looks at what has failed, and writes down what waits.
    fn look(&mut self) {
        self.producer.poll(Duration::ZERO);
        let records = self.tell();
        self.waiting.push(Waiting { at: self.start.elapsed().as_secs_f64(), records });
        self.last_look = Instant::now();
    }

    /// Waits until nothing waits any more; how long that took.
    fn flush(&mut self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        while let Err(error) = self.producer.flush(LOOK_INTERVAL) {
            self.look();
            if started.elapsed() > FLUSH_TIMEOUT {
                return Err(anyhow!(error).context(
                    "Kafka has not acknowledged everything two minutes after the last record: look at the broker's log",
                ));
            }
        }
        self.look();
        Ok(started.elapsed())
    }
}

/// Counts what was not acknowledged.
struct Failures(Arc<Live>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.failed.fetch_add(1, Relaxed);
        }
    }
}
