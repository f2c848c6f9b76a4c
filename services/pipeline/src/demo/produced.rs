//! The books of what was produced: only what the broker has acknowledged counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use super::fleet::flaw::Flaw;
use super::fleet::message::{Nature, Ticket};

/// Counters, written by the producer's delivery reports and read by anyone.
#[derive(Debug)]
pub struct Produced {
    on_time: AtomicU64,
    late: AtomicU64,
    very_late: AtomicU64,
    repeated: AtomicU64,
    /// Valid ones by the second version of the schema.
    evolved: AtomicU64,
    flawed: Vec<AtomicU64>,
    /// Handed over and not acknowledged: these may or may not be in the log.
    failed: AtomicU64,
    /// Per series: whether a valid reading of it is in the log.
    series_seen: Vec<AtomicBool>,
    /// Per partition: the position behind the last acknowledged record.
    end_offsets: Vec<AtomicI64>,
    /// Bytes a message takes on the wire, so also in the broker's log; in hundredths.
    wire_centibytes: AtomicU64,
    /// How late the producer is with its schedule.
    slip_ms: AtomicU64,
    /// The largest of these.
    largest_slip_ms: AtomicU64,
    /// Records that were due and never sent, because the producer was too late with them.
    given_up: AtomicU64,
    /// For how long the producer has held back because the pipeline was far behind.
    held_back_ms: AtomicU64,
}

/// What is in the log, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducedCounts {
    /// Valid records in time.
    pub on_time: u64,
    /// Valid records that are late but find their window open.
    pub late: u64,
    /// Valid records whose window is closed.
    pub very_late: u64,
    /// Valid records that were there already.
    pub repeated: u64,
    /// Valid records by the second version of the schema, however late, also those sent a second time.
    pub evolved: u64,
    /// Invalid records by the reason that the pipeline has to give.
    pub invalid: BTreeMap<String, u64>,
    /// Records whose fate is unknown.
    pub failed: u64,
    /// Series with a valid reading.
    pub series: u64,
    /// Position behind the last record, by partition.
    pub end_offsets: Vec<i64>,
}

/// How the producer keeps its schedule.
#[derive(Debug, Clone, Copy, Default)]
pub struct Punctuality {
    /// Lateness now, milliseconds.
    pub slip_ms: u64,
    /// The largest lateness, milliseconds.
    pub largest_slip_ms: u64,
    /// Records due and never sent.
    pub given_up: u64,
    /// Time held back for the pipeline, milliseconds.
    pub held_back_ms: u64,
}

impl Produced {
    /// Empty books.
    pub fn new(series: usize, partitions: usize) -> Self {
        Self {
            on_time: AtomicU64::new(0),
            late: AtomicU64::new(0),
            very_late: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            evolved: AtomicU64::new(0),
            flawed: Flaw::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            failed: AtomicU64::new(0),
            series_seen: (0..series).map(|_| AtomicBool::new(false)).collect(),
            end_offsets: (0..partitions).map(|_| AtomicI64::new(0)).collect(),
            // Until the first measurement: a record that does not compress at all.
            wire_centibytes: AtomicU64::new(15_000),
            slip_ms: AtomicU64::new(0),
            largest_slip_ms: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            held_back_ms: AtomicU64::new(0),
        }
    }

    /// Enters an acknowledged record.
    pub fn acknowledged(&self, ticket: Ticket, partition: i32, offset: i64) {
        if let Some(end) = self.end_offsets.get(partition as usize) {
            end.fetch_max(offset + 1, Relaxed);
        }
        match ticket.nature {
            Nature::OnTime => self.on_time.fetch_add(1, Relaxed),
            Nature::Late => self.late.fetch_add(1, Relaxed),
            Nature::VeryLate => self.very_late.fetch_add(1, Relaxed),
            Nature::Repeated => self.repeated.fetch_add(1, Relaxed),
            Nature::Flawed(flaw) => {
                self.flawed[flaw as usize].fetch_add(1, Relaxed);
                return;
            }
        };
        if ticket.is_evolved {
            self.evolved.fetch_add(1, Relaxed);
        }
        if let Some(seen) = self.series_seen.get(ticket.series as usize) {
            seen.store(true, Relaxed);
        }
    }

    /// Enters a record that the client library gave up.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// Enters what a record takes on the wire on average.
    pub fn measured_wire_bytes(&self, bytes: f64) {
        self.wire_centibytes.store((bytes * 100.0) as u64, Relaxed);
    }

    /// Enters how the producer keeps its schedule.
    pub fn set_punctuality(&self, punctuality: Punctuality) {
        self.slip_ms.store(punctuality.slip_ms, Relaxed);
        self.largest_slip_ms.store(punctuality.largest_slip_ms, Relaxed);
        self.given_up.store(punctuality.given_up, Relaxed);
        self.held_back_ms.store(punctuality.held_back_ms, Relaxed);
    }

    /// How the producer keeps its schedule.
    pub fn punctuality(&self) -> Punctuality {
        Punctuality {
            slip_ms: self.slip_ms.load(Relaxed),
            largest_slip_ms: self.largest_slip_ms.load(Relaxed),
            given_up: self.given_up.load(Relaxed),
            held_back_ms: self.held_back_ms.load(Relaxed),
        }
    }

    /// Bytes of an average record in the broker's log.
    pub fn wire_bytes(&self) -> f64 {
        self.wire_centibytes.load(Relaxed) as f64 / 100.0
    }

    /// Positions behind the last acknowledged record, by partition.
    pub fn end_offsets(&self) -> impl ExactSizeIterator<Item = i64> {
        self.end_offsets.iter().map(|end| end.load(Relaxed))
    }

    /// Acknowledged valid records by the second version of the schema.
    pub fn evolved(&self) -> u64 {
        self.evolved.load(Relaxed)
    }

    /// Acknowledged records of any kind.
    pub fn total(&self) -> u64 {
        let invalid: u64 = self.flawed.iter().map(|count| count.load(Relaxed)).sum();
        let valid = [&self.on_time, &self.late, &self.very_late, &self.repeated];
        valid.into_iter().map(|count| count.load(Relaxed)).sum::<u64>() + invalid
    }

    /// Records whose fate is known: acknowledged, or given up.
    pub fn accounted(&self) -> u64 {
        self.total() + self.failed.load(Relaxed)
    }

    /// Everything at once.
    pub fn counts(&self) -> ProducedCounts {
        let mut invalid = BTreeMap::new();
        for (flaw, count) in Flaw::ALL.into_iter().zip(&self.flawed) {
            *invalid.entry(flaw.reason().name().into_owned()).or_default() += count.load(Relaxed);
        }
        ProducedCounts {
            on_time: self.on_time.load(Relaxed),
            late: self.late.load(Relaxed),
            very_late: self.very_late.load(Relaxed),
            repeated: self.repeated.load(Relaxed),
            evolved: self.evolved(),
            invalid,
            failed: self.failed.load(Relaxed),
            series: self.series_seen.iter().filter(|seen| seen.load(Relaxed)).count() as u64,
            end_offsets: self.end_offsets().collect(),
        }
    }
}

impl ProducedCounts {
    /// Records in the log.
    pub fn total(&self) -> u64 {
        self.valid() + self.repeated + self.invalid_total()
    }

    /// Valid records, however late, each once.
    pub fn valid(&self) -> u64 {
        self.on_time + self.late + self.very_late
    }

    /// Invalid records of all kinds.
    pub fn invalid_total(&self) -> u64 {
        self.invalid.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_records_are_counted_by_what_they_are() {
        let produced = Produced::new(3, 2);
        let enter = |nature, series, partition, offset| {
            produced.acknowledged(Ticket { nature, series, is_evolved: series == 1 }, partition, offset);
        };
        enter(Nature::OnTime, 0, 0, 0);
        enter(Nature::OnTime, 0, 0, 1);
        enter(Nature::Late, 1, 1, 0);
        enter(Nature::VeryLate, 1, 1, 1);
        enter(Nature::Repeated, 1, 1, 2);
        enter(Nature::Flawed(Flaw::UnknownSchemaId), 2, 1, 3);
        enter(Nature::Flawed(Flaw::UnknownSchemaGuid), 2, 1, 4);
        produced.failed();
        let counts = produced.counts();
        assert_eq!((counts.on_time, counts.late, counts.very_late, counts.failed), (2, 1, 1, 1));
        assert_eq!((counts.valid(), counts.repeated, counts.invalid_total()), (4, 1, 2));
        assert_eq!((produced.total(), counts.total()), (7, 7));
        assert_eq!(counts.invalid["unknown_schema_id"], 2);
        assert_eq!(counts.evolved, 3);
        assert_eq!(counts.series, 2);
        assert_eq!(counts.end_offsets, [2, 5]);
    }
}
