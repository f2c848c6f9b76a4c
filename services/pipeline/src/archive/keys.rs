//! Object keys: a stable interface, see the table in `docs/architecture.md`.
//!
//! They are deterministic: whoever writes the segment that starts at an offset writes to the same key, and the store
//! lets only the first one through.

use chrono::{DateTime, Utc};
use object_store::path::Path;

/// Key of the archive or dead-letter object of a segment, below `prefix`.
///
/// Date and hour are those, in UTC, of the Kafka timestamp of the segment's first record.
pub fn segment_key(prefix: &Path, topic: &str, partition: i32, start: i64, first_timestamp_ms: i64) -> Path {
    let time: DateTime<Utc> = DateTime::from_timestamp_millis(first_timestamp_ms).unwrap_or_default();
    let mut key = prefix.clone();
    for part in [
        topic.to_owned(),
        time.format("date=%Y-%m-%d").to_string(),
        time.format("hour=%H").to_string(),
        format!("{partition:05}-{start:020}.parquet"),
    ] {
        key = key.join(part.as_str());
    }
    key
}

/// Where the snapshots of a partition lie.
pub fn snapshot_prefix(prefix: &Path, topic: &str, partition: i32) -> Path {
    prefix.clone().join(topic).join(format!("{partition:05}").as_str())
}

/// Key of the snapshot of a partition at a log position.
pub fn snapshot_key(prefix: &Path, topic: &str, partition: i32, offset: i64) -> Path {
    snapshot_prefix(prefix, topic, partition).join(format!("{offset:020}.snapshot").as_str())
}

/// Key of the object that says where a partition began.
pub fn start_key(prefix: &Path, topic: &str, partition: i32) -> Path {
    snapshot_prefix(prefix, topic, partition).join("start")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_documented() {
        let key = segment_key(&Path::from("raw"), "sensor-readings", 7, 1_234, 1_790_000_000_000);
        assert_eq!(key.as_ref(), "raw/sensor-readings/date=2026-09-21/hour=14/00007-00000000000000001234.parquet");
        assert_eq!(snapshot_key(&Path::default(), "t", 0, 42).as_ref(), "t/00000/00000000000000000042.snapshot");
        assert_eq!(start_key(&Path::default(), "t", 3).as_ref(), "t/00003/start");
    }
}
