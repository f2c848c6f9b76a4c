//! One series over a range of time, in as many buckets as a chart has columns, with its gaps.

use serde::{Deserialize, Serialize};

use crate::anomalies::Anomaly;
use crate::click_house::{ClickHouse, FOR_A_VIEWER, Parameter, QueryError};
use crate::inputs::Range;
use crate::settings::{MAX_ANOMALIES, MAX_POINTS};
use crate::statements::Statements;

/// A metric of a sensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorMetric {
    /// Its name.
    pub metric: String,
    /// Start of its first window.
    pub first_ms: i64,
    /// Start of its last window.
    pub last_ms: i64,
}

#[derive(Debug, Deserialize)]
struct SiteRow {
    site: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Bucket {
    #[serde(rename = "bucket")]
    index: i64,
    lowest: f64,
    highest: f64,
    mean: f64,
    events: u64,
    bad: u64,
    flags: u64,
    late: u64,
    windows: u64,
}

/// A sensor, one of its series, and what is odd about it.
#[derive(Debug, Serialize)]
pub struct Series {
    /// The sensor.
    pub sensor: String,
    /// Where it stands; empty where nobody says.
    pub site: String,
    /// The metric that is shown.
    pub metric: String,
    /// All of its metrics.
    pub metrics: Vec<SensorMetric>,
    /// The columns of the chart.
    pub columns: Columns,
    /// Sums over the range.
    pub quality: Quality,
    /// Flagged events in the range, newest first.
    pub anomalies: Vec<Anomaly>,
    /// Whether there are more, older ones.
    pub anomalies_truncated: bool,
}

/// As many buckets as fit, each with its numbers, or with none where there was no event: a gap is a gap.
#[derive(Debug, PartialEq, Serialize)]
pub struct Columns {
    /// Start of the first bucket.
    pub from_ms: i64,
    /// End of the last bucket.
    pub to_ms: i64,
    /// Length of a bucket: a window, or several.
    pub step_ms: i64,
    /// Smallest value.
    pub min: Vec<Option<f64>>,
    /// Mean of the values.
    pub mean: Vec<Option<f64>>,
    /// Largest value.
    pub max: Vec<Option<f64>>,
    /// Events.
    pub events: Vec<u64>,
    /// Events of bad quality.
    pub bad: Vec<u64>,
    /// Flagged events.
    pub flags: Vec<u64>,
}

/// How far the series can be trusted.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quality {
    /// Accepted events.
    pub events: u64,
    /// Of bad quality.
    pub bad: u64,
    /// Flagged.
    pub flags: u64,
    /// That came after their window had closed.
    pub late: u64,
    /// Windows with events.
    pub windows: u64,
    /// Windows from the first to the last one with events within the range.
    pub windows_expected: u64,
}

/// The buckets of a range: their number is bounded, and they begin and end with windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    from_ms: i64,
    step_ms: i64,
    buckets: i64,
}

impl Grid {
    /// At most [`MAX_POINTS`] buckets of whole windows that cover `range`.
    pub fn new(range: Range, window_ms: i64) -> Self {
        let from_ms = range.from_ms.div_euclid(window_ms) * window_ms;
        let windows = (range.to_ms - from_ms + window_ms - 1) / window_ms;
        let windows_a_bucket = (windows + MAX_POINTS - 1) / MAX_POINTS;
        let step_ms = windows_a_bucket * window_ms;
        let buckets = (range.to_ms - from_ms + step_ms - 1) / step_ms;
        Self { from_ms, step_ms, buckets }
    }

    fn to_ms(self) -> i64 {
        self.from_ms + self.buckets * self.step_ms
    }

    fn fill(self, found: &[Bucket]) -> Columns {
        let size = self.buckets as usize;
        let mut columns = Columns {
            from_ms: self.from_ms,
            to_ms: self.to_ms(),
            step_ms: self.step_ms,
            min: vec![None; size],
            mean: vec![None; size],
            max: vec![None; size],
            events: vec![0; size],
            bad: vec![0; size],
            flags: vec![0; size],
        };
        for bucket in found {
            let Some(index) = usize::try_from(bucket.index).ok().filter(|index| *index < size) else { continue };
            columns.min[index] = Some(bucket.lowest);
            columns.mean[index] = Some(bucket.mean);
            columns.max[index] = Some(bucket.highest);
            columns.events[index] = bucket.events;
            columns.bad[index] = bucket.bad;
            columns.flags[index] = bucket.flags;
        }
        columns
    }

    fn quality(self, found: &[Bucket], metric: &SensorMetric, window_ms: i64) -> Quality {
        let mut quality = Quality::default();
        for bucket in found {
            quality.events += bucket.events;
            quality.bad += bucket.bad;
            quality.flags += bucket.flags;
            quality.late += bucket.late;
            quality.windows += bucket.windows;
        }
        let first_ms = metric.first_ms.max(self.from_ms);
        let behind_ms = (metric.last_ms + window_ms).min(self.to_ms());
        quality.windows_expected = ((behind_ms - first_ms).max(0) / window_ms) as u64;
        quality
    }
}

/// Looks a series up; `None` for a sensor, or a metric of it, that has no window at all. Without a metric it is the first.
pub async fn look_up(
    click_house: &ClickHouse,
    statements: &Statements,
    sensor: &str,
    metric: Option<&str>,
    range: Range,
    window_ms: i64,
) -> Result<Option<Series>, QueryError> {
    let of_sensor = [("sensor", Parameter::Text(sensor))];
    let metrics: Vec<SensorMetric> = click_house.rows(&statements.metrics, &of_sensor, FOR_A_VIEWER).await?;
    let shown = match metric {
        Some(metric) => metrics.iter().find(|known| known.metric == metric),
        None => metrics.first(),
    };
    let Some(shown) = shown.cloned() else { return Ok(None) };
    let grid = Grid::new(range, window_ms);
    let of_series = [
        ("sensor", Parameter::Text(sensor)),
        ("metric", Parameter::Text(&shown.metric)),
        ("from", Parameter::Integer(grid.from_ms)),
        ("to", Parameter::Integer(grid.to_ms())),
    ];
    let of_buckets = [of_series.as_slice(), &[("step", Parameter::Integer(grid.step_ms))]].concat();
    let of_anomalies = [of_series.as_slice(), &[("limit", Parameter::Integer(MAX_ANOMALIES as i64 + 1))]].concat();
    let (buckets, anomalies, site) = tokio::join!(
        click_house.rows::<Bucket>(&statements.series, &of_buckets, FOR_A_VIEWER),
        click_house.rows::<Anomaly>(&statements.series_anomalies, &of_anomalies, FOR_A_VIEWER),
        click_house.rows::<SiteRow>(&statements.site, &of_sensor, FOR_A_VIEWER),
    );
    let (buckets, mut anomalies, site) = (buckets?, anomalies?, site?);
    let anomalies_truncated = anomalies.len() > MAX_ANOMALIES;
    anomalies.truncate(MAX_ANOMALIES);
    Ok(Some(Series {
        sensor: sensor.to_owned(),
        site: site.into_iter().next().map(|row| row.site).unwrap_or_default(),
        columns: grid.fill(&buckets),
        quality: grid.quality(&buckets, &shown, window_ms),
        metric: shown.metric,
        metrics,
        anomalies,
        anomalies_truncated,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn bucket(index: i64, value: f64) -> Bucket {
        Bucket { index, lowest: value, highest: value, mean: value, events: 2, bad: 1, flags: 0, late: 1, windows: 1 }
    }

    #[test]
    fn a_gap_stays_a_gap() {
        let grid = Grid::new(Range { from_ms: 90_000, to_ms: 5 * MINUTE }, MINUTE);
        let found = [bucket(0, 1.0), bucket(2, 3.0), bucket(99, 9.0), bucket(-1, 9.0)];
        let columns = grid.fill(&found);
        assert_eq!((columns.from_ms, columns.to_ms, columns.step_ms), (MINUTE, 5 * MINUTE, MINUTE));
        assert_eq!(columns.mean, [Some(1.0), None, Some(3.0), None]);
        assert_eq!(columns.events, [2, 0, 2, 0]);
    }

    #[test]
    fn points_are_bounded_whatever_the_range() {
        for range_ms in [1, MINUTE, 1_499 * MINUTE, 1_501 * MINUTE, 7 * 1_440 * MINUTE, 31 * 1_440 * MINUTE] {
            for window_ms in [1_000, MINUTE, 3_600_000] {
                for from_ms in [0, 1, 59_999, 1_800_000_012_345] {
                    let range = Range { from_ms, to_ms: from_ms + range_ms };
                    let grid = Grid::new(range, window_ms);
                    assert!((1..=MAX_POINTS).contains(&grid.buckets), "{range:?} {grid:?}");
                    assert_eq!((grid.from_ms % window_ms, grid.step_ms % window_ms), (0, 0));
                    assert!(grid.from_ms <= range.from_ms && grid.to_ms() >= range.to_ms, "{range:?} {grid:?}");
                }
            }
        }
    }

    #[test]
    fn windows_are_expected_only_while_the_series_lives() {
        let grid = Grid::new(Range { from_ms: 0, to_ms: 100 * MINUTE }, MINUTE);
        let lived = SensorMetric { metric: "m".to_owned(), first_ms: 10 * MINUTE, last_ms: 19 * MINUTE };
        let quality = grid.quality(&[bucket(10, 1.0), bucket(19, 2.0)], &lived, MINUTE);
        assert_eq!((quality.windows, quality.windows_expected), (2, 10));
        assert_eq!((quality.events, quality.bad, quality.late), (4, 2, 2));
        let before = SensorMetric { first_ms: -50 * MINUTE, last_ms: -20 * MINUTE, ..lived };
        assert_eq!(grid.quality(&[], &before, MINUTE).windows_expected, 0);
    }
}
