//! Sends what the fleet measures, on schedule, from a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Statistics};

use super::backpressure::Positions;
use super::fleet::Fleet;
use super::fleet::message::{Message, SCHEMA_GUID_HEADER, Ticket};
use super::produced::{Produced, Punctuality};
use super::schedule::Schedule;

/// How often the schedule is looked at.
const TICK: Duration = Duration::from_millis(4);

/// A backlog is made up for at so many times the rate and not in one burst, which would overrun the embedded broker's
/// log.
const CATCH_UP: f64 = 3.0;

/// How long the delivery reports are served at least in a tick.
const SHORTEST_POLL: Duration = Duration::from_micros(200);

/// How long the last records may take to be acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// What the producer needs to know.
#[derive(Debug)]
pub struct ProducerOptions {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Where the readings go.
    pub topic: String,
    /// Records a second.
    pub rate: u32,
    /// Where acknowledged records are entered.
    pub produced: Arc<Produced>,
    /// How far the pipeline is.
    pub positions: Arc<Positions>,
}

/// The producer at work.
#[derive(Debug)]
pub struct RunningProducer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Fleet>>,
}

impl RunningProducer {
    /// Starts sending.
    pub fn start(options: ProducerOptions, fleet: Fleet) -> anyhow::Result<Self> {
        let client = create_client(&options)?;
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work {
            client,
            schedule: Schedule::new(options.rate),
            options,
            fleet,
            held_back: Duration::ZERO,
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name("demo-producer".to_owned())
            .spawn(move || work.send_until_stopped())
            .context("start a thread for the producer")?;
        Ok(Self { stop, thread })
    }

    /// Whether it has ended by itself, which it does only when something is wrong.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops sending and waits until everything sent is acknowledged. Gives the fleet back, with its labels. Blocks.
    pub fn stop(self) -> anyhow::Result<Fleet> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow!("the producer has panicked"))?
    }
}

fn create_client(options: &ProducerOptions) -> anyhow::Result<BaseProducer<DeliveryReports>> {
    ClientConfig::new()
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", "kappa-demo-fleet")
        .set("compression.type", "lz4")
        // As Java's producers do it, so that a key lands in the same partition whoever sends it.
        .set("partitioner", "murmur2_random")
        // Long, since the embedded broker gives a consumer one batch a partition and fetch.
        .set("linger.ms", "50")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "500000")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("statistics.interval.ms", "1000")
        .create_with_context(DeliveryReports { produced: Arc::clone(&options.produced) })
        .context("create the producer")
}

struct Work {
    client: BaseProducer<DeliveryReports>,
    options: ProducerOptions,
    schedule: Schedule,
    fleet: Fleet,
    held_back: Duration,
    stop: Arc<AtomicBool>,
}

impl Work {
    fn send_until_stopped(mut self) -> anyhow::Result<Fleet> {
        let started = Instant::now();
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        let mut message = Message::default();
        let mut last_tick = started;
        let mut sent = 0;
        while !self.stop.load(Relaxed) {
            let since_last_tick = last_tick.elapsed();
            last_tick += since_last_tick;
            self.report_punctuality(started.elapsed());
            if self.options.positions.are_far_behind(&self.options.produced) {
                self.client.poll(TICK);
                self.held_back += TICK;
                continue;
            }
            let due = self.schedule.due(started.elapsed()).min(self.most_after(since_last_tick));
            for _ in 0..due {
                let due_at = epoch + self.schedule.take();
                let ticket = self.fleet.next(due_at.as_millis() as i64, &mut message);
                self.send(&message, ticket)?;
                sent += 1;
            }
            // Serves the delivery reports until the next tick; at least a little, however late we are.
            let until_next_tick = TICK.saturating_sub(last_tick.elapsed());
            self.client.poll(until_next_tick.max(SHORTEST_POLL));
        }
        self.client.flush(FLUSH_TIMEOUT).context("wait for the last records to be acknowledged")?;
        self.wait_for_last_reports(sent)?;
        Ok(self.fleet)
    }

    /// The books are closed only when every record sent is in them, one way or the other.
    fn wait_for_last_reports(&self, sent: u64) -> anyhow::Result<()> {
        let until = Instant::now() + FLUSH_TIMEOUT;
        while self.options.produced.accounted() < sent {
            if Instant::now() > until {
                bail!("the fate of some records is not known {FLUSH_TIMEOUT:?} after the last one");
            }
            self.client.poll(TICK);
        }
        Ok(())
    }

    /// How many records may be sent when the last tick was so long ago.
    fn most_after(&self, since_last_tick: Duration) -> u64 {
        (f64::from(self.options.rate) * since_last_tick.max(TICK).as_secs_f64() * CATCH_UP).ceil() as u64
    }

    fn send(&self, message: &Message, ticket: Ticket) -> anyhow::Result<()> {
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.options.topic, ticket.pack())
            .timestamp(message.timestamp_ms);
        if message.has_key {
            record = record.key(&message.key);
        }
        if message.has_value {
            record = record.payload(&message.value);
        }
        if let Some(content) = message.guid_header() {
            let header = Header { key: SCHEMA_GUID_HEADER, value: Some(&content) };
            record = record.headers(OwnedHeaders::new_with_capacity(1).insert(header));
        }
        loop {
            match self.client.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    record = refused;
                    self.client.poll(TICK);
                }
                Err((error, _)) => return Err(anyhow!(error).context("hand a record to the producer")),
            }
        }
    }

    fn report_punctuality(&self, elapsed: Duration) {
        self.options.produced.set_punctuality(Punctuality {
            slip_ms: self.schedule.slip(elapsed).as_millis() as u64,
            largest_slip_ms: self.schedule.largest_slip().as_millis() as u64,
            given_up: self.schedule.given_up(),
            held_back_ms: self.held_back.as_millis() as u64,
        });
    }
}

/// Enters each record as the broker acknowledges it.
struct DeliveryReports {
    produced: Arc<Produced>,
}

impl ClientContext for DeliveryReports {
    fn stats(&self, statistics: Statistics) {
        if statistics.txmsgs > 0 {
            self.produced.measured_wire_bytes(statistics.tx_bytes as f64 / statistics.txmsgs as f64);
        }
    }
}

impl ProducerContext for DeliveryReports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, packed: usize) {
        match (result, Ticket::unpack(packed)) {
            (Ok(message), Some(ticket)) => self.produced.acknowledged(ticket, message.partition(), message.offset()),
            (Err((error, _)), _) => {
                tracing::warn!(%error, "a record was not acknowledged");
                self.produced.failed();
            }
            (Ok(_), None) => self.produced.failed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::embedded::broker::EmbeddedBroker;
    use crate::demo::evolution::Rollout;
    use crate::demo::fleet::FleetOptions;
    use crate::demo::fleet::message::SchemaIds;

    #[test]
    fn the_books_agree_with_the_log() {
        use rdkafka::consumer::{BaseConsumer, Consumer};

        let schemas = SchemaIds { reading: 1, reading_guid: [7; 16], not_avro: 2, incompatible: 3, unknown: 4_000_000 };
        let broker = EmbeddedBroker::start("readings", 4).unwrap();
        let rollout = Rollout::default();
        let fleet = Fleet::new(FleetOptions { sensors: 100, seed: 1, schemas, rollout });
        let produced = Arc::new(Produced::new(fleet.series(), 4));
        let options = ProducerOptions {
            brokers: broker.bootstrap_servers().to_owned(),
            topic: "readings".to_owned(),
            rate: 20_000,
            produced: Arc::clone(&produced),
            positions: Positions::new(4),
        };
        let producer = RunningProducer::start(options, fleet).unwrap();
        thread::sleep(Duration::from_millis(1_500));
        producer.stop().unwrap();

        let counts = produced.counts();
        assert_eq!(counts.failed, 0);
        assert!(produced.total() > 10_000, "{counts:?}");
        let reader: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().unwrap();
        let end = |partition| reader.fetch_watermarks("readings", partition, FLUSH_TIMEOUT).unwrap().1;
        let ends: Vec<i64> = (0..4).map(end).collect();
        assert_eq!(counts.end_offsets, ends);
        assert_eq!(ends.iter().sum::<i64>() as u64, produced.total());
    }
}
