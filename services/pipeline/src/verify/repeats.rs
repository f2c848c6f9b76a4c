//! (B) Duplicates, told again by a plain reading of `docs/architecture.md`. It shares no code with the pipeline's own: runs
//! of numbers instead of bits.
//!
//! * A sensor's readings are numbered from 1 on. A number among the last 256 that was there in this life is a duplicate.
//! * A number that is not higher, at a later time than any before, begins another life; so does a leap by more than a
//!   million.
//! * What is older than the life, or further back, is not told.

use std::collections::HashMap;

use super::totals::ArchivedEvent;

const HORIZON: i64 = 256;
const LARGEST_GAP: i64 = 1_000_000;

/// What a reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// With it so many more are missing.
    New(i64),
    Duplicate,
    Restart,
    Untold,
}

/// What was there of all sensors of a partition.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Whether all segments are gone through, so that marks can be told again.
    is_recomputed: bool,
    field: Option<String>,
    lives: HashMap<Box<str>, Life>,
}

#[derive(Debug)]
struct Life {
    /// First and last of the numbers that were there, in order, with gaps between.
    runs: Vec<(i64, i64)>,
    lowest: i64,
    newest_ms: i64,
    since_ms: i64,
}

impl Repeats {
    pub(super) fn new(is_recomputed: bool) -> Self {
        Self { is_recomputed, ..Self::default() }
    }

    /// A segment begins in which that field numbered the readings. What another one did means nothing in it.
    pub(super) fn begin_segment(&mut self, field: Option<&str>) {
        if self.field.as_deref() != field {
            self.lives.clear();
            self.field = field.map(str::to_owned);
        }
    }

    /// What the next reading of the partition is; as it is marked, where that cannot be told again.
    pub(super) fn tell(&mut self, sensor: &str, event: &ArchivedEvent) -> Told {
        if !self.is_recomputed {
            return if event.is_marked { Told::Duplicate } else { Told::Untold };
        }
        if event.sequence < 1 {
            return Told::Untold;
        }
        if let Some(life) = self.lives.get_mut(sensor) {
            return life.tell(event.sequence, event.time_ms);
        }
        self.lives.insert(sensor.into(), Life::new(event.sequence, event.time_ms, i64::MIN));
        Told::New(0)
    }

    /// A segment ends: sensors that were silent for long are forgotten, if they are an eighth of all.
    pub(super) fn forget_silent(&mut self, before_ms: i64) {
        let silent = self.lives.values().filter(|life| life.newest_ms < before_ms).count();
        if silent > 0 && silent * 8 >= self.lives.len() {
            self.lives.retain(|_, life| life.newest_ms >= before_ms);
        }
    }
}

impl Life {
    fn new(number: i64, time_ms: i64, since_ms: i64) -> Self {
        Self { runs: vec![(number, number)], lowest: number, newest_ms: time_ms, since_ms }
    }

    fn tell(&mut self, number: i64, time_ms: i64) -> Told {
        if time_ms < self.since_ms {
            return Told::Untold;
        }
        let highest = self.runs.last().map_or(number, |(_, last)| *last);
        if number > highest && number - highest <= LARGEST_GAP {
            self.insert(number);
            self.newest_ms = self.newest_ms.max(time_ms);
            self.runs.retain(|(_, last)| *last > number - HORIZON);
            return Told::New(number - highest - 1);
        }
        if number > highest || time_ms > self.newest_ms {
            let newest_ms = self.newest_ms.max(time_ms);
            *self = Self { newest_ms, ..Self::new(number, time_ms, time_ms) };
            return Told::Restart;
        }
        if number <= highest - HORIZON {
            return Told::Untold;
        }
        if self.runs.iter().any(|(first, last)| (*first..=*last).contains(&number)) {
            return Told::Duplicate;
        }
        self.insert(number);
        let missing = if number < self.lowest { self.lowest - number - 1 } else { -1 };
        self.lowest = self.lowest.min(number);
        Told::New(missing)
    }

    fn insert(&mut self, number: i64) {
        let at = self.runs.partition_point(|(first, _)| *first < number);
        let joins_before = at > 0 && self.runs[at - 1].1 + 1 == number;
        let joins_behind = self.runs.get(at).is_some_and(|(first, _)| number + 1 == *first);
        match (joins_before, joins_behind) {
            (true, true) => self.runs[at - 1].1 = self.runs.remove(at).1,
            (true, false) => self.runs[at - 1].1 = number,
            (false, true) => self.runs[at].0 = number,
            (false, false) => self.runs.insert(at, (number, number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use kappa_core::duplicates::{Duplicates, Verdict};
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// The pipeline's and this are independent implementations: on any stream they must agree.
    #[test]
    fn it_agrees_with_the_pipelines_on_random_streams() {
        let mut told_of = HashMap::<&str, u32>::new();
        for seed in 0..200 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut theirs = Duplicates::new("sequence", seed);
            let mut ours = Repeats::new(true);
            ours.begin_segment(Some("sequence"));
            let (mut number, mut clock_ms) = (random.random_range(0..1_000), 0);
            for _ in 0..2_000 {
                clock_ms += random.random_range(0..30);
                number = match random.random_range(0..300) {
                    0 => random.random_range(0..50),
                    1 => number + random.random_range(0..600),
                    2 => number + 3_000_000,
                    3 => i64::MAX - random.random_range(0..3),
                    _ => i64::min(number, i64::MAX - 1) + 1,
                };
                let back = if random.random_bool(0.4) { random.random_range(0..300) } else { 0 };
                let (sequence, time_ms) = (number - back, clock_ms - back * random.random_range(10..12));
                let event = ArchivedEvent { offset: 0, time_ms, value: 0.0, is_bad: false, sequence, is_marked: false };
                let sensor = ["a", "b"][random.random_range(0..2)];
                let expected = match sequence {
                    1.. => theirs.judge(u32::from(sensor == "b"), || sensor, sequence, time_ms),
                    _ => Verdict::Untold,
                };
                let found = ours.tell(sensor, &event);
                let (as_told, name) = match expected {
                    Verdict::New { missing } => (Told::New(missing), "new"),
                    Verdict::Duplicate => (Told::Duplicate, "duplicate"),
                    Verdict::Restart => (Told::Restart, "restart"),
                    Verdict::Untold => (Told::Untold, "untold"),
                };
                assert_eq!(found, as_told, "seed {seed}: number {sequence} at {time_ms}");
                *told_of.entry(name).or_default() += 1;
                if random.random_bool(0.002) {
                    theirs.forget_silent(clock_ms - 2_000);
                    ours.forget_silent(clock_ms - 2_000);
                }
            }
        }
        assert!(told_of.len() == 4 && told_of.values().all(|count| *count > 1_000), "{told_of:?}");
    }

    #[test]
    fn what_another_field_numbered_is_forgotten() {
        let event = ArchivedEvent { offset: 0, time_ms: 0, value: 0.0, is_bad: false, sequence: 1, is_marked: false };
        let mut repeats = Repeats::new(true);
        for (field, told) in [("n", Told::New(0)), ("n", Told::Duplicate), ("m", Told::New(0)), ("m", Told::Duplicate)]
        {
            repeats.begin_segment(Some(field));
            assert_eq!(repeats.tell("a", &event), told);
        }
    }
}
