//! Everything a partition's worker needs besides its log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kappa_core::partition::PartitionSettings;

use super::observer::Observer;
use crate::archive::{EncoderLane, SegmentFormat};
use crate::memory::MemoryBudget;
use crate::storage::StoreRoot;

/// When things are written. Wall-clock time decides that, and nothing else.
#[derive(Debug, Clone)]
pub struct Pacing {
    /// How often at most the rows of open windows are upserted.
    pub emit_interval: Duration,
    /// How long a segment may stay open after its first record.
    pub checkpoint_interval: Duration,
    /// Encoded bytes of a segment.
    pub max_segment_bytes: usize,
    /// A partition whose newest record is older than this, with others behind it, is catching up: provisional rows
    /// would be stale on arrival and are skipped.
    pub catching_up_after: Duration,
}

/// The three stores; often prefixes of one.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Parquet segments.
    pub archive: StoreRoot,
    /// Dead letters.
    pub dead_letters: StoreRoot,
    /// Snapshots.
    pub state: StoreRoot,
}

/// What one partition runs with. `R`, `H` and `C` are the seams: registry, hot store, clock.
#[derive(Debug)]
pub struct PartitionContext<R, H, C> {
    /// The partition.
    pub partition: i32,
    /// What a log prefix means.
    pub settings: Arc<PartitionSettings>,
    /// How segments are encoded.
    pub format: Arc<SegmentFormat>,
    /// Where they are encoded.
    pub lane: EncoderLane,
    /// Where things are kept.
    pub stores: Stores,
    /// Where schemas are looked up.
    pub registry: R,
    /// Where rows go.
    pub hot_store: H,
    /// The wall clock.
    pub clock: C,
    /// When things are written.
    pub pacing: Pacing,
    /// The byte budget of the process.
    pub budget: Arc<MemoryBudget>,
    /// Sizes of all open segments of the process.
    pub sizes: Arc<SegmentSizes>,
    /// Tells the outside what goes on.
    pub observer: Observer,
}

/// Below this a segment is not cut for memory: it would not free much, and make a small file.
const WORTH_CUTTING: usize = 1 << 20;

/// Sizes of the open segments, so that under memory pressure the largest is cut first.
#[derive(Debug, Default)]
pub struct SegmentSizes(Mutex<BTreeMap<i32, usize>>);

impl SegmentSizes {
    /// Notes the size of a partition's open segment.
    pub fn note(&self, partition: i32, bytes: usize) {
        self.lock().insert(partition, bytes);
    }

    /// Forgets a partition that is no longer ours.
    pub fn forget(&self, partition: i32) {
        self.lock().remove(&partition);
    }

    /// Whether a partition's segment is the one to cut.
    pub fn is_largest(&self, partition: i32) -> bool {
        let sizes = self.lock();
        let own = sizes.get(&partition).copied().unwrap_or(0);
        own >= WORTH_CUTTING && sizes.values().all(|size| *size <= own)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
