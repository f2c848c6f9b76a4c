//! The generator's thread: sends on schedule what the fleet measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use crate::canary::CanaryBook;
use crate::fleet::{Fleet, Sent};
use crate::schedule::{Clock as _, Punctuality, Sink, Stream, Timetable, WallClock, run_open_loop};
use crate::signal::Label;
use crate::target::Kafka;

/// How long the last records may take to be acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_mins(2);

/// How long one wait for room in the producer's queue lasts.
const WAIT_FOR_ROOM: Duration = Duration::from_millis(2);

/// How often delivery reports are looked at. Only failures are reported.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What the generator tells while it works.
#[derive(Debug, Default)]
pub struct Live {
    /// Records handed to the producer.
    pub sent: AtomicU64,
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
    /// Records that were not acknowledged: nobody can say whether they are in the log.
    pub failed: u64,
    /// From the start to the last record handed over.
    pub sending: Duration,
    /// From then until everything was acknowledged.
    pub flushing: Duration,
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
        let producer = create_producer(&options.kafka, &live)?;
        let (clock, sharing) = (WallClock::starting_at(options.start), Arc::clone(&live));
        let work = move || {
            thread::sleep(options.start.saturating_duration_since(Instant::now()));
            let mut sender = Sender { producer, fleet, options, live: sharing, last_poll: Instant::now() };
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
fn create_producer(kafka: &Kafka, live: &Arc<Live>) -> anyhow::Result<BaseProducer<Failures>> {
    let mut config = kafka.client_config();
    config
        .set("compression.type", "lz4")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "2000000")
        .set("queue.buffering.max.kbytes", "1048576")
        // Half of what a record costs the sending thread is its delivery report; failures are all that counts here.
        .set("delivery.report.only.error", "true");
    config.create_with_context(Failures(Arc::clone(live))).context("cannot make a producer: check kafka.properties")
}

struct Sender {
    producer: BaseProducer<Failures>,
    fleet: Fleet,
    options: GeneratorOptions,
    live: Arc<Live>,
    last_poll: Instant,
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
        let mut message = BaseRecord::<[u8], [u8]>::to(&self.options.kafka.topic)
            .key(record.key)
            .partition(record.partition)
            .timestamp(record.timestamp_ms);
        message.payload = record.value;
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    if self.live.stop.load(Relaxed) {
                        bail!("Kafka takes nothing any more, and the run was ended: the producer's queue is full");
                    }
                    message = refused;
                    self.producer.poll(WAIT_FOR_ROOM);
                }
                Err((error, _)) => return Err(anyhow!(error).context("cannot hand a record to the producer")),
            }
        }
    }

    fn between_batches(&mut self, punctuality: &Punctuality) -> bool {
        self.live.sent.store(punctuality.sent, Relaxed);
        self.live.slipped.store(punctuality.slipped, Relaxed);
        self.live.worst_us.store(punctuality.worst.as_micros() as u64, Relaxed);
        if self.last_poll.elapsed() > POLL_INTERVAL {
            self.producer.poll(Duration::ZERO);
            self.last_poll = Instant::now();
        }
        self.live.stop.load(Relaxed)
    }
}

impl Sender {
    fn finish(self, punctuality: Punctuality, sending: Duration) -> anyhow::Result<Outcome> {
        let flushing = Instant::now();
        self.producer.flush(FLUSH_TIMEOUT).context(
            "Kafka has not acknowledged everything two minutes after the last record: look at the broker's log",
        )?;
        self.producer.poll(Duration::ZERO);
        let (sent, labels) = self.fleet.into_books();
        let failed = self.live.failed.load(Relaxed);
        Ok(Outcome { punctuality, sent, labels, failed, sending, flushing: flushing.elapsed() })
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
