-- One row per series, window and partition of the log (segment = -1), and one per segment that had late events for it
-- (segment = where that segment starts). `version` is the log position up to which a row is true: of several rows with
-- the same key the newest truth stays, whoever wrote it and however often. Read through the view `windows`.
CREATE TABLE IF NOT EXISTS {database}.windows_1m
(
    {key_columns}
    `window_start` DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    `topic` LowCardinality(String),
    `partition` Int32,
    `segment` Int64 CODEC(ZSTD(1)),
    `count` UInt64 CODEC(T64, ZSTD(1)),
    `sum` Float64 CODEC(ZSTD(1)),
    `min` Float64 CODEC(Gorilla, ZSTD(1)),
    `max` Float64 CODEC(Gorilla, ZSTD(1)),
    `m2` Float64 CODEC(ZSTD(1)) COMMENT 'sum of squared deviations from the mean of this row',
    `first_value` Float64 CODEC(Gorilla, ZSTD(1)),
    `first_time` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `last_value` Float64 CODEC(Gorilla, ZSTD(1)),
    `last_time` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `anomalies` UInt64 CODEC(T64, ZSTD(1)),
    `max_score` Float64 CODEC(ZSTD(1)) COMMENT 'minus the decimal logarithm of a tail probability',
    `bad_quality` UInt64 CODEC(T64, ZSTD(1)),
    `closed` Bool,
    `version` UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(`version`)
PARTITION BY toDate(`window_start`)
ORDER BY ({key}, `window_start`, `topic`, `partition`, `segment`)
TTL toDateTime(`window_start`) + INTERVAL 90 DAY
-- An acknowledged row must survive a crash of the machine: the log position behind it is committed next.
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;
