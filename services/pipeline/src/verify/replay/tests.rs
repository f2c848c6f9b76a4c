use std::collections::BTreeMap;
use std::time::Duration;

use kappa_core::anomaly::{ConfiguredDetector, Robust};
use kappa_core::rows::{AnomalyRow, OWN_ROW, WindowRow};
use kappa_core::windows::Windows;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::super::compare::{Comparison, Progressed};
use super::super::hot_rows::FoundRow;
use super::super::report::Report;
use super::*;

const SETTINGS: WindowSettings =
    WindowSettings { length_ms: 60_000, allowed_lateness_ms: 30_000, forget_after_ms: 86_400_000 };

fn replay() -> Replay {
    Replay::new(SETTINGS, Flags::Recomputed(ConfiguredDetector::Off), Scope::ALL)
}

fn event(offset: i64, time_ms: i64, value: f64) -> ArchivedEvent {
    ArchivedEvent { offset, time_ms, value, is_bad: false, sequence: 0, is_marked: false }
}

/// `(series, window start, count, sum, standing)`, in order.
fn brief(rows: Vec<ExpectedRow>) -> Vec<(String, i64, u64, f64, Standing)> {
    let mut brief: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let series = row.series.parts().collect::<Vec<_>>().join("/");
            (series, row.window_start_ms, row.totals.count, row.totals.sum(), row.standing)
        })
        .collect();
    brief.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
    brief
}

#[test]
fn a_window_closes_when_the_watermark_passes_its_end_and_the_lateness() {
    let mut replay = replay();
    replay.add(&["a"], &event(0, 1_000, 1.0));
    replay.add(&["b"], &event(1, 59_999, 2.0));
    // The watermark is 89,999: the first window is still open, and takes an event that is out of order.
    replay.add(&["a"], &event(2, 89_999, 3.0));
    replay.add(&["a"], &event(3, 2_000, 4.0));
    assert_eq!(replay.waiting(), 0);
    // 90,000 closes it; the event itself is of the second window.
    replay.add(&["b"], &event(4, 90_000, 5.0));
    assert_eq!(replay.closed_before_ms(), 60_000);
    let closed = Standing::Closed { by: 4 };
    assert_eq!(brief(replay.take_closed()), [("a".to_owned(), 0, 2, 5.0, closed), ("b".to_owned(), 0, 1, 2.0, closed)]);
    let open = brief(replay.take_open());
    assert_eq!(
        open,
        [("a".to_owned(), 60_000, 1, 3.0, Standing::Open), ("b".to_owned(), 60_000, 1, 5.0, Standing::Open)]
    );
}

#[test]
fn late_events_are_contributions_of_their_segments() {
    let mut replay = replay();
    replay.add(&["a"], &event(0, 0, 1.0));
    replay.add(&["a"], &event(1, 200_000, 2.0));
    replay.add(&["a"], &event(2, 10, 3.0));
    replay.add(&["a"], &event(3, 20, 4.0));
    let late = Standing::Late { segment: 0, end: 4 };
    assert_eq!(brief(replay.end_segment(0, 4)), [("a".to_owned(), 0, 2, 7.0, late)]);
    replay.add(&["a"], &event(4, 30, 5.0));
    let late = Standing::Late { segment: 4, end: 5 };
    assert_eq!(brief(replay.end_segment(4, 5)), [("a".to_owned(), 0, 1, 5.0, late)]);
}

#[test]
fn windows_before_1970_begin_at_multiples_too() {
    let mut replay = replay();
    replay.add(&["a"], &event(0, -1, 1.0));
    replay.add(&["a"], &event(1, -60_000, 2.0));
    replay.add(&["a"], &event(2, -60_001, 3.0));
    replay.add(&["a"], &event(3, 0, 4.0));
    // The one of -60,001 is closed by the first event: its end and the lateness are before -1.
    assert_eq!(
        brief(replay.end_segment(0, 4)),
        [("a".to_owned(), -120_000, 1, 3.0, Standing::Late { segment: 0, end: 4 })]
    );
    let open: Vec<_> =
        brief(replay.take_open()).into_iter().map(|(_, start, count, sum, _)| (start, count, sum)).collect();
    assert_eq!(open, [(-60_000, 2, 3.0), (0, 1, 4.0)]);
}

#[test]
fn windows_out_of_scope_only_move_the_watermark() {
    let scope = Scope { from_ms: 120_000, to_ms: 180_000 };
    let mut replay = Replay::new(SETTINGS, Flags::Recomputed(ConfiguredDetector::Off), scope);
    replay.add(&["a"], &event(0, 0, 1.0));
    replay.add(&["a"], &event(1, 130_000, 2.0));
    replay.skip_segment(400_000, 10);
    replay.add(&["a"], &event(10, 140_000, 3.0));
    assert_eq!(brief(replay.take_closed()), [("a".to_owned(), 120_000, 1, 2.0, Standing::Closed { by: 9 })]);
    assert_eq!(replay.end_segment(10, 11).len(), 1);
}

#[test]
fn keys_are_kept_apart_where_their_texts_run_together() {
    let mut replay = replay();
    replay.add(&["ab", "c"], &event(0, 0, 1.0));
    replay.add(&["a", "bc"], &event(1, 0, 2.0));
    assert_eq!(replay.take_open().len(), 2);
}

/// The pipeline's windows and this replay are independent implementations: on any stream they must agree.
#[test]
fn it_agrees_with_the_pipelines_windows_on_random_streams() {
    for seed in 0..300 {
        let mut stream = Stream { random: ChaCha8Rng::seed_from_u64(seed) };
        let settings = WindowSettings {
            length_ms: [1_000, 60_000, 7][stream.below(3) as usize],
            allowed_lateness_ms: [0, 500, 30_000][stream.below(3) as usize],
            forget_after_ms: [5_000, 86_400_000][stream.below(2) as usize],
        };
        let detector = ConfiguredDetector::Robust(Robust::new(5, 3, 4.0, 6));
        let mut theirs = Windows::new(settings.clone(), detector.clone(), seed);
        let mut ours = Replay::new(settings, Flags::Recomputed(detector), Scope::ALL);
        let (mut stored, mut flagged) = (BTreeMap::new(), Vec::new());
        let (mut expected, mut expected_flags) = (Vec::new(), Vec::new());
        let (mut offset, mut start) = (0, 0);
        for _ in 0..=stream.below(12) {
            for _ in 0..stream.below(200) {
                let (key, event) = stream.next(offset);
                let key: Vec<&str> = key.iter().map(String::as_str).collect();
                let series = theirs.series_id(&key);
                theirs.add(series, event.time_ms, event.value, event.is_bad, offset);
                ours.add(&key, &event);
                offset += 1 + stream.below(2) as i64;
                if stream.below(40) == 0 {
                    store(&mut theirs, offset, &mut stored, &mut flagged);
                }
            }
            if offset > start {
                store(&mut theirs, offset, &mut stored, &mut flagged);
                let mut late = Vec::new();
                theirs.take_late(start, offset, &mut late);
                stored.extend(late.into_iter().map(|row| (key_of(&row), row)));
                theirs.forget_silent_series();
                expected.extend(ours.end_segment(start, offset));
                start = offset;
            }
        }
        expected.extend(ours.take_closed());
        expected.extend(ours.take_open());
        expected_flags.extend(ours.take_flagged());
        let report = Report::default();
        let comparison = Comparison {
            report: &report,
            partition: 0,
            progressed: Progressed { committed: offset, end: offset },
            is_whole: true,
            windows_expired_before_ms: i64::MIN,
            anomalies_expired_before_ms: i64::MIN,
        };
        comparison.windows(expected, stored.into_values().map(found).collect(), true, ours.closed_before_ms());
        comparison.anomalies(expected_flags, flagged.into_iter().map(found_flag).collect(), true);
        let verification = report.finish(String::new(), 0, Duration::ZERO);
        assert!(verification.verified, "seed {seed}: {verification}");
    }
}

struct Stream {
    random: ChaCha8Rng,
}

impl Stream {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    /// Slow and fast series, out of order, far too late, jumping, before 1970; values that repeat, lie close, or far.
    fn next(&mut self, offset: i64) -> ([String; 2], ArchivedEvent) {
        let jump = match self.below(60) {
            0 => self.below(200_000) as i64,
            1 => -(self.below(100_000) as i64),
            _ => self.below(900) as i64 - 200,
        };
        let time_ms = offset * 150 - 20_000 + jump;
        let group = if self.below(5) == 0 { self.below(1_000) } else { self.below(6) };
        let value = match self.below(50) {
            0 => 1e9,
            1 => -1e6,
            _ => 20.0 + self.below(1_000) as f64 / 250.0 * if group == 0 { 0.0 } else { 1.0 },
        };
        let is_bad = self.below(9) == 0;
        (
            [format!("s{}", group / 2), format!("m{}", group % 2)],
            ArchivedEvent { offset, time_ms, value, is_bad, sequence: 0, is_marked: false },
        )
    }
}

type RowKey = (Arc<SeriesKey>, i64, i64);

fn key_of(row: &WindowRow) -> RowKey {
    (Arc::clone(&row.series), row.window_start_ms, row.segment)
}

/// As the hot store keeps them: the newest row of a key.
fn store(theirs: &mut Windows, version: i64, stored: &mut BTreeMap<RowKey, WindowRow>, flagged: &mut Vec<AnomalyRow>) {
    let mut rows = Vec::new();
    theirs.take_closed(version, &mut rows);
    theirs.take_changed(version, &mut rows);
    for row in rows {
        assert_eq!(row.segment, OWN_ROW);
        stored.insert(key_of(&row), row);
    }
    flagged.extend(theirs.take_anomalies());
}

fn found(row: WindowRow) -> FoundRow {
    FoundRow {
        series: row.series,
        window_start_ms: row.window_start_ms,
        segment: row.segment,
        count: row.count,
        sum: row.sum,
        min: row.min,
        max: row.max,
        m2: row.m2,
        first_value: row.first_value,
        first_time_ms: row.first_time_ms,
        last_value: row.last_value,
        last_time_ms: row.last_time_ms,
        anomalies: row.anomalies,
        max_score: row.max_score,
        bad_quality: row.bad_quality,
        is_closed: row.closed,
        version: row.version as u64,
    }
}

fn found_flag(row: AnomalyRow) -> Flagged {
    Flagged {
        series: row.series,
        offset: row.offset,
        time_ms: row.event_time_ms,
        value: row.value,
        expected: row.expected,
        score: row.score,
        kind: row.kind.name().to_owned(),
    }
}
