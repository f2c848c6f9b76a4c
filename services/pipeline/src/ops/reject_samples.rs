//! The newest refused records of each reason, cut short: enough to see what is wrong without opening a bucket.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use kappa_core::partition::RejectCause;
use kappa_core::record::LogRecord;
use serde::Serialize;

use super::hex;
use super::status::lock;

/// Samples kept of a reason.
const SAMPLES_PER_REASON: usize = 3;

/// Reasons of which samples are kept. Those of the decoder are fewer; rules of a contract come on top.
const MAX_REASONS: usize = 64;

/// Bytes of key and value that are kept.
const KEPT_BYTES: usize = 48;

/// Characters of the sentence that are kept.
const KEPT_DETAIL: usize = 300;

/// A refused record, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectSample {
    /// Why it was refused.
    pub reason: String,
    /// The sentence: what was expected and what was found.
    pub detail: String,
    /// Where it is in the log.
    pub partition: i32,
    /// Where it is in the partition.
    pub offset: i64,
    /// Its Kafka timestamp.
    pub timestamp_ms: i64,
    /// The schema id of its framing, where that could be read.
    pub schema_id: Option<i32>,
    /// First bytes of the key, as hexadecimal digits; null where it has none.
    pub key_hex: Option<String>,
    /// First bytes of the value, as hexadecimal digits; null for a tombstone.
    pub value_hex: Option<String>,
    /// Length of the whole value.
    pub value_bytes: usize,
}

impl RejectSample {
    /// In short.
    pub fn of(partition: i32, record: &LogRecord<'_>, cause: RejectCause<'_>) -> Self {
        Self {
            reason: cause.reason.name().into_owned(),
            detail: cause.detail.chars().take(KEPT_DETAIL).collect(),
            partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            schema_id: cause.schema_id,
            key_hex: record.key.map(first_bytes),
            value_hex: record.value.map(first_bytes),
            value_bytes: record.value.map_or(0, <[u8]>::len),
        }
    }
}

fn first_bytes(bytes: &[u8]) -> String {
    hex(&bytes[..bytes.len().min(KEPT_BYTES)])
}

/// The newest samples by reason. Bounded: reasons, samples of each, bytes of a sample.
#[derive(Debug, Default)]
pub(super) struct RejectSamples(Mutex<BTreeMap<String, VecDeque<RejectSample>>>);

impl RejectSamples {
    pub(super) fn add(&self, sample: RejectSample) {
        let mut reasons = lock(&self.0);
        if !reasons.contains_key(&sample.reason) && reasons.len() >= MAX_REASONS {
            return;
        }
        let samples = reasons.entry(sample.reason.clone()).or_default();
        if samples.len() == SAMPLES_PER_REASON {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Newest first within a reason.
    pub(super) fn report(&self) -> Vec<RejectSample> {
        lock(&self.0).values().flat_map(|samples| samples.iter().rev().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use kappa_core::record::LogBatch;
    use kappa_core::reject::Reason;

    use super::*;

    fn sample(offset: i64, value: &[u8], reason: &Reason, detail: &str) -> RejectSample {
        let mut batch = LogBatch::default();
        batch.push(offset, 1_000 + offset, Some(b"k\xFF"), Some(value), std::iter::empty());
        RejectSample::of(3, &batch.get(0), RejectCause { reason, detail, schema_id: Some(9) })
    }

    #[test]
    fn a_sample_is_cut_short() {
        let sample = sample(7, &[0xAB; 5_000], &Reason::TrailingBytes, &"ü".repeat(1_000));
        assert_eq!((sample.partition, sample.offset, sample.timestamp_ms), (3, 7, 1_007));
        assert_eq!(sample.key_hex.as_deref(), Some("6bff"));
        assert_eq!(sample.value_hex, Some("ab".repeat(KEPT_BYTES)));
        assert_eq!(sample.value_bytes, 5_000);
        assert_eq!(sample.detail.chars().count(), KEPT_DETAIL);
    }

    #[test]
    fn the_newest_of_each_reason_stay_and_no_reason_pushes_out_another() {
        let samples = RejectSamples::default();
        samples.add(sample(0, b"x", &Reason::BadMagic, "first"));
        for offset in 1..100 {
            samples.add(sample(offset, b"x", &Reason::Tombstone, "again"));
        }
        let report = samples.report();
        let seen: Vec<_> = report.iter().map(|sample| (sample.reason.as_str(), sample.offset)).collect();
        assert_eq!(seen, [("bad_magic", 0), ("tombstone", 99), ("tombstone", 98), ("tombstone", 97)]);
    }

    #[test]
    fn memory_is_bounded_whatever_the_rules_are_called() {
        let samples = RejectSamples::default();
        for rule in 0..1_000 {
            for offset in 0..5 {
                samples.add(sample(offset, b"x", &Reason::contract(&format!("rule_{rule}")), "no"));
            }
        }
        assert_eq!(samples.report().len(), MAX_REASONS * SAMPLES_PER_REASON);
    }
}
