//! A fleet of sensors, simulated: seeded, so that the same seed and the same clock give the same records.
//!
//! A tenth of the sensors reports ten times as often as the others, as in real fleets; these are the ones whose
//! anomalies a short demo can show.

pub mod flaw;
pub mod message;
pub mod reading;
pub mod signal;

use std::f64::consts::TAU;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use flaw::Flaw;
use message::{Message, Nature, SchemaIds, Ticket};
use reading::{Metric, Quality, Reading};
use signal::{InjectedAnomaly, Signal, seeded};

use super::evolution::Rollout;

/// Places where the sensors stand.
const SITES: usize = 40;

/// One sensor in so many is a fast one.
const FAST_ONE_IN: usize = 10;

/// A fast sensor reports so many times as often.
const FAST_FACTOR: usize = 10;

/// Late events, as a share of all.
const LATE_SHARE: f64 = 0.01;

/// Invalid records, as a share of all.
const INVALID_SHARE: f64 = 0.002;

/// Readings sent a second time, as a share of all.
const REPEATED_SHARE: f64 = 0.001;

/// Records framed with the schema's GUID in a header, as a share of all.
const GUID_SHARE: f64 = 0.002;

/// How late an event may come and still find its window open (`windows.allowed_lateness` is 30 s).
const LATE_MS: std::ops::Range<i64> = 4_000..25_000;

/// How late an event comes whose window is surely closed: a window's length and the allowed lateness lie between.
const VERY_LATE_MS: std::ops::Range<i64> = 100_000..180_000;

/// What it takes the readings of a sensor to the broker. Each sensor has its own way, so that its readings arrive in
/// order unless they are late.
const TRANSIT_MS: std::ops::Range<i64> = 5..250;

/// By how much a sensor's way varies.
const TRANSIT_JITTER_MS: std::ops::Range<i64> = 0..3;

/// How the fleet shall be.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Number of sensors, each with one to three metrics.
    pub sensors: u32,
    /// The same seed gives the same fleet.
    pub seed: u64,
    /// What the records name as their schema.
    pub schemas: SchemaIds,
    /// Says when every second sensor changes to the second version of the schema.
    pub rollout: Rollout,
}

/// The fleet: sensors, their series, and whose turn it is.
#[derive(Debug)]
pub struct Fleet {
    sensors: Vec<Sensor>,
    signals: Vec<Signal>,
    site_names: Vec<String>,
    /// Sensor by sensor in the order in which they report, fast ones several times; gone through again and again.
    turns: Vec<u32>,
    next_turn: usize,
    schemas: SchemaIds,
    rollout: Rollout,
    random: StdRng,
    anomalies: Vec<InjectedAnomaly>,
    /// What is sent once more, since nobody has said that it arrived.
    unheard: Option<(Message, Ticket)>,
}

#[derive(Debug)]
struct Sensor {
    id: String,
    /// Index into the names of sites.
    site: Option<usize>,
    /// Its series are the `metrics` ones from here on.
    first_series: u32,
    metrics: u32,
    sequence: i64,
    transit_ms: i64,
    /// Charge at the start; mains-powered sensors have none.
    battery: Option<f64>,
    /// Typical signal strength; wired sensors have none.
    rssi: Option<f64>,
    attributes: Vec<(&'static str, String)>,
}

impl Fleet {
    /// Builds the fleet.
    pub fn new(options: FleetOptions) -> Self {
        let mut random = seeded(options.seed, 0);
        let site_names: Vec<String> = (1..=SITES).map(|site| format!("plant-{site:02}")).collect();
        let mut signals = Vec::new();
        let mut sensors = Vec::with_capacity(options.sensors as usize);
        for index in 0..options.sensors {
            sensors.push(Sensor::new(index, &mut signals, &mut random));
        }
        let turns = turns(&sensors, &mut random);
        Self {
            sensors,
            signals,
            site_names,
            turns,
            next_turn: 0,
            schemas: options.schemas,
            rollout: options.rollout,
            random: seeded(options.seed, 1),
            anomalies: Vec::new(),
            unheard: None,
        }
    }

    /// Number of series: pairs of sensor and metric.
    pub fn series(&self) -> usize {
        self.signals.len()
    }

    /// Sensor id and metric of every series.
    pub fn series_names(&self) -> Vec<(String, Metric)> {
        let of_sensor = |sensor: &Sensor| {
            let range = sensor.first_series as usize..(sensor.first_series + sensor.metrics) as usize;
            self.signals[range].iter().map(|signal| (sensor.id.clone(), signal.metric)).collect::<Vec<_>>()
        };
        self.sensors.iter().flat_map(of_sensor).collect()
    }

    /// The anomalies put in so far.
    pub fn anomalies(&self) -> &[InjectedAnomaly] {
        &self.anomalies
    }

    /// Writes the next record, due at `timestamp_ms`, into `message`, and says what it is.
    pub fn next(&mut self, timestamp_ms: i64, message: &mut Message) -> Ticket {
        if let Some((unheard, ticket)) = self.unheard.take() {
            *message = Message { timestamp_ms, ..unheard };
            return Ticket { nature: Nature::Repeated, ..ticket };
        }
        let ticket = self.next_reading(timestamp_ms, message);
        if ticket.nature == Nature::OnTime && self.random.random_bool(REPEATED_SHARE) {
            self.unheard = Some((message.clone(), ticket));
        }
        ticket
    }

    fn next_reading(&mut self, timestamp_ms: i64, message: &mut Message) -> Ticket {
        let sensor_index = self.turns[self.next_turn] as usize;
        self.next_turn = (self.next_turn + 1) % self.turns.len();
        let sensor = &mut self.sensors[sensor_index];
        let metric = (sensor.sequence % i64::from(sensor.metrics)) as u32;
        let series = sensor.first_series + metric;
        sensor.sequence += 1;

        let nature = draw_nature(&mut self.random);
        let delay = match nature {
            Nature::Late => self.random.random_range(LATE_MS),
            Nature::VeryLate => self.random.random_range(VERY_LATE_MS),
            Nature::OnTime | Nature::Repeated | Nature::Flawed(_) => {
                sensor.transit_ms + self.random.random_range(TRANSIT_JITTER_MS)
            }
        };
        let event_time_ms = timestamp_ms - delay;
        let signal = &mut self.signals[series as usize];
        let value = match nature {
            Nature::OnTime => signal.live(series, event_time_ms, &mut self.random, &mut self.anomalies),
            _ => signal.plain(event_time_ms, &mut self.random),
        };
        let site = sensor.site.map(|site| self.site_names[site].as_str());
        let reading = sensor.reading(signal, event_time_ms, value, site, &mut self.random);
        message.timestamp_ms = timestamp_ms;
        if let Nature::Flawed(flaw) = nature {
            flaw.write(reading, self.schemas, message);
            return Ticket { nature, series, is_evolved: false };
        }
        message.start(reading.sensor_id);
        if let Some(schema_id) = self.rollout.schema_id().filter(|_| sensor_index % 2 == 1) {
            message.frame(schema_id);
            reading.encode_evolved(&mut message.value);
            return Ticket { nature, series, is_evolved: true };
        }
        if self.random.random_bool(GUID_SHARE) {
            message.schema_guid = Some(self.schemas.reading_guid);
        } else {
            message.frame(self.schemas.reading);
        }
        reading.encode(&mut message.value);
        Ticket { nature, series, is_evolved: false }
    }
}

impl Sensor {
    fn new(index: u32, signals: &mut Vec<Signal>, random: &mut StdRng) -> Self {
        let first_series = signals.len() as u32;
        let site = random.random_range(0..SITES);
        // Sites lie in different time zones.
        let site_phase = TAU * site as f64 / SITES as f64;
        let mut kinds = Metric::ALL;
        kinds.shuffle(random);
        let metrics = random.random_range(1..=3_u32);
        for metric in &kinds[..metrics as usize] {
            signals.push(Signal::new(*metric, site_phase, random));
        }
        let firmware = ["4.2.0", "4.2.1", "4.3.0-rc1"][random.random_range(0..3)];
        let mut attributes = vec![("firmware", firmware.to_owned())];
        if random.random_bool(0.5) {
            attributes.push(("gateway", format!("gw-{:02}-{}", site + 1, random.random_range(1..4))));
        }
        Self {
            id: format!("sensor-{index:06}"),
            // Somebody forgot to write it down.
            site: (!random.random_bool(0.02)).then_some(site),
            first_series,
            metrics,
            sequence: 0,
            transit_ms: random.random_range(TRANSIT_MS),
            battery: random.random_bool(0.7).then(|| random.random_range(0.2..1.0)),
            rssi: random.random_bool(0.8).then(|| random.random_range(-95.0..-55.0)),
            attributes,
        }
    }

    fn reading<'a>(
        &'a self,
        signal: &Signal,
        event_time_ms: i64,
        value: f64,
        site: Option<&'a str>,
        random: &mut StdRng,
    ) -> Reading<'a> {
        let draw = random.next_u32();
        let quality = match draw % 1_000 {
            0..=3 => Quality::Bad,
            4..=19 => Quality::Uncertain,
            _ => Quality::Good,
        };
        // The radio knows its strength in whole dBm, and now and then not at all.
        let rssi = self.rssi.filter(|_| draw >> 20 & 0xF != 0);
        let rssi = rssi.map(|rssi| rssi.round() + f64::from(draw >> 10 & 0b11) - 1.0);
        // A battery loses its charge over some hundred thousand readings, and tells it in percent.
        let battery =
            self.battery.map(|battery| (battery * 100.0 - self.sequence as f64 / 5_000.0).max(1.0).round() / 100.0);
        Reading {
            sensor_id: &self.id,
            metric: signal.metric,
            event_time_ms,
            value,
            unit: signal.unit,
            quality,
            sequence: self.sequence,
            battery,
            rssi,
            site,
            attributes: &self.attributes,
        }
    }
}

fn turns(sensors: &[Sensor], random: &mut StdRng) -> Vec<u32> {
    let times = |index: usize| if index.is_multiple_of(FAST_ONE_IN) { FAST_FACTOR } else { 1 };
    let mut turns: Vec<u32> =
        (0..sensors.len()).flat_map(|index| std::iter::repeat_n(index as u32, times(index))).collect();
    turns.shuffle(random);
    turns
}

fn draw_nature(random: &mut StdRng) -> Nature {
    let draw: f64 = random.random();
    if draw < INVALID_SHARE {
        return Nature::Flawed(Flaw::ALL[random.random_range(0..Flaw::ALL.len())]);
    }
    if draw < INVALID_SHARE + LATE_SHARE / 2.0 {
        return Nature::Late;
    }
    if draw < INVALID_SHARE + LATE_SHARE {
        return Nature::VeryLate;
    }
    Nature::OnTime
}

#[cfg(test)]
mod tests;
