-- One row per flagged event. A replay writes the very same row: its place in the log is part of the key.
CREATE TABLE IF NOT EXISTS {database}.anomalies
(
    {key_columns}
    `event_time` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `value` Float64 CODEC(ZSTD(1)),
    `expected` Float64 CODEC(ZSTD(1)),
    `score` Float64 CODEC(ZSTD(1)) COMMENT 'minus the decimal logarithm of a tail probability',
    `kind` LowCardinality(String),
    `topic` LowCardinality(String),
    `partition` Int32,
    `offset` Int64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(`event_time`)
ORDER BY ({key}, `event_time`, `topic`, `partition`, `offset`)
TTL toDateTime(`event_time`) + INTERVAL 90 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;
