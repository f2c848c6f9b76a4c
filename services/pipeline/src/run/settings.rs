//! From configuration to what a log prefix means.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use anyhow::Context as _;
use kappa_core::anomaly::{ConfiguredDetector, Robust};
use kappa_core::archive::archive_schema;
use kappa_core::contract::{EventFields, TimeLimits};
use kappa_core::decode::{DecodeLimits, ReaderSchema};
use kappa_core::partition::{AwaitedAnswers, PartitionSettings};
use kappa_core::windows::WindowSettings;

use crate::config::{AnomalyConfig, Config, DetectorKind};
use crate::contract;

/// A series that was silent for a day is forgotten.
const FORGET_SERIES_AFTER: Duration = Duration::from_hours(24);

/// Rows of a batch on its way to Parquet: enough for the encoder to work at full speed.
const ROWS_PER_BATCH: usize = 8_192;

/// Bounds on the bytes of a batch of large records; in between a quarter of a segment, so that segments keep to their size.
const SMALLEST_BATCH_BYTES: usize = 256 << 10;
const LARGEST_BATCH_BYTES: usize = 4 << 20;

/// Everything that the core needs to know.
pub fn partition_settings(config: &Config) -> anyhow::Result<PartitionSettings> {
    let avsc = config.reader_schema()?;
    let reader = ReaderSchema::parse(&avsc).context("the reader schema (event.schema) is not usable")?;
    let contract = contract::in_force(config, &reader)?.map(|(_, rules)| rules).unwrap_or_default();
    let event = &config.event;
    let quality = event.quality.as_deref().map(|field| (field, event.bad_quality.as_str()));
    Ok(PartitionSettings {
        topic: config.kafka.topic.clone(),
        archive_schema: archive_schema(&reader),
        event: EventFields::bind(&reader, &event.key, &event.time, &event.value, quality)?
            .with_site(&reader, event.site.as_deref())?
            .with_sequence(&reader, event.sequence.as_deref())?,
        reader,
        contract,
        time_limits: TimeLimits {
            max_event_age_ms: milliseconds(config.limits.max_event_age),
            max_future_skew_ms: milliseconds(config.limits.max_future_skew),
        },
        decode_limits: DecodeLimits {
            max_record_bytes: config.limits.max_record_bytes as usize,
            max_depth: config.limits.max_depth as usize,
            ..DecodeLimits::default()
        },
        windows: WindowSettings {
            length_ms: milliseconds(config.windows.length),
            allowed_lateness_ms: milliseconds(config.windows.allowed_lateness),
            forget_after_ms: milliseconds(FORGET_SERIES_AFTER),
        },
        detector: detector(&config.anomaly),
        rows_per_batch: ROWS_PER_BATCH,
        bytes_per_batch: (config.checkpoint.max_bytes as usize / 4).clamp(SMALLEST_BATCH_BYTES, LARGEST_BATCH_BYTES),
        // Unknown to producers, so that they cannot choose keys that collide.
        hash_seed: RandomState::new().hash_one(0),
        awaited: AwaitedAnswers::BOTH,
    })
}

fn detector(config: &AnomalyConfig) -> ConfiguredDetector {
    match config.detector {
        DetectorKind::None => ConfiguredDetector::Off,
        DetectorKind::Robust => {
            let robust = Robust::new(config.warm_up, config.refractory, config.threshold, config.flatline_after);
            ConfiguredDetector::Robust(robust)
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
