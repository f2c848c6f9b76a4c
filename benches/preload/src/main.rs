//! Fills a topic with readings of the default schema (`schemas/sensor-reading.avsc`), encoded by hand, for the drain
//! benchmark. The readings lie in the past, as a backlog does.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Parser;
use kappa_preload::TopicArguments;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// The rate that a backlog is spread over, so that it has as many windows as the same events would have had live.
const BACKLOG_RATE: u64 = 50_000;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    topic: TopicArguments,
    /// Of the registered schema that `--shape` asks for.
    #[arg(long)]
    schema_id: u32,
    /// Of the registered `benches/schemas/evolved.avsc`: every other reading is written with it.
    #[arg(long)]
    second_schema_id: Option<u32>,
    /// Fields of a reading: `flat` is the default schema, `wide` is `benches/schemas/wide.avsc`.
    #[arg(long, value_enum, default_value_t = Shape::Flat)]
    shape: Shape,
    /// How many of a hundred records are broken, in one of four ways.
    #[arg(long, default_value_t = 0)]
    invalid_percent: u64,
    #[arg(long, default_value_t = 100_000)]
    sensors: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shape {
    Flat,
    Wide,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &arguments.topic.brokers)
        .set("compression.type", "lz4")
        .set("linger.ms", "50")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.messages", "500000")
        .set("enable.idempotence", "true")
        .create()
        .context("cannot make a producer")?;
    let started = Instant::now();
    let started_ms = now_ms();
    let mut payload = Vec::with_capacity(128);
    let events = arguments.topic.events;
    // How many each sensor has sent.
    let mut readings = vec![0_i64; arguments.sensors as usize];
    for number in 0..events {
        let age_ms = (events - number) * 1_000 / BACKLOG_RATE;
        let (sensor, timestamp_ms) = (scatter(number) % arguments.sensors, started_ms - age_ms as i64);
        readings[sensor as usize] += 1;
        encode(&mut payload, &arguments, sensor, timestamp_ms, number, readings[sensor as usize]);
        send(&producer, &arguments.topic, sensor, timestamp_ms, &payload)?;
    }
    producer.flush(Duration::from_mins(2)).context("not everything was delivered")?;
    let seconds = started.elapsed().as_secs_f64();
    let per_second = events as f64 / seconds;
    println!("{events} events in {seconds:.1} s, {per_second:.0} a second");
    Ok(())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// A different sensor each time, all of them equally often, in no visible order.
fn scatter(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

fn send(
    producer: &BaseProducer,
    topic: &TopicArguments,
    sensor: u64,
    timestamp_ms: i64,
    payload: &[u8],
) -> anyhow::Result<()> {
    let key = format!("sensor-{sensor:06}");
    let mut record = BaseRecord::to(&topic.topic)
        .key(&key)
        .payload(payload)
        .partition((sensor % topic.partitions as u64) as i32)
        .timestamp(timestamp_ms);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                record = unsent;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error).context("cannot send"),
        }
    }
}

/// One record: framing, fields, and what the arguments ask for besides.
fn encode(out: &mut Vec<u8>, arguments: &Arguments, sensor: u64, time_ms: i64, number: u64, sequence: i64) {
    let second = arguments.second_schema_id.filter(|_| !number.is_multiple_of(2));
    out.clear();
    out.push(0);
    out.extend_from_slice(&second.unwrap_or(arguments.schema_id).to_be_bytes());
    push_reading(out, sensor, time_ms, number, sequence);
    if second.is_some() {
        push_text(out, "2.4.1");
        push_long(out, 1);
        push_long(out, number as i64);
    }
    if arguments.shape == Shape::Wide {
        push_wide(out, sensor, number);
    }
    if scatter(number) % 100 < arguments.invalid_percent {
        spoil(out, number);
    }
}

/// Another magic, a body that is cut off, one that goes on, a length that cannot be.
fn spoil(out: &mut Vec<u8>, number: u64) {
    match number % 4 {
        0 => out[0] = 7,
        1 => out.truncate(out.len() - 3),
        2 => out.extend_from_slice(b"more"),
        _ => out[5] = 0xff,
    }
}

/// The fields that `benches/schemas/wide.avsc` adds.
fn push_wide(out: &mut Vec<u8>, sensor: u64, number: u64) {
    for index in 0..18 {
        out.extend_from_slice(&((scatter(number + index) % 100_000) as f64 / 100.0).to_le_bytes());
    }
    for index in 0..6 {
        let is_set = !number.is_multiple_of(4);
        push_long(out, i64::from(is_set));
        if is_set {
            push_long(out, (number + index) as i64);
        }
    }
    (0..3).for_each(|_| push_text(out, ["idle", "running", "stopped", "fault"][(sensor % 4) as usize]));
    out.extend_from_slice(&(47.0 + sensor as f64 * 1e-5).to_le_bytes());
    out.extend_from_slice(&(8.0 + sensor as f64 * 1e-5).to_le_bytes());
    push_long(out, 8);
    (0..8_u8).for_each(|band| out.extend_from_slice(&(f32::from(band) * 0.5).to_le_bytes()));
    push_long(out, 0);
}

/// `schemas/sensor-reading.avsc`, field by field.
fn push_reading(out: &mut Vec<u8>, sensor: u64, time_ms: i64, number: u64, sequence: i64) {
    push_text(out, &format!("sensor-{sensor:06}"));
    push_long(out, (sensor % 5) as i64);
    push_long(out, time_ms);
    let daily = ((time_ms % 86_400_000) as f64 / 86_400_000.0 * std::f64::consts::TAU).sin();
    let noise = (scatter(number ^ sensor) % 1_000) as f64 / 1_000.0;
    out.extend_from_slice(&((200.0 + 50.0 * daily + noise * 10.0).round() / 10.0).to_le_bytes());
    push_text(out, "Cel");
    push_long(out, i64::from(number.is_multiple_of(97)));
    push_long(out, sequence);
    push_nullable(out, (!sensor.is_multiple_of(3)).then_some(0.87));
    push_nullable(out, sensor.is_multiple_of(2).then_some(-67.0));
    push_long(out, 1);
    push_text(out, ["site-north", "site-south", "site-east", "site-west"][(sensor % 4) as usize]);
    push_long(out, 0);
}

fn push_nullable(out: &mut Vec<u8>, number: Option<f64>) {
    push_long(out, i64::from(number.is_some()));
    out.extend(number.map(f64::to_le_bytes).into_iter().flatten());
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

/// Avro's zigzag varint.
fn push_long(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
