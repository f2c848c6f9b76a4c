-- Where each sensor stands, by its newest event that says so: one row per sensor and partition of the log. `version` is
-- the log position behind that event: of several rows with the same key the newest truth stays, as in windows_1m.
-- A sensor is the first field of the series key (`event.key`), its site the text of `event.site`.
CREATE TABLE IF NOT EXISTS {database}.sensors
(
    `sensor` String CODEC(ZSTD(1)),
    `topic` LowCardinality(String),
    `partition` Int32,
    `site` LowCardinality(String) COMMENT 'empty where the event does not say',
    `seen_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'event time of that event',
    `version` UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(`version`)
ORDER BY (`sensor`, `topic`, `partition`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
