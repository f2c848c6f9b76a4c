//! All SQL there is. Texts are fixed at the start; values of requests come in as parameters (`{name:Type}`).
//!
//! Every statement reads along the order of its table, or is kept small by a range of time: a part of ClickHouse's
//! storage knows the smallest and largest time in it (its partition key is the day), so the last minutes cost what was
//! written in the last minutes, however long the table is.

use crate::settings::{LIVE_ANOMALIES, MAX_FOUND, MAX_SITES, WORST_SENSORS};

/// The statements for one setting of names.
#[derive(Debug, Clone)]
pub struct Statements {
    /// Totals by minute, by site and by metric of all windows in `[from, to)`.
    pub fleet: String,
    /// Totals by minute alone: for the minutes of the past.
    pub minutes: String,
    /// The sensors with the most anomalies since `from`.
    pub worst: String,
    /// The newest anomalies since `from`.
    pub newest_anomalies: String,
    /// Anomalies in `[from, to)` that pass the filters, newest first.
    pub anomalies: String,
    /// Anomalies of one series in `[from, to)`, newest first.
    pub series_anomalies: String,
    /// The metrics of a sensor, and since when there are windows.
    pub metrics: String,
    /// A series in buckets.
    pub series: String,
    /// Where a sensor stands.
    pub site: String,
    /// Sensors with a text in their name.
    pub search: String,
}

/// Each sensor and its site; several partitions may have told of it.
const SITES: &str = "(SELECT sensor, argMax(site, seen_at) AS site FROM sensors FINAL GROUP BY sensor)";

const RANGE: &str = "window_start >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') \
                     AND window_start < fromUnixTimestamp64Milli({to:Int64}, 'UTC')";

const EVENT_RANGE: &str = "event_time >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') \
                           AND event_time < fromUnixTimestamp64Milli({to:Int64}, 'UTC')";

const ANOMALY: &str = "`$sensor` AS sensor, `$metric` AS metric, toUnixTimestamp64Milli(event_time) AS time_ms, value, \
                       expected, score, toString(kind) AS kind, `partition`, `offset`";

const TOTALS: &str = "uniqExact(`$sensor`) AS sensors, uniqExactIf(`$sensor`, anomalies > 0) AS flagged, \
                      sum(`count`) AS events, sum(anomalies) AS flags, sum(bad_quality) AS bad, \
                      sumIf(`count`, segment != -1) AS late, toUnixTimestamp64Milli(max(last_time)) AS newest_ms";

impl Statements {
    /// For these names of the key columns, which must be plain identifiers.
    pub fn new(sensor_column: &str, metric_column: &str) -> Self {
        let named = |text: String| text.replace("$sensor", sensor_column).replace("$metric", metric_column);
        Self {
            fleet: named(format!(
                "SELECT multiIf(grouping(window_start) = 0, 'minute', grouping(site) = 0, 'site', 'metric') AS what, \
                 toUnixTimestamp64Milli(window_start) AS minute_ms, site, toString(`$metric`) AS metric, {TOTALS} \
                 FROM windows_1m AS w FINAL LEFT ANY JOIN {SITES} AS s ON w.`$sensor` = s.sensor WHERE {RANGE} \
                 GROUP BY GROUPING SETS ((window_start), (site), (`$metric`)) \
                 ORDER BY what, events DESC, site LIMIT {MAX_SITES} BY what"
            )),
            minutes: named(format!(
                "SELECT 'minute' AS what, toUnixTimestamp64Milli(window_start) AS minute_ms, '' AS site, '' AS metric, \
                 {TOTALS} FROM windows_1m FINAL WHERE {RANGE} GROUP BY window_start ORDER BY window_start"
            )),
            worst: named(format!(
                "SELECT a.sensor AS sensor, site, flags, score, metric, kind, time_ms FROM (\
                 SELECT `$sensor` AS sensor, count() AS flags, max(a.score) AS score, \
                 argMax(toString(`$metric`), event_time) AS metric, argMax(toString(a.kind), event_time) AS kind, \
                 toUnixTimestamp64Milli(max(event_time)) AS time_ms \
                 FROM anomalies AS a FINAL WHERE event_time >= fromUnixTimestamp64Milli({{from:Int64}}, 'UTC') \
                 GROUP BY `$sensor` ORDER BY flags DESC, score DESC, sensor LIMIT {WORST_SENSORS}) AS a \
                 LEFT ANY JOIN {SITES} AS s ON a.sensor = s.sensor ORDER BY flags DESC, score DESC, sensor"
            )),
            newest_anomalies: named(format!(
                "SELECT a.*, site FROM (SELECT {ANOMALY} FROM anomalies FINAL \
                 WHERE event_time >= fromUnixTimestamp64Milli({{from:Int64}}, 'UTC') \
                 ORDER BY event_time DESC, `partition`, `offset` LIMIT {LIVE_ANOMALIES}) AS a \
                 LEFT ANY JOIN {SITES} AS s ON a.sensor = s.sensor ORDER BY time_ms DESC, `partition`, `offset`"
            )),
            anomalies: named(format!(
                "SELECT a.*, site FROM (SELECT {ANOMALY} FROM anomalies AS a FINAL WHERE {EVENT_RANGE} \
                 AND a.score >= {{min_score:Float64}} \
                 AND ({{metric:String}} = '' OR `$metric` = {{metric:String}}) \
                 AND ({{kind:String}} = '' OR a.kind = {{kind:String}}) \
                 AND ({{site:String}} = '' OR `$sensor` IN (SELECT sensor FROM sensors FINAL WHERE site = {{site:String}})) \
                 ORDER BY event_time DESC, `partition`, `offset` LIMIT {{limit:UInt32}}) AS a \
                 LEFT ANY JOIN {SITES} AS s ON a.sensor = s.sensor ORDER BY time_ms DESC, `partition`, `offset`"
            )),
            series_anomalies: named(format!(
                "SELECT {ANOMALY}, '' AS site FROM anomalies FINAL \
                 WHERE `$sensor` = {{sensor:String}} AND `$metric` = {{metric:String}} AND {EVENT_RANGE} \
                 ORDER BY event_time DESC, `partition`, `offset` LIMIT {{limit:UInt32}}"
            )),
            metrics: named(
                "SELECT toString(`$metric`) AS metric, toUnixTimestamp64Milli(min(window_start)) AS first_ms, \
                 toUnixTimestamp64Milli(max(window_start)) AS last_ms FROM windows_1m \
                 WHERE `$sensor` = {sensor:String} GROUP BY `$metric` ORDER BY `$metric`"
                    .to_owned(),
            ),
            series: named(format!(
                "SELECT intDiv(toUnixTimestamp64Milli(window_start) - {{from:Int64}}, {{step:Int64}}) AS bucket, \
                 min(w.`min`) AS lowest, max(w.`max`) AS highest, sum(w.`sum`) / sum(w.`count`) AS mean, \
                 sum(w.`count`) AS events, sum(w.bad_quality) AS bad, sum(w.anomalies) AS flags, \
                 sumIf(w.`count`, segment != -1) AS late, uniqExact(window_start) AS windows \
                 FROM windows_1m AS w FINAL \
                 WHERE `$sensor` = {{sensor:String}} AND `$metric` = {{metric:String}} AND {RANGE} \
                 GROUP BY bucket ORDER BY bucket"
            )),
            site: "SELECT argMax(site, seen_at) AS site FROM sensors FINAL WHERE sensor = {sensor:String}".to_owned(),
            search: format!(
                "SELECT sensor, argMax(site, seen_at) AS site FROM sensors FINAL \
                 WHERE positionCaseInsensitiveUTF8(sensor, {{text:String}}) > 0 \
                 GROUP BY sensor ORDER BY startsWith(sensor, {{text:String}}) DESC, sensor LIMIT {}",
                MAX_FOUND + 1
            ),
        }
    }
}
