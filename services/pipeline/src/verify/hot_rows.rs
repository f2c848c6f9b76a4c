//! Rows of the hot store, read in slices: each query's answer is bounded by the rows that are expected in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use kappa_core::rows::SeriesKey;

use super::flags::Flagged;
use super::quality::{FoundQuality, Sums};
use super::scope::Scope;
use crate::config::Config;
use crate::leb128;
use crate::ops::clickhouse_http::{ClickHouseError, ClickHouseHttp};

/// A table that holds this many rows more than expected in a slice is not read any further.
const MOST_SURPLUS: usize = 200_000;

/// A row of `windows_1m`, as found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FoundRow {
    pub(super) series: Arc<SeriesKey>,
    pub(super) window_start_ms: i64,
    pub(super) segment: i64,
    pub(super) count: u64,
    pub(super) sum: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) m2: f64,
    pub(super) first_value: f64,
    pub(super) first_time_ms: i64,
    pub(super) last_value: f64,
    pub(super) last_time_ms: i64,
    pub(super) anomalies: u64,
    pub(super) max_score: f64,
    pub(super) bad_quality: u64,
    pub(super) is_closed: bool,
    pub(super) version: u64,
}

/// A row of the view `windows`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FoundWindow {
    pub(super) series: Arc<SeriesKey>,
    pub(super) window_start_ms: i64,
    pub(super) count: u64,
    pub(super) sum: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) mean: f64,
    pub(super) stddev: f64,
    pub(super) first_value: f64,
    pub(super) last_value: f64,
    pub(super) anomalies: u64,
    pub(super) is_closed: bool,
    pub(super) late: u64,
}

/// Asks for rows of one topic.
#[derive(Debug)]
pub(super) struct HotReader {
    clickhouse: ClickHouseHttp,
    database: String,
    key: Vec<String>,
    topic: String,
}

impl HotReader {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            clickhouse: ClickHouseHttp::new(&config.hot_store)?,
            database: config.hot_store.database.clone(),
            key: config.event.key.clone(),
            topic: config.kafka.topic.clone(),
        })
    }

    /// Rows of a partition that satisfy `condition`, which is about columns of the sorting key alone (so that rows of one
    /// key are left out together, before they are merged), of which `expected` are expected. The flag says whether all of
    /// them were read.
    pub(super) async fn windows(
        &self,
        partition: i32,
        condition: &str,
        expected: usize,
    ) -> anyhow::Result<(Vec<FoundRow>, bool)> {
        let limit = expected + MOST_SURPLUS;
        let query = format!(
            "SELECT {key}, toUnixTimestamp64Milli(window_start), toInt64(segment), toUInt64(`count`), toFloat64(`sum`), \
             toFloat64(`min`), toFloat64(`max`), toFloat64(m2), toFloat64(first_value), \
             toUnixTimestamp64Milli(first_time), toFloat64(last_value), toUnixTimestamp64Milli(last_time), \
             toUInt64(anomalies), toFloat64(max_score), toUInt64(bad_quality), toUInt8(closed), toUInt64(version) \
             FROM `{database}`.windows_1m FINAL PREWHERE topic = {topic} AND `partition` = {partition} AND {condition} \
             LIMIT {limit} SETTINGS do_not_merge_across_partitions_select_final = 1 FORMAT RowBinary",
            key = self.key_texts(),
            database = self.database,
            topic = quoted(&self.topic),
        );
        let rows = self.rows(&query, |reader| {
            Some(FoundRow {
                series: reader.series(self.key.len())?,
                window_start_ms: reader.i64()?,
                segment: reader.i64()?,
                count: reader.u64()?,
                sum: reader.f64()?,
                min: reader.f64()?,
                max: reader.f64()?,
                m2: reader.f64()?,
                first_value: reader.f64()?,
                first_time_ms: reader.i64()?,
                last_value: reader.f64()?,
                last_time_ms: reader.i64()?,
                anomalies: reader.u64()?,
                max_score: reader.f64()?,
                bad_quality: reader.u64()?,
                is_closed: reader.u8()? != 0,
                version: reader.u64()?,
            })
        });
        let rows = rows.await.context("cannot read windows_1m")?;
        let is_all = rows.len() < limit;
        Ok((rows, is_all))
    }

    /// Flagged events of a partition that satisfy `condition`.
    pub(super) async fn anomalies(
        &self,
        partition: i32,
        condition: &str,
        expected: usize,
    ) -> anyhow::Result<(Vec<Flagged>, bool)> {
        let limit = expected + MOST_SURPLUS;
        let query = format!(
            "SELECT {key}, toInt64(`offset`), toUnixTimestamp64Milli(event_time), toFloat64(value), \
             toFloat64(expected), toFloat64(score), toString(kind) \
             FROM `{database}`.anomalies FINAL PREWHERE topic = {topic} AND `partition` = {partition} AND {condition} \
             LIMIT {limit} SETTINGS do_not_merge_across_partitions_select_final = 1 FORMAT RowBinary",
            key = self.key_texts(),
            database = self.database,
            topic = quoted(&self.topic),
        );
        let rows = self.rows(&query, |reader| {
            Some(Flagged {
                series: reader.series(self.key.len())?,
                offset: reader.i64()?,
                time_ms: reader.i64()?,
                value: reader.f64()?,
                expected: reader.f64()?,
                score: reader.f64()?,
                kind: reader.text()?.to_owned(),
            })
        });
        let rows = rows.await.context("cannot read anomalies")?;
        let is_all = rows.len() < limit;
        Ok((rows, is_all))
    }

    /// Quality of the segments of a partition whose starts satisfy `condition`.
    pub(super) async fn quality(&self, partition: i32, condition: &str) -> anyhow::Result<Vec<FoundQuality>> {
        let query = format!(
            "SELECT toInt64(segment), toUInt64(version), toString(site), toString(metric), \
             toUnixTimestamp64Milli(minute), toUInt64(accepted), toUInt64(duplicates), toUInt64(bad_quality), \
             toInt64(delay_sum_ms), toInt64(delay_max_ms), toInt64(missing), toUInt64(restarts), toUInt64(rejected) \
             FROM `{database}`.quality_1m FINAL PREWHERE topic = {topic} AND `partition` = {partition} AND {condition} \
             SETTINGS do_not_merge_across_partitions_select_final = 1 FORMAT RowBinary",
            database = self.database,
            topic = quoted(&self.topic),
        );
        let rows = self.rows(&query, |reader| {
            Some(FoundQuality {
                segment: reader.i64()?,
                version: reader.u64()?,
                cell: (reader.text()?.to_owned(), reader.text()?.to_owned(), reader.i64()?),
                sums: Sums {
                    accepted: reader.u64()?,
                    duplicates: reader.u64()?,
                    bad_quality: reader.u64()?,
                    delay_sum_ms: reader.i64()?,
                    delay_max_ms: reader.i64()?,
                    missing: reader.i64()?,
                    restarts: reader.u64()?,
                },
                rejected: reader.u64()?,
            })
        });
        rows.await.context("cannot read quality_1m")
    }

    /// Windows through the view that people query.
    pub(super) async fn view<'a>(
        &self,
        windows: impl Iterator<Item = (&'a SeriesKey, i64)>,
    ) -> anyhow::Result<Vec<FoundWindow>> {
        let names: Vec<String> = self.key.iter().map(|name| format!("`{name}`")).collect();
        let wanted: Vec<String> = windows.map(|(series, start)| wanted(series, start)).collect();
        let query = format!(
            "SELECT {key}, toUnixTimestamp64Milli(window_start), toUInt64(`count`), `sum`, `min`, `max`, mean, stddev, \
             first_value, last_value, toUInt64(anomalies), toUInt8(closed), toUInt64(late) FROM `{database}`.windows \
             WHERE ({names}, window_start) IN ({wanted}) FORMAT RowBinary",
            key = self.key_texts(),
            names = names.join(", "),
            database = self.database,
            wanted = wanted.join(", "),
        );
        let rows = self.rows(&query, |reader| {
            Some(FoundWindow {
                series: reader.series(self.key.len())?,
                window_start_ms: reader.i64()?,
                count: reader.u64()?,
                sum: reader.f64()?,
                min: reader.f64()?,
                max: reader.f64()?,
                mean: reader.f64()?,
                stddev: reader.f64()?,
                first_value: reader.f64()?,
                last_value: reader.f64()?,
                anomalies: reader.u64()?,
                is_closed: reader.u8()? != 0,
                late: reader.u64()?,
            })
        });
        rows.await.context("cannot read the view windows")
    }

    /// How many rows the tables have for each topic and partition.
    pub(super) async fn owners(&self) -> anyhow::Result<BTreeMap<(String, i32), u64>> {
        let mut owners = BTreeMap::new();
        for table in ["windows_1m", "anomalies", "quality_1m"] {
            let query = format!(
                "SELECT toString(topic), toInt64(`partition`), count() FROM `{}`.{table} GROUP BY topic, `partition` \
                 FORMAT RowBinary",
                self.database
            );
            let rows = self.rows(&query, |reader| Some((reader.text()?.to_owned(), reader.i64()?, reader.u64()?)));
            for (topic, partition, count) in rows.await.with_context(|| format!("cannot read {table}"))? {
                *owners.entry((topic, partition as i32)).or_default() += count;
            }
        }
        Ok(owners)
    }

    /// By partition: the log position up to which the newest row is true.
    pub(super) async fn newest_versions(&self) -> anyhow::Result<BTreeMap<i32, u64>> {
        let query = format!(
            "SELECT toInt64(`partition`), toUInt64(max(version)) FROM `{}`.windows_1m WHERE topic = {} \
             GROUP BY `partition` FORMAT RowBinary",
            self.database,
            quoted(&self.topic)
        );
        let rows = self.rows(&query, |reader| Some((reader.i64()? as i32, reader.u64()?)));
        Ok(rows.await.context("cannot read windows_1m")?.into_iter().collect())
    }

    /// The time before which rows of a table may have expired; `None` without a TTL.
    pub(super) async fn expired_before_ms(&self, table: &str) -> anyhow::Result<Option<i64>> {
        let query = format!(
            "SELECT engine_full FROM system.tables WHERE database = {} AND name = {}",
            quoted(&self.database),
            quoted(table)
        );
        let engine = self.clickhouse.execute(&query).await?;
        let Some(interval) = time_to_live(&engine) else { return Ok(None) };
        // With an hour of margin: rows go on expiring while this runs.
        let query = format!("SELECT (toUnixTimestamp(now() - {interval}) + 3600) * 1000");
        let horizon = self.clickhouse.execute(&query).await.context("cannot work out the TTL")?;
        Ok(Some(horizon.parse().with_context(|| format!("ClickHouse says that the horizon is {horizon}"))?))
    }

    fn key_texts(&self) -> String {
        self.key.iter().map(|name| format!("toString(`{name}`)")).collect::<Vec<_>>().join(", ")
    }

    async fn rows<T>(
        &self,
        query: &str,
        mut row: impl FnMut(&mut RowReader<'_>) -> Option<T>,
    ) -> anyhow::Result<Vec<T>> {
        let pauses = ExponentialBuilder::default().with_max_times(3);
        let is_passing = |error: &ClickHouseError| matches!(error, ClickHouseError::Unavailable { .. });
        let answer: Bytes = (|| self.clickhouse.fetch(query)).retry(pauses).when(is_passing).await?;
        let mut reader = RowReader(&answer);
        let mut rows = Vec::new();
        while !reader.0.is_empty() {
            let Some(row) = row(&mut reader) else { bail!("ClickHouse's answer ends in the middle of a row") };
            rows.push(row);
        }
        Ok(rows)
    }
}

/// The condition for windows that start in a range.
pub(super) fn in_range(column: &str, range: Scope) -> String {
    let mut conditions = vec!["1".to_owned()];
    for (bound, operator) in [(range.from_ms, ">="), (range.to_ms, "<")] {
        if bound != i64::MIN && bound != i64::MAX {
            conditions.push(format!("{column} {operator} fromUnixTimestamp64Milli(toInt64({bound}))"));
        }
    }
    conditions.join(" AND ")
}

fn wanted(series: &SeriesKey, window_start_ms: i64) -> String {
    let texts: Vec<String> = series.parts().map(quoted).collect();
    format!("({}, fromUnixTimestamp64Milli(toInt64({window_start_ms}), 'UTC'))", texts.join(", "))
}

/// A ClickHouse string literal.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\0', "\\0"))
}

/// `toIntervalDay(90)` in the full engine of a table.
fn time_to_live(engine: &str) -> Option<&str> {
    let behind = &engine[engine.find(" TTL ")?..];
    let interval = &behind[behind.find("toInterval")?..];
    Some(&interval[..=interval.find(')')?])
}

/// Reads RowBinary. `None`: the bytes end too early, or a text is not UTF-8.
struct RowReader<'a>(&'a [u8]);

impl<'a> RowReader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|byte| byte[0])
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn f64(&mut self) -> Option<f64> {
        self.take().map(f64::from_le_bytes)
    }

    /// LEB128 length, then the bytes.
    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(leb128::take(&mut self.0)?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn series(&mut self, parts: usize) -> Option<Arc<SeriesKey>> {
        let parts = (0..parts).map(|_| self.text()).collect::<Option<Vec<_>>>()?;
        Some(Arc::new(SeriesKey::new(parts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_live_is_found_in_the_engine() {
        let engine = "ReplacingMergeTree(version) PARTITION BY toDate(window_start) ORDER BY (a) TTL \
                      toDateTime(window_start) + toIntervalDay(90) SETTINGS x = 1";
        assert_eq!(time_to_live(engine), Some("toIntervalDay(90)"));
        assert_eq!(time_to_live("MergeTree ORDER BY a"), None);
    }

    #[test]
    fn rows_are_read_as_they_are_written() {
        let mut bytes = vec![2, b'a', b'b', 200, 1];
        bytes.extend([b'x'; 200]);
        bytes.extend((-5_i64).to_le_bytes());
        bytes.extend(2.5_f64.to_le_bytes());
        let mut reader = RowReader(&bytes);
        let series = reader.series(2).unwrap();
        assert_eq!(series.parts().map(str::len).collect::<Vec<_>>(), [2, 200]);
        assert_eq!((reader.i64(), reader.f64()), (Some(-5), Some(2.5)));
        assert_eq!(reader.u8(), None);
    }

    #[test]
    fn texts_are_quoted() {
        assert_eq!(quoted("it's a \\"), r"'it\'s a \\'");
    }
}
