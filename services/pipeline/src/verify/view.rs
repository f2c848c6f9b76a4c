//! (B) The view that people query merges rows of a window over partitions and segments. A sample of windows, the same
//! in all partitions, is kept while the rows are compared, merged here, and asked for through the view.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kappa_core::rows::SeriesKey;

use super::flags::{nearly, shown_series};
use super::hot_rows::{FoundWindow, HotReader};
use super::kafka::{self, LogFacts};
use super::replay::{ExpectedRow, Standing};
use super::report::{Check, Report, shown_time};
use super::totals::Totals;
use crate::config::KafkaConfig;

/// Windows that are kept.
const SAMPLE: usize = 400;
/// Windows asked for at once.
const WINDOWS_A_QUERY: usize = 100;

/// Windows whose hash lies below a threshold, which sinks as they become too many.
#[derive(Debug, Default)]
pub(super) struct Sample {
    threshold: AtomicU64,
    /// Windows that start before are not complete: segments have expired.
    from_ms: AtomicI64,
    /// By partition: where its archive ends, and the time before which all its windows are closed there.
    reached: Mutex<BTreeMap<i32, (i64, i64)>>,
    kept: Mutex<HashMap<WindowKey, Vec<Part>>>,
}

/// A series, and when one of its windows starts.
type WindowKey = (Arc<SeriesKey>, i64);

/// What one row has of a window.
#[derive(Debug, Clone)]
struct Part {
    partition: i32,
    /// The row's segment; -1 for the window's own row.
    segment: i64,
    totals: Totals,
    /// Whether the hot store must have it as it is.
    is_settled: bool,
}

/// A window, merged.
#[derive(Debug, Clone, PartialEq)]
struct Merged {
    count: u64,
    sum: f64,
    magnitude: f64,
    min: f64,
    max: f64,
    mean: f64,
    stddev: f64,
    first_value: f64,
    last_value: f64,
    anomalies: u64,
    late: u64,
}

impl Sample {
    pub(super) fn new() -> Self {
        Self { threshold: AtomicU64::new(u64::MAX), from_ms: AtomicI64::new(i64::MIN), ..Self::default() }
    }

    /// Windows that start before are not complete in one of the partitions.
    pub(super) fn begin_at(&self, from_ms: i64) {
        self.from_ms.fetch_max(from_ms, Ordering::Relaxed);
    }

    /// A partition was gone through up to `end`, where all windows that start before `closed_before_ms` are closed.
    pub(super) fn reached(&self, partition: i32, end: i64, closed_before_ms: i64) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.insert(partition, (end, closed_before_ms));
    }

    /// The time before which windows are closed in all partitions that have more records than the archive. In others
    /// nothing can have come since.
    fn settled_before_ms(&self, log: &LogFacts) -> i64 {
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        let has_more = |partition: &i32, end: i64| log.bounds.get(partition).is_none_or(|(_, high)| *high > end);
        let moving = reached.iter().filter(|(partition, (end, _))| has_more(partition, *end));
        moving.map(|(_, (_, closed_before_ms))| *closed_before_ms).min().unwrap_or(i64::MAX)
    }

    /// Whether this many partitions were gone through to the end.
    pub(super) fn is_whole(&self, partitions: usize) -> bool {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).len() == partitions
    }

    /// Keeps the row if its window is of the sample.
    pub(super) fn offer(&self, partition: i32, row: &ExpectedRow, committed: i64) {
        let hash = hash_of(&row.series, row.window_start_ms);
        if hash > self.threshold.load(Ordering::Relaxed) {
            return;
        }
        let (segment, is_settled) = match row.standing {
            Standing::Closed { by } => (-1, by < committed),
            Standing::Open => (-1, false),
            Standing::Late { segment, end } => (segment, end <= committed),
        };
        let part = Part { partition, segment, totals: row.totals.clone(), is_settled };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry((Arc::clone(&row.series), row.window_start_ms)).or_default().push(part);
        if kept.len() > 2 * SAMPLE {
            let mut hashes: Vec<u64> = kept.keys().map(|(series, start)| hash_of(series, *start)).collect();
            hashes.sort_unstable();
            let threshold = hashes[SAMPLE - 1];
            self.threshold.store(threshold, Ordering::Relaxed);
            kept.retain(|(series, start), _| hash_of(series, *start) <= threshold);
        }
    }

    /// Compares the sample with the view. All partitions must have been gone through.
    pub(super) async fn compare(
        &self,
        reader: &HotReader,
        kafka: &KafkaConfig,
        expired_before_ms: i64,
        report: &Report,
    ) -> anyhow::Result<()> {
        let threshold = self.threshold.load(Ordering::Relaxed);
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        let from_ms = expired_before_ms.max(self.from_ms.load(Ordering::Relaxed));
        let is_of_it = |series: &SeriesKey, start: i64| hash_of(series, start) <= threshold && start >= from_ms;
        let expected: HashMap<WindowKey, Merged> = kept
            .into_iter()
            .filter(|((series, start), parts)| is_of_it(series, *start) && parts.iter().all(|part| part.is_settled))
            .map(|(key, parts)| (key, merge(&parts)))
            .collect();
        report.examined(Check::View, "windows in a sample", expected.len() as u64);
        let mut windows: Vec<_> = expected.keys().cloned().collect();
        windows.sort_unstable_by_key(|(_, start)| *start);
        let mut differing = Vec::new();
        for windows in windows.chunks(WINDOWS_A_QUERY) {
            let asked = windows.iter().map(|(series, start)| (&**series, *start));
            let found = reader.view(asked).await?;
            let mut found: HashMap<_, _> =
                found.into_iter().map(|row| ((Arc::clone(&row.series), row.window_start_ms), row)).collect();
            for key in windows {
                let Some(expected) = expected.get(key) else { continue };
                let what = match found.remove(key) {
                    None => Some("it is not in the view".to_owned()),
                    // Late events that came while this ran.
                    Some(found) if found.late > expected.late => None,
                    Some(found) => differing_fields(expected, &found),
                };
                differing.extend(what.map(|what| (key, what)));
            }
        }
        if differing.is_empty() {
            return Ok(());
        }
        // Asked behind the view, so that it knows of all records that the view may hold.
        let settled_before_ms = self.settled_before_ms(&kafka::ask(kafka).await?);
        for ((series, start), what) in differing {
            if *start >= settled_before_ms {
                report.examined(Check::View, "provisional windows", 1);
                continue;
            }
            let place = format!("{}, window {}", shown_series(series), shown_time(*start));
            report.differs(Check::View, None, *start, format!("{place}: {what}"));
        }
        Ok(())
    }
}

fn hash_of(series: &SeriesKey, window_start_ms: i64) -> u64 {
    let mut hasher = DefaultHasher::new();
    series.hash(&mut hasher);
    window_start_ms.hash(&mut hasher);
    hasher.finish()
}

fn merge(parts: &[Part]) -> Merged {
    let totals = || parts.iter().map(|part| &part.totals);
    let count: u64 = totals().map(|part| part.count).sum();
    let sum: f64 = totals().map(Totals::sum).sum();
    let mean = sum / count as f64;
    let deviations = totals().map(|part| {
        let from_mean = part.sum() / part.count as f64 - mean;
        part.m2 + part.count as f64 * from_mean * from_mean
    });
    let stddev = (deviations.sum::<f64>() / count as f64).sqrt();
    // Of equal times the partition decides, then the log.
    let opening = parts.iter().min_by_key(|part| (part.totals.first.time_ms, part.partition, part.segment));
    let closing = parts.iter().max_by_key(|part| (part.totals.last.time_ms, part.partition, part.segment));
    Merged {
        count,
        sum,
        magnitude: totals().map(|part| part.magnitude).sum(),
        min: totals().map(|part| part.min).fold(f64::INFINITY, f64::min),
        max: totals().map(|part| part.max).fold(f64::NEG_INFINITY, f64::max),
        mean,
        stddev,
        first_value: opening.map_or(f64::NAN, |part| part.totals.first.value),
        last_value: closing.map_or(f64::NAN, |part| part.totals.last.value),
        anomalies: totals().map(|part| part.anomalies).sum(),
        late: parts.iter().filter(|part| part.segment != -1).map(|part| part.totals.count).sum(),
    }
}

#[expect(clippy::float_cmp, reason = "these are copies, not results")]
fn differing_fields(expected: &Merged, found: &FoundWindow) -> Option<String> {
    let average = expected.magnitude / expected.count as f64;
    let exact = [
        ("count", expected.count as f64, found.count as f64),
        ("min", expected.min, found.min),
        ("max", expected.max, found.max),
        ("first_value", expected.first_value, found.first_value),
        ("last_value", expected.last_value, found.last_value),
        ("anomalies", expected.anomalies as f64, found.anomalies as f64),
        ("late", expected.late as f64, found.late as f64),
    ];
    let close = [
        ("sum", expected.sum, found.sum, nearly(expected.sum, found.sum, expected.magnitude)),
        ("mean", expected.mean, found.mean, nearly(expected.mean, found.mean, average)),
        // Where all values are equal, a rest of rounding in the mean is no deviation.
        (
            "stddev",
            expected.stddev,
            found.stddev,
            (expected.stddev - found.stddev).abs() <= 1e-7 * expected.stddev + 1e-7 * average,
        ),
    ];
    let exact = exact.into_iter().map(|(name, expected, found)| (name, expected, found, expected == found));
    let mut differing: Vec<String> = exact
        .chain(close)
        .filter(|(.., is_equal)| !is_equal)
        .map(|(name, expected, found, _)| format!("{name} {expected} expected, {found} found"))
        .collect();
    if !found.is_closed {
        differing.push("it is not closed".to_owned());
    }
    (!differing.is_empty()).then(|| differing.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::totals::ArchivedEvent;
    use super::*;

    fn row(series: &str, standing: Standing, events: &[(i64, i64, f64)]) -> ExpectedRow {
        let event = |(offset, time_ms, value): &(i64, i64, f64)| ArchivedEvent {
            offset: *offset,
            time_ms: *time_ms,
            value: *value,
            is_bad: false,
            sequence: 0,
            is_marked: false,
        };
        let mut totals = Totals::of(&event(&events[0]), 0.0, false);
        events[1..].iter().for_each(|other| totals.add(&event(other), 0.0, false));
        ExpectedRow { series: Arc::new(SeriesKey::new([series])), window_start_ms: 0, totals, standing }
    }

    #[test]
    fn parts_of_a_window_merge_to_what_all_its_events_add_up_to() {
        let sample = Sample::new();
        let closed = Standing::Closed { by: 5 };
        sample.offer(0, &row("s", closed, &[(0, 10, 1.0), (1, 20, 5.0)]), 100);
        sample.offer(0, &row("s", Standing::Late { segment: 6, end: 9 }, &[(7, 10, 3.0)]), 100);
        sample.offer(1, &row("s", closed, &[(3, 10, 9.0), (4, 20, 7.0)]), 100);
        let kept = sample.kept.lock().unwrap();
        let merged = merge(kept.values().next().unwrap());
        assert_eq!((merged.count, merged.sum, merged.mean, merged.late), (5, 25.0, 5.0, 1));
        assert!((merged.stddev - 8.0_f64.sqrt()).abs() < 1e-12, "{}", merged.stddev);
        // Equal times: the smallest partition is first and its own row before its late one; the largest is last.
        assert_eq!((merged.first_value, merged.last_value), (1.0, 7.0));
        assert!(kept.values().flatten().all(|part| part.is_settled));
    }

    #[test]
    fn the_sample_stays_small_and_whole() {
        let sample = Sample::new();
        for _ in 0..2 {
            for number in 0..10_000 {
                sample.offer(0, &row(&number.to_string(), Standing::Closed { by: 5 }, &[(0, 0, 1.0)]), 100);
            }
        }
        let threshold = sample.threshold.load(Ordering::Relaxed);
        let kept = sample.kept.lock().unwrap();
        let below: Vec<_> = kept.iter().filter(|((series, start), _)| hash_of(series, *start) <= threshold).collect();
        assert!((SAMPLE..=2 * SAMPLE).contains(&below.len()), "{}", below.len());
        assert!(below.iter().all(|(_, parts)| parts.len() == 2));
    }
}
