//! What the protocol sees of the world: one partition of the log, the schema registry, the hot store.
//!
//! The object store's own trait, [`object_store::ObjectStore`], is the fourth seam, and the wall clock the fifth.
//! Everything in `partition/` is written against these alone, so that the very code that runs in production also
//! runs, deterministically, in the simulation of `tests/simulation`.

use std::future::Future;
use std::sync::Arc;

use kappa_core::decode::SchemaReference;
use kappa_core::record::LogBatch;
use kappa_core::rows::{AnomalyRow, QualityRow, SensorRow, WindowRow};

use crate::memory::Reservation;
use crate::registry::SchemaVerdict;

/// One assigned partition of the log.
///
/// Calls that ask the broker wait through outages and never fail for passing reasons. All futures may be dropped
/// half-way: that is how a revoked partition, and in the simulation a crash, looks.
pub trait PartitionLog {
    /// See [`GroupOffsets`].
    type Group: GroupOffsets + Clone + 'static;

    /// The next records at or behind the last [`Self::seek`], in offset order. Waits while there are none.
    ///
    /// An error means that the log has lost what we still need (retention overran the position, the topic is gone):
    /// the partition must stop loudly.
    fn next(&mut self) -> impl Future<Output = Result<Delivery, LogLost>>;

    /// Goes on at `offset`. Nothing that was fetched before this call is delivered after it.
    fn seek(&mut self, offset: i64) -> impl Future<Output = Result<(), LogLost>>;

    /// The range of the log that exists now, asked from the broker.
    fn bounds(&self) -> impl Future<Output = LogBounds>;

    /// The newest stretch of offsets that is known to hold no records, where there is one: markers of transactions, say.
    /// Its first, and the one behind its last.
    fn without_records(&self) -> Option<(i64, i64)> {
        None
    }

    /// Where the start policy puts a partition that was never consumed: an offset within [`Self::bounds`].
    fn resolve_start(&self) -> impl Future<Output = i64>;

    /// The group's side of the partition, usable while records are awaited.
    fn group(&self) -> Self::Group;
}

/// What the consumer group remembers of one partition, and what else is asked while records are awaited.
pub trait GroupOffsets {
    /// The group's committed offset, asked from the coordinator.
    fn committed(&self) -> impl Future<Output = Option<i64>>;

    /// Commits `offset`. Refused when this member no longer owns the partition.
    fn commit(&self, offset: i64) -> impl Future<Output = Result<(), NotTheOwner>>;

    /// The topic's identity (KIP-516) at this moment, asked from the brokers. `None` where they do not say, and while
    /// there is no such topic: then there can be no records of another one of its name either.
    fn topic_id(&self) -> impl Future<Output = Option<String>>;
}

/// Records from the log, and how much of the log lies behind them.
#[derive(Debug)]
pub struct Delivery {
    /// The records. Never empty.
    pub batch: LogBatch,
    /// The high watermark as last seen by the client, for lag; `None` where not yet known.
    pub high_watermark: Option<i64>,
    /// The share of the memory budget that the batch holds; given back on drop.
    pub reservation: Reservation,
}

/// The offsets that the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBounds {
    /// The first offset that retention has left.
    pub low_watermark: i64,
    /// The offset that the next record will get.
    pub high_watermark: i64,
    /// The topic's identity (KIP-516), so that a topic deleted and created again is told apart.
    pub topic_id: Option<String>,
}

/// The log no longer has what the position points to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct LogLost(pub String);

/// The group coordinator fenced this member: another one owns the partition now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the group coordinator refused the commit: {0}")]
pub struct NotTheOwner(pub String);

/// The schema registry.
pub trait SchemaSource {
    /// What the registry says of a schema. Waits through outages: a registry that does not answer is not poison.
    fn schema(&self, reference: SchemaReference) -> impl Future<Output = SchemaVerdict>;
}

/// Rows for the hot store.
#[derive(Debug, Default, Clone)]
pub struct HotRows {
    /// Upserts of windows and late contributions.
    pub windows: Vec<WindowRow>,
    /// Flagged events.
    pub anomalies: Vec<AnomalyRow>,
    /// Where sensors stand.
    pub sensors: Vec<SensorRow>,
    /// What the records of a segment are worth.
    pub quality: Vec<SegmentQuality>,
}

/// The contribution of a segment to the quality of a site and metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentQuality {
    /// Where the segment starts.
    pub segment: i64,
    /// Where it ends.
    pub version: i64,
    /// What it brought.
    pub row: QualityRow,
}

impl HotRows {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.anomalies.is_empty() && self.sensors.is_empty() && self.quality.is_empty()
    }
}

/// The hot store, ClickHouse in production.
pub trait HotStore {
    /// Writes the rows and returns when they are acknowledged durably. Waits through outages.
    ///
    /// Writing the same rows again changes nothing, in whatever order.
    fn write(&self, rows: Arc<HotRows>) -> impl Future<Output = ()>;
}

/// The wall clock. It decides when something is written, never what.
pub trait WallClock {
    /// Milliseconds since the epoch.
    fn now_ms(&self) -> i64;
}
