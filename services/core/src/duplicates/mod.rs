//! Duplicates: a producer that sends a reading again must not inflate the aggregates.
//!
//! A sensor numbers its readings, each by one more than the last. A number that was there already is a duplicate: it
//! stays in the archive, marked, and is left out of the windows. What is remembered of a sensor is one cache line:
//! which of the last [`HORIZON`] numbers were seen, as the sliding window of IPsec does against replayed packets
//! (RFC 4303, section 3.4.3). It is a part of the partition's state, so a replay comes to the same marks.
//!
//! * A number that goes back while the event time goes on is a sensor that has started anew, not a duplicate: it
//!   begins another *life*, and its numbers count afresh.
//! * What is older than the sensor's life, or further back than the horizon, cannot be told: it counts as a reading.
//! * Numbers from 1 on count. A reading without one (null, zero: what a schema says for a writer that has none) is never
//!   a duplicate.

use crate::prefetch::prefetch;
use crate::snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};
use crate::windows::{SeriesId, SeriesTable};

/// How many numbers behind the highest a duplicate is still told.
pub const HORIZON: i64 = 64 * WORDS as i64;
const WORDS: usize = 4;

/// A jump ahead by more than this is no loss but a sensor that counts from somewhere else.
const LARGEST_GAP: i64 = 1_000_000;

/// For a series whose sensor was not looked up yet.
const UNKNOWN: u32 = u32::MAX;

/// What a reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not there before. Readings of the sensor that are missing now, more than before: those between the highest number so
    /// far and this one; less than before where it fills a gap.
    New {
        /// See above.
        missing: i64,
    },
    /// There already.
    Duplicate,
    /// The first of a sensor that counts anew.
    Restart,
    /// Too far back to be told; counted as a reading.
    Untold,
}

/// What is known of all sensors of a partition.
#[derive(Debug)]
pub struct Duplicates {
    /// The field that numbers the readings.
    field: String,
    /// By the first field of the series key.
    sensors: SeriesTable,
    seen: Vec<Seen>,
    /// The sensor of each series.
    of_series: Vec<u32>,
}

/// The numbers of one sensor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(align(64))]
struct Seen {
    highest: i64,
    /// Of this life.
    lowest: i64,
    /// The largest event time.
    newest_ms: i64,
    /// Event time at which this life began; the first life has always been.
    since_ms: i64,
    /// Bit `n` of all: number `highest - n` was there.
    readings: [u64; WORDS],
}

impl Duplicates {
    /// Nothing was seen. `field` numbers the readings; `hash_seed` changes no output.
    pub fn new(field: &str, hash_seed: u64) -> Self {
        Self { field: field.to_owned(), sensors: SeriesTable::new(hash_seed), seen: Vec::new(), of_series: Vec::new() }
    }

    /// Judges the next reading of the partition in log order. `sensor`: the first field of the key of `series`.
    #[inline]
    pub fn judge<'a>(
        &mut self,
        series: SeriesId,
        sensor: impl FnOnce() -> &'a str,
        number: i64,
        time_ms: i64,
    ) -> Verdict {
        let known = self.of_series.get(series as usize).copied().filter(|known| *known != UNKNOWN);
        let index = known.unwrap_or_else(|| self.look_up(series, sensor()));
        if let Some(seen) = self.seen.get_mut(index as usize) {
            return seen.judge(number, time_ms);
        }
        self.seen.push(Seen::of_first(number, time_ms));
        Verdict::New { missing: 0 }
    }

    /// Begins to load what [`Self::judge`] will need.
    #[inline]
    pub fn prefetch(&self, series: SeriesId) {
        if let Some(index) = self.of_series.get(series as usize) {
            prefetch(&self.seen, *index as usize);
        }
    }

    #[cold]
    fn look_up(&mut self, series: SeriesId, sensor: &str) -> u32 {
        let index = self.sensors.intern(&[sensor]);
        let series = series as usize;
        if series >= self.of_series.len() {
            self.of_series.resize((series + 1).next_power_of_two(), UNKNOWN);
        }
        self.of_series[series] = index;
        index
    }

    /// The field that numbers the readings.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The ids of the series have changed.
    pub fn forget_series(&mut self) {
        self.of_series.clear();
    }

    /// Forgets the sensors whose newest reading is from before `horizon_ms`, if they are an eighth of all.
    pub fn forget_silent(&mut self, horizon_ms: i64) {
        let silent = self.seen.iter().filter(|seen| seen.newest_ms < horizon_ms).count();
        if silent == 0 || silent * 8 < self.seen.len() {
            return;
        }
        let mut kept = Self::new(&self.field, self.sensors.seed());
        for (id, seen) in self.seen.iter().enumerate().filter(|(_, seen)| seen.newest_ms >= horizon_ms) {
            self.sensors.key(id as SeriesId).parts().for_each(|sensor| _ = kept.sensors.intern(&[sensor]));
            kept.seen.push(seen.clone());
        }
        *self = kept;
    }

    /// Bytes held, for the memory budget.
    pub fn memory(&self) -> usize {
        self.sensors.memory() + self.seen.capacity() * size_of::<Seen>() + self.of_series.capacity() * size_of::<u32>()
    }

    /// Writes all sensors.
    pub fn save(&self, into: &mut SnapshotWriter) {
        into.text(&self.field);
        into.u32(self.seen.len() as u32);
        for (id, seen) in self.seen.iter().enumerate() {
            self.sensors.key(id as SeriesId).parts().for_each(|sensor| into.text(sensor));
            for number in [seen.highest, seen.lowest, seen.newest_ms, seen.since_ms] {
                into.i64(number);
            }
            seen.readings.iter().for_each(|word| into.u64(*word));
        }
    }

    /// Writes that nothing is told apart.
    pub fn save_none(into: &mut SnapshotWriter) {
        into.text("");
        into.u32(0);
    }

    /// Reads what [`Self::save`] wrote. What was counted by another field means nothing now: of that, nothing is kept.
    pub fn load(
        field: Option<&str>,
        hash_seed: u64,
        from: &mut SnapshotReader<'_>,
    ) -> Result<Option<Self>, SnapshotError> {
        let taken = from.text()?.to_owned();
        let mut loaded = Self::new(&taken, hash_seed);
        for expected_id in 0..from.count(4 + 8 * (4 + WORDS))? {
            if loaded.sensors.intern(&[from.text()?]) as usize != expected_id {
                return Err(from.malformed());
            }
            let mut seen = Seen {
                highest: from.i64()?,
                lowest: from.i64()?,
                newest_ms: from.i64()?,
                since_ms: from.i64()?,
                readings: [0; WORDS],
            };
            for word in &mut seen.readings {
                *word = from.u64()?;
            }
            loaded.seen.push(seen);
        }
        Ok(field.map(|field| if taken == field { loaded } else { Self::new(field, hash_seed) }))
    }
}

impl Seen {
    fn of_first(number: i64, time_ms: i64) -> Self {
        let mut readings = [0; WORDS];
        readings[0] = 1;
        Self { highest: number, lowest: number, newest_ms: time_ms, since_ms: i64::MIN, readings }
    }

    #[inline]
    fn judge(&mut self, number: i64, time_ms: i64) -> Verdict {
        if time_ms < self.since_ms {
            return Verdict::Untold;
        }
        let ahead = number.saturating_sub(self.highest);
        if ahead > 0 && ahead <= LARGEST_GAP {
            self.advance(ahead);
            self.highest = number;
            self.newest_ms = self.newest_ms.max(time_ms);
            return Verdict::New { missing: ahead - 1 };
        }
        let starts_anew = ahead > 0 || time_ms > self.newest_ms;
        if starts_anew {
            let newest_ms = self.newest_ms.max(time_ms);
            *self = Self { since_ms: time_ms, newest_ms, ..Self::of_first(number, time_ms) };
            return Verdict::Restart;
        }
        let back = -ahead;
        if back >= HORIZON {
            return Verdict::Untold;
        }
        let (word, bit) = ((back / 64) as usize, 1 << (back % 64));
        if self.readings[word] & bit != 0 {
            return Verdict::Duplicate;
        }
        self.readings[word] |= bit;
        if number >= self.lowest {
            return Verdict::New { missing: -1 };
        }
        let missing = self.lowest - number - 1;
        self.lowest = number;
        Verdict::New { missing }
    }

    /// Moves the window ahead; the number that it comes to was there.
    #[inline]
    fn advance(&mut self, ahead: i64) {
        if ahead < 64 {
            for word in (1..WORDS).rev() {
                self.readings[word] = self.readings[word] << ahead | self.readings[word - 1] >> (64 - ahead);
            }
            self.readings[0] = self.readings[0] << ahead | 1;
            return;
        }
        let (words, bits) = ((ahead / 64) as usize, ahead % 64);
        let before = self.readings;
        for word in (0..WORDS).rev() {
            let low = word.checked_sub(words).map_or(0, |from| before[from] << bits);
            let high =
                word.checked_sub(words + 1).map_or(0, |from| before[from].checked_shr(64 - bits as u32).unwrap_or(0));
            self.readings[word] = low | high;
        }
        self.readings[0] |= 1;
    }
}

#[cfg(test)]
mod tests;
