//! Rows in ClickHouse's RowBinary format, in the order of the column lists here.

use kappa_core::rows::{AnomalyRow, QualityRow, SensorRow, SeriesKey, WindowRow};

use crate::leb128;
use crate::partition::seams::SegmentQuality;

/// Columns of `windows_1m` behind the key columns, in the order of [`push_window`].
pub(super) const WINDOW_COLUMNS: [&str; 18] = [
    "window_start",
    "topic",
    "partition",
    "segment",
    "count",
    "sum",
    "min",
    "max",
    "m2",
    "first_value",
    "first_time",
    "last_value",
    "last_time",
    "anomalies",
    "max_score",
    "bad_quality",
    "closed",
    "version",
];

/// Columns of `anomalies` behind the key columns, in the order of [`push_anomaly`].
pub(super) const ANOMALY_COLUMNS: [&str; 8] =
    ["event_time", "value", "expected", "score", "kind", "topic", "partition", "offset"];

/// Columns of `sensors`, in the order of [`push_sensor`].
pub(super) const SENSOR_COLUMNS: [&str; 6] = ["sensor", "topic", "partition", "site", "seen_at", "version"];

/// Columns of `quality_1m`, in the order of [`push_quality`].
pub(super) const QUALITY_COLUMNS: [&str; 15] = [
    "site",
    "metric",
    "minute",
    "topic",
    "partition",
    "segment",
    "accepted",
    "rejected",
    "duplicates",
    "missing",
    "restarts",
    "bad_quality",
    "delay_sum_ms",
    "delay_max_ms",
    "version",
];

/// Names that only the view `windows` has, inside it or to the outside.
const VIEW_COLUMNS: [&str; 18] = [
    "mean",
    "stddev",
    "late",
    "n",
    "total",
    "lowest",
    "highest",
    "m2_within",
    "parts",
    "opening_value",
    "opening_time",
    "closing_value",
    "closing_time",
    "flags",
    "top_score",
    "bad",
    "open_rows",
    "late_events",
];

/// Names in the hot store's tables and views that no key column may have.
pub fn reserved_columns() -> impl Iterator<Item = &'static str> {
    WINDOW_COLUMNS.into_iter().chain(ANOMALY_COLUMNS).chain(VIEW_COLUMNS)
}

/// Appends a window row.
pub fn push_window(out: &mut Vec<u8>, row: &WindowRow, topic: &str, partition: i32) {
    push_key(out, &row.series);
    push_i64(out, row.window_start_ms);
    push_text(out, topic);
    out.extend_from_slice(&partition.to_le_bytes());
    push_i64(out, row.segment);
    push_u64(out, row.count);
    for number in [row.sum, row.min, row.max, row.m2, row.first_value] {
        push_f64(out, number);
    }
    push_i64(out, row.first_time_ms);
    push_f64(out, row.last_value);
    push_i64(out, row.last_time_ms);
    push_u64(out, row.anomalies);
    push_f64(out, row.max_score);
    push_u64(out, row.bad_quality);
    out.push(u8::from(row.closed));
    // Log positions are never negative.
    push_i64(out, row.version);
}

/// Appends an anomaly row.
pub fn push_anomaly(out: &mut Vec<u8>, row: &AnomalyRow, topic: &str, partition: i32) {
    push_key(out, &row.series);
    push_i64(out, row.event_time_ms);
    for number in [row.value, row.expected, row.score] {
        push_f64(out, number);
    }
    push_text(out, row.kind.name());
    push_text(out, topic);
    out.extend_from_slice(&partition.to_le_bytes());
    push_i64(out, row.offset);
}

/// Appends a sensor row.
pub fn push_sensor(out: &mut Vec<u8>, row: &SensorRow, topic: &str, partition: i32) {
    push_text(out, &row.sensor);
    push_text(out, topic);
    out.extend_from_slice(&partition.to_le_bytes());
    push_text(out, &row.site);
    push_i64(out, row.seen_at_ms);
    push_i64(out, row.version);
}

/// Appends a quality row.
pub fn push_quality(out: &mut Vec<u8>, quality: &SegmentQuality, topic: &str, partition: i32) {
    let QualityRow { site, metric, minute_ms, counts } = &quality.row;
    push_text(out, site);
    push_text(out, metric);
    push_i64(out, *minute_ms);
    push_text(out, topic);
    out.extend_from_slice(&partition.to_le_bytes());
    push_i64(out, quality.segment);
    for number in [counts.accepted, counts.rejected, counts.duplicates] {
        push_u64(out, number);
    }
    push_i64(out, counts.missing);
    push_u64(out, counts.restarts);
    push_u64(out, counts.bad_quality);
    for number in [counts.delay_sum_ms, counts.delay_max_ms, quality.version] {
        push_i64(out, number);
    }
}

fn push_key(out: &mut Vec<u8>, key: &SeriesKey) {
    key.parts().for_each(|part| push_text(out, part));
}

/// LEB128 length, then the bytes.
fn push_text(out: &mut Vec<u8>, text: &str) {
    leb128::push(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn push_i64(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn push_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn push_f64(out: &mut Vec<u8>, number: f64) {
    out.extend_from_slice(&number.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_those_of_the_tables() {
        let reserved: Vec<_> = reserved_columns().collect();
        let files = [
            include_str!("../../../../schemas/clickhouse/0001_windows_1m.sql"),
            include_str!("../../../../schemas/clickhouse/0002_anomalies.sql"),
            include_str!("../../../../schemas/clickhouse/0003_windows.sql"),
        ];
        // A definition: `name` Type. In the view: expression AS name.
        let defined = files.iter().flat_map(|sql| sql.lines()).filter_map(|line| match line.trim().strip_prefix('`') {
            Some(rest) => rest.split_once("` ").map(|(name, _)| name),
            None => line.trim().rsplit_once(" AS ").map(|(_, name)| name.trim_end_matches(',').trim_matches('`')),
        });
        let defined: Vec<_> = defined.filter(|name| *name != "{database}.windows").collect();
        assert!(defined.len() > 50, "{defined:?}");
        for name in &defined {
            assert!(*name == "SELECT" || reserved.contains(name), "{name} is not reserved");
        }
        for name in reserved {
            assert!(defined.contains(&name), "{name} is reserved for nothing");
        }
    }

    #[test]
    fn the_columns_of_sensors_and_quality_are_those_of_their_tables() {
        fn defined(sql: &str) -> Vec<&str> {
            sql.lines().filter_map(|line| Some(line.trim().strip_prefix('`')?.split_once("` ")?.0)).collect()
        }
        let [sensors, quality] = [
            include_str!("../../../../schemas/clickhouse/0004_sensors.sql"),
            include_str!("../../../../schemas/clickhouse/0005_quality_1m.sql"),
        ];
        assert_eq!(defined(sensors), SENSOR_COLUMNS);
        assert_eq!(defined(quality), QUALITY_COLUMNS);
    }

    #[test]
    fn texts_carry_a_varint_length() {
        let mut out = Vec::new();
        push_text(&mut out, "ab");
        push_text(&mut out, &"x".repeat(200));
        assert_eq!(out[..3], [2, b'a', b'b']);
        assert_eq!(out[3..5], [0xC8, 0x01]);
        assert_eq!(out.len(), 5 + 200);
    }
}
