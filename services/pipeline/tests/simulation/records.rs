//! The records of a run, encoded by hand: independent of the decoder under test.

use crate::world::World;

/// A small schema keeps a run short; the decoder has its own tests.
pub(crate) const READER: &str = r#"{"type": "record", "name": "Reading", "fields": [
    {"name": "sensor_id", "type": "string"},
    {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "value", "type": "double"},
    {"name": "sequence", "type": "long"}]}"#;

/// What the registry will say of the schema that a record names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// Known from the start.
    Known,
    /// Unknown at first, known from some time on: owners that ask at different times hear different answers.
    KnownLater,
    /// Never known.
    Unknown,
}

impl Writer {
    pub(crate) fn id(self) -> i32 {
        match self {
            Self::Known => 1,
            Self::KnownLater => 2,
            Self::Unknown => 3,
        }
    }
}

/// One record of the log, and what it means.
#[derive(Debug, Clone)]
pub(crate) struct SimRecord {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) writer: Writer,
    pub(crate) content: Content,
}

/// What a record holds, apart from its schema.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Reading {
        series: String,
        time_ms: i64,
        value: f64,
        /// What the sensor numbers it by. The same number again may be a duplicate, or a sensor that counts anew.
        number: i64,
    },
    /// Refused for this reason whatever the registry says.
    Bad(&'static str),
}

/// The next record at log position `offset`.
pub(crate) fn make(world: &World, offset: i64) -> SimRecord {
    let timestamp_ms = world.now_ms();
    let writer = match world.below(100) {
        drawn if drawn < world.late_schemas() => Writer::KnownLater,
        99 => Writer::Unknown,
        _ => Writer::Known,
    };
    // The sensor follows from the number, so that a number that comes again is the same sensor's.
    let number = (1 + offset - if world.happens(6) { world.below(60) as i64 } else { 0 }).max(1);
    let series = format!("sensor-{}", number * 7 % 5);
    // Most on time, some late within the lateness of 2 s, some later than that.
    let late_ms = match world.below(10) {
        0 => world.below(20_000),
        1..3 => world.below(2_500),
        _ => world.below(300),
    };
    let time_ms = timestamp_ms - late_ms as i64;
    let value = (world.below(2_000) as f64 - 1_000.0) / 8.0 * if world.happens(1) { 1e4 } else { 1.0 };
    let mut body = encode(&series, time_ms, value, number);
    let mut content = Content::Reading { series: series.clone(), time_ms, value, number };
    let mut value = None;
    match world.below(50) {
        0 => content = Content::Bad("tombstone"),
        1 => {
            body.truncate(body.len() - 1);
            content = Content::Bad("truncated_body");
        }
        2 => {
            body.push(0);
            content = Content::Bad("trailing_bytes");
        }
        3 => {
            body = encode(&series, timestamp_ms + 3_600_000, 1.0, number);
            content = Content::Bad("event_time_in_future");
        }
        _ => {}
    }
    if content != Content::Bad("tombstone") {
        let mut framed = vec![0];
        framed.extend_from_slice(&writer.id().to_be_bytes());
        framed.extend_from_slice(&body);
        value = Some(framed);
    }
    SimRecord { offset, timestamp_ms, key: series.into_bytes(), value, writer, content }
}

fn encode(series: &str, time_ms: i64, value: f64, number: i64) -> Vec<u8> {
    let mut out = Vec::new();
    push_long(&mut out, series.len() as i64);
    out.extend_from_slice(series.as_bytes());
    push_long(&mut out, time_ms);
    out.extend_from_slice(&value.to_le_bytes());
    push_long(&mut out, number);
    out
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
