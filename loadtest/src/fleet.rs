//! The sensors, whose turn it is, and what becomes of their readings: late, out of order, broken, anomalous.

use std::collections::BTreeMap;

use crate::encode::{Reading, SensorTraits, Template, TooLong};
use crate::flaw::Flaw;
use crate::random::{Dice, Zipf};
use crate::scenario::{Delay, Scenario};
use crate::signal::{AnomalyKind, Label, Signal, unit_of};

/// Places where the sensors stand.
const SITES: usize = 40;

/// One reading in so many is of bad quality by the sensor's own judgement.
const BAD_QUALITY_ONE_IN: u64 = 250;

/// So many sensors are looked at to find one that may have an anomaly.
const TRIES_FOR_AN_ANOMALY: usize = 16;

/// Milliseconds of a minute.
const MINUTE_MS: f64 = 60_000.0;

/// How the fleet shall be.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Of the registered schema.
    pub schema_id: u32,
    /// Partitions of the topic.
    pub partitions: i32,
}

/// A record to send.
#[derive(Debug, Clone, Copy)]
pub struct Record<'fleet> {
    /// Where to.
    pub partition: i32,
    /// The key.
    pub key: &'fleet [u8],
    /// The value; none for a delete marker.
    pub value: Option<&'fleet [u8]>,
}

/// What was sent, by what has to become of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Events that have to be counted, those of the canaries too.
    pub valid: u64,
    /// Of these, events with an event time before they were due.
    pub late: u64,
    /// Records that have to be among the dead letters, by reason.
    pub invalid: BTreeMap<&'static str, u64>,
}

impl Sent {
    /// All records.
    pub fn records(&self) -> u64 {
        self.valid + self.invalid_records()
    }

    /// Records that have to be among the dead letters.
    pub fn invalid_records(&self) -> u64 {
        self.invalid.values().sum()
    }
}

/// One sensor in its slot.
#[derive(Debug)]
struct Sensor {
    template: Template,
    signal: Signal,
    partition: i32,
    sequence: u64,
}

/// All sensors.
#[derive(Debug)]
pub struct Fleet {
    /// In the order of their turns, which is not that of their numbers: memory is gone through from front to back, and
    /// neighbours in time are in different partitions all the same.
    sensors: Vec<Sensor>,
    canaries: Vec<Sensor>,
    next_turn: usize,
    skew: Option<Zipf>,
    delays: Vec<Delay>,
    invalid_share: f64,
    flaws: usize,
    next_flaw: usize,
    churn: Churn,
    unrest: Unrest,
    options: FleetOptions,
    /// Partitions that get anything.
    busy_partitions: i32,
    dice: Dice,
    spoilt: Vec<u8>,
    sent: Sent,
    labels: Vec<Label>,
}

/// New sensors in the place of old ones.
#[derive(Debug)]
struct Churn {
    interval_ms: Option<f64>,
    next_ms: f64,
    next_slot: usize,
    next_number: u64,
}

/// When the next anomaly begins.
#[derive(Debug)]
struct Unrest {
    interval_ms: Option<f64>,
    next_ms: f64,
    next_kind: usize,
}

impl Fleet {
    /// Builds it. `start_ms` is when the schedule starts.
    pub fn new(scenario: &Scenario, options: FleetOptions, start_ms: i64) -> Result<Self, TooLong> {
        let mut dice = Dice::new(scenario.seed);
        let busy_partitions = (options.partitions - scenario.mix.idle_partitions).max(1);
        let count = scenario.sensors as usize;
        let mut sensors = Vec::with_capacity(count);
        for number in dice.permutation(count) {
            sensors.push(Sensor::new(u64::from(number), &options, busy_partitions, &mut dice)?);
        }
        let canaries = (0..busy_partitions).map(|partition| Sensor::canary(partition, &options, &mut dice));
        let every = |per_ms: f64| (per_ms > 0.0).then(|| 1.0 / per_ms);
        let churn_interval = every(scenario.mix.new_series_per_second / 1_000.0);
        let unrest_interval = every(scenario.anomalies_per_minute / MINUTE_MS);
        Ok(Self {
            canaries: canaries.collect::<Result<_, _>>()?,
            next_turn: 0,
            skew: (scenario.mix.key_skew > 0.0).then(|| Zipf::new(count, scenario.mix.key_skew)),
            delays: scenario.mix.delays.clone(),
            invalid_share: scenario.mix.invalid,
            flaws: Flaw::in_use(scenario.mix.unknown_schemas),
            next_flaw: 0,
            churn: Churn {
                interval_ms: churn_interval,
                next_ms: start_ms as f64 + churn_interval.unwrap_or(0.0),
                next_slot: 0,
                next_number: count as u64,
            },
            unrest: Unrest {
                interval_ms: unrest_interval,
                next_ms: start_ms as f64 + unrest_interval.unwrap_or(0.0),
                next_kind: 0,
            },
            sensors,
            options,
            busy_partitions,
            dice,
            spoilt: Vec::new(),
            sent: Sent::default(),
            labels: Vec::new(),
        })
    }

    /// Partitions that get anything, each of which has a canary.
    pub fn busy_partitions(&self) -> i32 {
        self.busy_partitions
    }

    /// What was handed out, and the anomalies in it.
    pub fn into_books(self) -> (Sent, Vec<Label>) {
        (self.sent, self.labels)
    }

    /// The next record of the load, due at `due_ms`.
    #[inline]
    pub fn next(&mut self, due_ms: i64) -> anyhow::Result<Record<'_>> {
        self.renew(due_ms)?;
        self.disturb(due_ms);
        let slot = self.next_slot();
        let draw = self.dice.unit();
        if draw < self.invalid_share {
            return Ok(self.spoil(slot, due_ms));
        }
        let delay_ms = self.delay_ms(draw - self.invalid_share);
        let time_ms = due_ms - delay_ms;
        let sensor = &mut self.sensors[slot];
        let value = if delay_ms == 0 {
            sensor.signal.live(time_ms, &mut self.dice, &mut self.labels)
        } else {
            self.sent.late += 1;
            sensor.signal.plain(time_ms, &mut self.dice)
        };
        let quality = if self.dice.bits().is_multiple_of(BAD_QUALITY_ONE_IN) { 2 } else { 0 };
        sensor.template.patch(&Reading { time_ms, value, quality, sequence: sensor.sequence });
        sensor.sequence += 1;
        self.sent.valid += 1;
        Ok(self.sensors[slot].record())
    }

    /// Record `number` of the canaries, which take turns; and its partition.
    pub fn canary(&mut self, number: u64, due_ms: i64) -> Record<'_> {
        let index = (number % self.canaries.len() as u64) as usize;
        let canary = &mut self.canaries[index];
        let value = canary.signal.plain(due_ms, &mut self.dice);
        canary.template.patch(&Reading { time_ms: due_ms, value, quality: 0, sequence: canary.sequence });
        canary.sequence += 1;
        self.sent.valid += 1;
        self.canaries[index].record()
    }

    #[inline]
    fn next_slot(&mut self) -> usize {
        if let Some(skew) = &self.skew {
            return skew.draw(&mut self.dice);
        }
        let turn = self.next_turn;
        self.next_turn = if turn + 1 == self.sensors.len() { 0 } else { turn + 1 };
        turn
    }

    /// `draw` is from 0 to below 1; what lies beyond all shares is in time.
    #[inline]
    fn delay_ms(&mut self, mut draw: f64) -> i64 {
        for delay in &self.delays {
            if draw < delay.share {
                return self.dice.between(delay.from.as_millis() as f64, delay.to.as_millis() as f64 + 1.0) as i64;
            }
            draw -= delay.share;
        }
        0
    }

    fn spoil(&mut self, slot: usize, due_ms: i64) -> Record<'_> {
        let flaw = Flaw::ALL[self.next_flaw % self.flaws];
        self.next_flaw += 1;
        *self.sent.invalid.entry(flaw.reason()).or_default() += 1;
        let sensor = &self.sensors[slot];
        let value = sensor.signal.plain(due_ms, &mut self.dice);
        let reading = Reading { time_ms: due_ms, value, quality: 0, sequence: sensor.sequence };
        let has_value = flaw.write(&sensor.template, &reading, &mut self.spoilt);
        let value = has_value.then_some(self.spoilt.as_slice());
        Record { partition: sensor.partition, key: sensor.template.key(), value }
    }

    /// Puts new sensors in the place of the oldest, as often as is due.
    #[inline]
    fn renew(&mut self, due_ms: i64) -> Result<(), TooLong> {
        let Some(interval) = self.churn.interval_ms else {
            return Ok(());
        };
        while due_ms as f64 >= self.churn.next_ms {
            self.churn.next_ms += interval;
            let slot = self.churn.next_slot;
            self.churn.next_slot = (slot + 1) % self.sensors.len();
            self.sensors[slot] =
                Sensor::new(self.churn.next_number, &self.options, self.busy_partitions, &mut self.dice)?;
            self.churn.next_number += 1;
        }
        Ok(())
    }

    /// Begins anomalies, as often as is due, on sensors that have been calm for a while.
    #[inline]
    fn disturb(&mut self, due_ms: i64) {
        let Some(interval) = self.unrest.interval_ms else {
            return;
        };
        while due_ms as f64 >= self.unrest.next_ms {
            self.unrest.next_ms += interval;
            let found = (0..TRIES_FOR_AN_ANOMALY)
                .map(|_| self.dice.below(self.sensors.len()))
                .find(|slot| self.sensors[*slot].signal.is_calm());
            let Some(slot) = found else {
                continue;
            };
            let kind = AnomalyKind::ALL[self.unrest.next_kind % AnomalyKind::ALL.len()];
            self.unrest.next_kind += 1;
            let sensor = &mut self.sensors[slot];
            sensor.signal.begin(kind, self.labels.len(), &mut self.dice);
            let sensor_id = String::from_utf8_lossy(sensor.template.key()).into_owned();
            self.labels.push(Label { sensor_id, kind, first_ms: i64::MAX, last_ms: i64::MIN, complete: false });
        }
    }
}

/// The id of a partition's canary.
pub fn canary_id(partition: i32) -> String {
    format!("canary-{partition:05}")
}

impl Sensor {
    fn new(number: u64, options: &FleetOptions, partitions: i32, dice: &mut Dice) -> Result<Self, TooLong> {
        let metric = dice.below(6) as u8;
        let traits = SensorTraits {
            sensor_id: format!("sensor-{number:06}"),
            metric,
            unit: unit_of(metric),
            battery: (dice.unit() < 0.7).then(|| (dice.between(20.0, 100.0)).round() / 100.0),
            rssi: (dice.unit() < 0.8).then(|| dice.between(-95.0, -55.0).round()),
            // Somebody forgot to write it down.
            site: (dice.unit() < 0.98).then(|| format!("plant-{:02}", dice.below(SITES) + 1)),
            firmware: (dice.unit() < 0.5).then(|| ["4.2.0", "4.2.1", "4.3.0-rc1"][dice.below(3)]),
        };
        Self::of(&traits, (number % partitions as u64) as i32, options, dice)
    }

    fn canary(partition: i32, options: &FleetOptions, dice: &mut Dice) -> Result<Self, TooLong> {
        let traits = SensorTraits {
            sensor_id: canary_id(partition),
            metric: 5,
            unit: unit_of(5),
            battery: None,
            rssi: None,
            site: None,
            firmware: None,
        };
        Self::of(&traits, partition, options, dice)
    }

    fn of(traits: &SensorTraits, partition: i32, options: &FleetOptions, dice: &mut Dice) -> Result<Self, TooLong> {
        Ok(Self {
            template: Template::new(options.schema_id, traits)?,
            signal: Signal::new(traits.metric, dice),
            partition,
            sequence: 0,
        })
    }

    #[inline]
    fn record(&self) -> Record<'_> {
        Record { partition: self.partition, key: self.template.key(), value: Some(self.template.record()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::time::Duration;

    use apache_avro::Schema;
    use apache_avro::types::Value;

    use super::*;
    use crate::encode::tests::decode;
    use crate::registry::SENSOR_READING_SCHEMA;
    use crate::scenario::Mix;

    const START_MS: i64 = 1_790_000_000_000;

    fn fleet(scenario: &Scenario) -> Fleet {
        Fleet::new(scenario, FleetOptions { schema_id: 0x0102, partitions: 4 }, START_MS).unwrap()
    }

    fn scenario(mix: Mix) -> Scenario {
        Scenario { sensors: 50, anomalies_per_minute: 0.0, mix, ..Scenario::default() }
    }

    #[test]
    fn every_sensor_has_its_turn_and_its_partition() {
        let mut fleet = fleet(&scenario(Mix { idle_partitions: 1, ..Mix::default() }));
        let mut partitions: HashMap<Vec<u8>, i32> = HashMap::new();
        for event in 0..100 {
            let record = fleet.next(START_MS + event).unwrap();
            let known = *partitions.entry(record.key.to_vec()).or_insert(record.partition);
            assert_eq!(known, record.partition);
        }
        assert_eq!(partitions.len(), 50);
        assert_eq!(partitions.values().copied().collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2]));
        let record = fleet.canary(5, START_MS);
        assert_eq!((record.partition, record.key), (2, canary_id(2).as_bytes()));
        assert_eq!(fleet.into_books().0, Sent { valid: 101, ..Sent::default() });
    }

    #[test]
    fn shares_are_kept_and_counted() {
        let delay = |share, from, to| Delay { share, from: Duration::from_secs(from), to: Duration::from_secs(to) };
        let mix = Mix { invalid: 0.1, delays: vec![delay(0.2, 1, 3), delay(0.05, 100, 110)], ..Mix::default() };
        let mut fleet = fleet(&scenario(mix));
        let schema = Schema::parse_str(SENSOR_READING_SCHEMA).unwrap();
        let (mut in_time, mut short, mut long) = (0, 0, 0);
        for event in 0..10_000 {
            let invalid_before = fleet.sent.invalid_records();
            let record = fleet.next(START_MS + event).unwrap();
            let value = record.value.map(<[u8]>::to_vec);
            if fleet.sent.invalid_records() > invalid_before {
                continue;
            }
            let Value::TimestampMillis(time) = decode(&schema, &value.unwrap())[2].1 else { panic!("no time") };
            match START_MS + event - time {
                0 => in_time += 1,
                1_000..=3_000 => short += 1,
                100_000..=110_000 => long += 1,
                other => panic!("{other} ms late"),
            }
        }
        let (sent, _) = fleet.into_books();
        assert_eq!(sent.records(), 10_000);
        assert_eq!((sent.valid, sent.late), (in_time + short + long, short + long));
        assert!((900..1_100).contains(&sent.invalid_records()), "{sent:?}");
        assert!((1_850..2_150).contains(&short) && (430..570).contains(&long), "{short} {long}");
        assert_eq!(sent.invalid.len(), Flaw::ALL.len() - 1);
    }

    #[test]
    fn new_sensors_come_on_schedule_and_anomalies_begin_on_known_ones() {
        let mut scenario = scenario(Mix { new_series_per_second: 10.0, ..Mix::default() });
        let mut churning = fleet(&scenario);
        let mut names = BTreeSet::new();
        for event in 0..10_000 {
            names.insert(churning.next(START_MS + event).unwrap().key.to_vec());
        }
        assert!((145..=150).contains(&names.len()), "{}", names.len());

        scenario.mix = Mix::default();
        scenario.anomalies_per_minute = 60.0;
        let mut restless = fleet(&scenario);
        for event in 0..60_000 {
            restless.next(START_MS + event).unwrap();
        }
        let (_, labels) = restless.into_books();
        // Each sensor has a reading every 50 ms and needs 150 to begin with.
        assert!((40..=60).contains(&labels.len()), "{}", labels.len());
        assert!(labels.iter().filter(|label| label.complete).count() > 35);
        assert!(labels.iter().all(|label| label.sensor_id.starts_with("sensor-")));
    }

    #[test]
    fn skew_makes_few_sensors_hot() {
        let mut fleet = fleet(&scenario(Mix { key_skew: 1.2, ..Mix::default() }));
        let mut counts: HashMap<Vec<u8>, u32> = HashMap::new();
        for event in 0..10_000 {
            *counts.entry(fleet.next(START_MS + event).unwrap().key.to_vec()).or_default() += 1;
        }
        assert!(counts.values().max().unwrap() > &2_000);
    }
}
