-- What the records of one segment brought, by site, metric and minute of arrival (of the record timestamps). Contributions
-- of segments add up, as late ones do in windows_1m: `segment` is where the segment starts, `version` where it ends.
-- Written when a segment is sealed. Read through the view `quality`.
CREATE TABLE IF NOT EXISTS {database}.quality_1m
(
    `site` LowCardinality(String) COMMENT 'empty where the event does not say, or the record could not be read',
    `metric` LowCardinality(String) COMMENT 'the second field of the series key; empty likewise',
    `minute` DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    `topic` LowCardinality(String),
    `partition` Int32,
    `segment` Int64 CODEC(Delta, ZSTD(1)),
    `accepted` UInt64 CODEC(T64, ZSTD(1)) COMMENT 'events that count',
    `rejected` UInt64 CODEC(T64, ZSTD(1)) COMMENT 'records in the dead letters',
    `duplicates` UInt64 CODEC(T64, ZSTD(1)) COMMENT 'readings that were there already',
    `missing` Int64 CODEC(ZSTD(1)) COMMENT 'readings that are missing, more than before; below zero where gaps were filled',
    `restarts` UInt64 CODEC(T64, ZSTD(1)) COMMENT 'sensors that began to count anew',
    `bad_quality` UInt64 CODEC(T64, ZSTD(1)),
    `delay_sum_ms` Int64 CODEC(ZSTD(1)) COMMENT 'from event time to arrival, added up over the events',
    `delay_max_ms` Int64 CODEC(ZSTD(1)),
    `version` UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(`version`)
PARTITION BY toDate(`minute`)
ORDER BY (`site`, `metric`, `minute`, `topic`, `partition`, `segment`)
TTL toDateTime(`minute`) + INTERVAL 90 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;
