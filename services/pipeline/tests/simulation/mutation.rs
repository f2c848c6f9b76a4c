//! The protocol with one of its rules broken on purpose. A simulation that lets one of these pass proves nothing.
//!
//! The protocol's own code stays as it is: each mutation makes a seam behave as if the rule were not kept, so that what
//! can be observed is what the mutated protocol would do. Only whether rows wait for a footer no seam can tell; that is a
//! setting of the partition ([`AwaitedAnswers`]).

use std::sync::Arc;

use kappa_core::partition::{AwaitedAnswers, PartitionState};
use kappa_core::snapshot::SnapshotWriter;

use crate::scenario::{LATENESS_MS, WINDOW_MS, settings};

/// A broken rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Archive objects are written without create-only: the last cut wins instead of the first.
    OverwritingPut,
    /// A segment that exists already is taken for our own without a look at it.
    UncheckedConflict,
    /// The offset is committed before the snapshot is there.
    CommitBeforeSnapshot,
    /// The offset is committed before the rows are there.
    CommitBeforeRows,
    /// The offset is committed before the dead letters are there.
    CommitBeforeDeadLetters,
    /// A replay begins without the watermark of the position that it begins at.
    ReplayWithoutWatermark,
    /// Of two rows, the one that was written later wins, not the one that is true further up the log.
    VersionFromTheClock,
    /// A member that was fenced may commit all the same.
    CommitByAZombie,
    /// Flagged events are acknowledged and not written.
    LostAnomalies,
    /// A replay begins without the readings that were there before the position that it begins at.
    ReplayWithoutReadings,
    /// Rows leave although the registry has just refused a schema, and the footer that says so is not durable yet.
    RefusalNotAwaited,
    /// Rows leave although the registry has just said for the first time that it knows a schema.
    AcceptanceNotAwaited,
}

impl Mutation {
    pub(crate) const ALL: [Self; 12] = [
        Self::OverwritingPut,
        Self::UncheckedConflict,
        Self::CommitBeforeSnapshot,
        Self::CommitBeforeRows,
        Self::CommitBeforeDeadLetters,
        Self::ReplayWithoutWatermark,
        Self::VersionFromTheClock,
        Self::CommitByAZombie,
        Self::LostAnomalies,
        Self::ReplayWithoutReadings,
        Self::RefusalNotAwaited,
        Self::AcceptanceNotAwaited,
    ];

    /// Whether it only shows where a schema is registered while two owners ask for it.
    pub(crate) fn needs_a_late_schema(self) -> bool {
        self.awaited_answers() != AwaitedAnswers::BOTH
    }

    /// What a partition awaits with this rule broken.
    pub(crate) fn awaited_answers(self) -> AwaitedAnswers {
        AwaitedAnswers { refusals: self != Self::RefusalNotAwaited, acceptances: self != Self::AcceptanceNotAwaited }
    }
}

/// A compressed snapshot with its readings taken out, otherwise as it was.
pub(crate) fn without_readings(compressed: &[u8]) -> Option<Vec<u8>> {
    let snapshot = zstd::decode_all(compressed).ok()?;
    let mut settings = (*settings(1)).clone();
    settings.event = settings.event.with_sequence(&settings.reader, None).ok()?;
    let (state, _) = PartitionState::restore(Arc::new(settings), &snapshot).ok()?;
    zstd::encode_all(state.snapshot().as_slice(), 1).ok()
}

/// A compressed snapshot with its watermark taken out, otherwise as it was.
pub(crate) fn without_watermark(compressed: &[u8]) -> Option<Vec<u8>> {
    const CHECKSUM: usize = 8;
    const MAGIC_AND_VERSION: usize = 8;
    let mut snapshot = zstd::decode_all(compressed).ok()?;
    // The windows' part begins with their settings; the watermark follows.
    let settings = [WINDOW_MS.to_le_bytes(), LATENESS_MS.to_le_bytes()].concat();
    let at = snapshot.windows(settings.len()).position(|bytes| bytes == settings)? + settings.len();
    snapshot.get_mut(at..at + 8)?.copy_from_slice(&i64::MIN.to_le_bytes());
    let mut writer = SnapshotWriter::new();
    snapshot[MAGIC_AND_VERSION..snapshot.len() - CHECKSUM].iter().for_each(|byte| writer.u8(*byte));
    zstd::encode_all(writer.finish().as_slice(), 1).ok()
}
