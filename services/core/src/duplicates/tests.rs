use std::collections::{BTreeMap, BTreeSet};

use super::*;

const SECOND: i64 = 1_000;

fn duplicates() -> Duplicates {
    Duplicates::new("sequence", 1)
}

fn judge(duplicates: &mut Duplicates, sensor: &str, number: i64, time_ms: i64) -> Verdict {
    // Every sensor has two series.
    let series = u32::from(sensor.as_bytes()[0] - b'a') * 2 + u32::from(number % 2 == 0);
    duplicates.judge(series, || sensor, number, time_ms)
}

/// Verdicts on the readings of one sensor, numbered and timed.
fn verdicts(readings: &[(i64, i64)]) -> Vec<Verdict> {
    let mut duplicates = duplicates();
    readings.iter().map(|(number, second)| judge(&mut duplicates, "a", *number, second * SECOND)).collect()
}

const NEW: Verdict = Verdict::New { missing: 0 };

#[test]
fn a_number_that_was_there_is_a_duplicate_whichever_series_it_is_of() {
    assert_eq!(
        verdicts(&[(7, 0), (8, 1), (8, 1), (7, 0), (9, 2), (8, 1)]),
        [NEW, NEW, Verdict::Duplicate, Verdict::Duplicate, NEW, Verdict::Duplicate]
    );
}

#[test]
fn sensors_are_kept_apart() {
    let mut duplicates = duplicates();
    assert_eq!(judge(&mut duplicates, "a", 5, 0), NEW);
    assert_eq!(judge(&mut duplicates, "b", 5, 0), NEW);
    assert_eq!(judge(&mut duplicates, "a", 5, 0), Verdict::Duplicate);
}

#[test]
fn gaps_are_missing_until_they_are_filled() {
    let missing = |missing| Verdict::New { missing };
    assert_eq!(
        verdicts(&[(10, 10), (14, 14), (12, 12), (12, 12), (11, 11), (13, 13), (15, 15)]),
        [NEW, missing(3), missing(-1), Verdict::Duplicate, missing(-1), missing(-1), NEW]
    );
}

#[test]
fn readings_from_before_the_first_widen_what_is_expected() {
    let missing = |missing| Verdict::New { missing };
    assert_eq!(
        verdicts(&[(10, 10), (7, 7), (9, 9), (8, 8), (7, 7)]),
        [NEW, missing(2), missing(-1), missing(-1), Verdict::Duplicate]
    );
}

#[test]
fn a_number_that_goes_back_while_time_goes_on_is_a_restart() {
    let verdicts = verdicts(&[(100, 100), (101, 101), (1, 103), (2, 104), (2, 104), (101, 101), (3, 105), (100, 203)]);
    let expected = [
        NEW,
        NEW,
        Verdict::Restart,
        NEW,
        Verdict::Duplicate,
        // Of the life before.
        Verdict::Untold,
        NEW,
        Verdict::New { missing: 96 },
    ];
    assert_eq!(verdicts, expected);
}

#[test]
fn a_leap_ahead_is_a_sensor_that_counts_from_elsewhere() {
    assert_eq!(
        verdicts(&[(1, 1), (2_000_000_000, 2), (2_000_000_001, 3), (1, 1)]),
        [NEW, Verdict::Restart, NEW, Verdict::Untold]
    );
    assert_eq!(verdicts(&[(i64::MAX, 1), (1, 2), (i64::MAX, 3)]), [NEW, Verdict::Restart, Verdict::Restart]);
}

#[test]
fn beyond_the_horizon_nothing_is_told() {
    let mut readings = vec![(1, 1)];
    readings.push((1 + HORIZON, 1 + HORIZON));
    readings.extend([(1, 1), (2, 2), (2, 2)]);
    assert_eq!(verdicts(&readings)[2..], [Verdict::Untold, Verdict::New { missing: -1 }, Verdict::Duplicate]);
}

/// The same rules over a plain set of numbers.
#[derive(Default)]
struct Plain {
    seen: BTreeSet<i64>,
    newest_ms: i64,
    since_ms: i64,
}

impl Plain {
    fn judge(&mut self, number: i64, time_ms: i64) -> &'static str {
        let Some(highest) = self.seen.last().copied() else {
            (self.seen, self.newest_ms, self.since_ms) = (BTreeSet::from([number]), time_ms, i64::MIN);
            return "new";
        };
        if time_ms < self.since_ms {
            return "untold";
        }
        if number <= highest && time_ms > self.newest_ms || number - highest > LARGEST_GAP {
            (self.seen, self.newest_ms) = (BTreeSet::from([number]), self.newest_ms.max(time_ms));
            self.since_ms = time_ms;
            return "restart";
        }
        if number <= highest - HORIZON {
            return "untold";
        }
        self.newest_ms = if number > highest { self.newest_ms.max(time_ms) } else { self.newest_ms };
        if self.seen.insert(number) { "new" } else { "duplicate" }
    }
}

#[test]
fn it_agrees_with_a_plain_set_on_random_readings_and_across_snapshots() {
    let mut random = 1_u64;
    let mut below = move |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    for _ in 0..200 {
        let (mut told, mut plain) = (duplicates(), BTreeMap::<&str, Plain>::new());
        let (mut number, mut missing, mut lives) = (1 + below(50) as i64, 0, 0);
        for step in 0..3_000_i64 {
            let sensor = ["a", "b", "c"][below(3) as usize];
            number = match below(400) {
                0 => 1 + below(100) as i64,
                1 => number + below(3_000) as i64,
                2 => number + 2 * LARGEST_GAP,
                _ => number + 1,
            };
            let back = if below(4) == 0 { below(400) as i64 } else { 0 };
            let (number, time_ms) = ((number - back).max(1), (step - back) * 7);
            let verdict = judge(&mut told, sensor, number, time_ms);
            let expected = plain.entry(sensor).or_default().judge(number, time_ms);
            let found = match verdict {
                Verdict::New { missing: more } => {
                    missing += more;
                    "new"
                }
                Verdict::Duplicate => "duplicate",
                Verdict::Restart => "restart",
                Verdict::Untold => "untold",
            };
            assert_eq!(found, expected, "number {number} of {sensor} at {time_ms}");
            lives += i64::from(found == "restart");
            if below(500) == 0 {
                let mut writer = SnapshotWriter::new();
                told.save(&mut writer);
                let bytes = writer.finish();
                let mut reader = SnapshotReader::open(&bytes).unwrap();
                told = Duplicates::load(Some("sequence"), 1, &mut reader).unwrap().unwrap();
                reader.finish().unwrap();
            }
        }
        if lives == 0 {
            let expected: i64 = plain
                .values()
                .map(|plain| plain.seen.last().unwrap() - plain.seen.first().unwrap() + 1 - plain.seen.len() as i64)
                .sum();
            assert!(missing >= expected, "what is beyond the horizon stays missing: {missing}, {expected}");
        }
    }
}

#[test]
fn what_another_field_numbered_is_forgotten() {
    let mut told = duplicates();
    judge(&mut told, "a", 5, 0);
    let mut writer = SnapshotWriter::new();
    told.save(&mut writer);
    let bytes = writer.finish();
    let load = |field| Duplicates::load(field, 1, &mut SnapshotReader::open(&bytes).unwrap()).unwrap();
    assert_eq!(judge(&mut load(Some("sequence")).unwrap(), "a", 5, 0), Verdict::Duplicate);
    assert_eq!(judge(&mut load(Some("counter")).unwrap(), "a", 5, 0), NEW);
    assert!(load(None).is_none());
}

#[test]
fn silent_sensors_are_forgotten_and_the_rest_stays() {
    let mut told = duplicates();
    judge(&mut told, "a", 5, 0);
    judge(&mut told, "b", 5, 10_000);
    told.forget_silent(5_000);
    assert_eq!(told.seen.len(), 1);
    assert_eq!(judge(&mut told, "b", 5, 10_000), Verdict::Duplicate);
    assert_eq!(judge(&mut told, "a", 5, 0), NEW);
}
