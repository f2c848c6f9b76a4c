//! When to stop taking records: for the whole process, and for one partition.
//!
//! Two cases must be told apart. *Everything is slower than the log*: stop taking from the queue for a moment. That
//! costs nothing; librdkafka stops fetching when its queue is full. *One partition takes nothing* (it restores, or waits
//! for the registry) while the others could go on: pause that one in librdkafka. That costs a refetch of what was
//! prefetched, so it must not happen in the first case; hence only a partition that has taken nothing for a while is
//! paused, not one that is merely behind.
//!
//! The share of a partition is at most the common limit divided by their number. So whenever the common limit is reached,
//! some partition is above its share: it either moves on, or it is paused and no longer counts. The others cannot
//! starve.

use std::time::Duration;

use super::IngestLimits;

/// How long a partition has taken nothing before it counts as stalled.
pub(super) const STALLED_AFTER: Duration = Duration::from_millis(250);
/// The smallest share of a partition, however many there are.
const SMALLEST_SHARE: usize = 256 * 1024;

/// What one partition has not taken yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backlog {
    /// Bytes in the partition's channel.
    pub(super) bytes: usize,
    /// Since when nothing was taken out of it; zero while it is empty.
    pub(super) stalled_for: Duration,
    /// Whether the partition is paused.
    pub(super) paused: bool,
}

/// What to do with one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Pause,
    Resume,
}

/// The share of one of `partitions` partitions.
pub(super) fn partition_share(limits: &IngestLimits, partitions: usize) -> usize {
    let fair = limits.undelivered_bytes / partitions.max(1);
    fair.clamp(SMALLEST_SHARE, limits.partition_undelivered_bytes.max(SMALLEST_SHARE))
}

/// Whether a partition is to be paused or resumed.
pub(super) fn step(backlog: Backlog, share: usize) -> Option<Step> {
    if backlog.paused {
        return (backlog.bytes <= resume_below(share)).then_some(Step::Resume);
    }
    (backlog.bytes >= share && backlog.stalled_for >= STALLED_AFTER).then_some(Step::Pause)
}

/// A paused partition goes on when it has no more than this left: enough to work on until the refetch arrives.
pub(super) fn resume_below(share: usize) -> usize {
    share / 4
}

/// The common gate, with hysteresis for our own bytes. There is none for the memory budget: what would have to be freed
/// below a lower mark may be held for good reason, and the gate would never open again.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: bool,
}

impl Gate {
    /// Whether no records may be taken now. `undelivered` counts the partitions that are not paused.
    pub(super) fn update(&mut self, undelivered: usize, limits: &IngestLimits, budget_exhausted: bool) -> bool {
        let full = if self.closed { limits.undelivered_bytes / 2 } else { limits.undelivered_bytes };
        self.closed = budget_exhausted || undelivered >= full;
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: IngestLimits = IngestLimits { undelivered_bytes: 64 << 20, ..IngestLimits::DEFAULT };

    fn backlog(bytes: usize, stalled_ms: u64, paused: bool) -> Backlog {
        Backlog { bytes, stalled_for: Duration::from_millis(stalled_ms), paused }
    }

    #[test]
    fn only_a_stalled_partition_is_paused() {
        let share = partition_share(&LIMITS, 4);
        assert_eq!(share, LIMITS.partition_undelivered_bytes);
        assert_eq!(step(backlog(share, 10, false), share), None, "behind, but moving");
        assert_eq!(step(backlog(share - 1, 900, false), share), None, "stalled, but small");
        assert_eq!(step(backlog(share, 900, false), share), Some(Step::Pause));
        assert_eq!(step(backlog(share / 2, 0, true), share), None);
        assert_eq!(step(backlog(share / 4, 0, true), share), Some(Step::Resume));
    }

    #[test]
    fn stalled_partitions_cannot_keep_the_gate_closed() {
        for partitions in [1, 2, 12, 64] {
            let share = partition_share(&LIMITS, partitions);
            assert!(share * partitions <= LIMITS.undelivered_bytes, "{partitions}");
        }
    }

    #[test]
    fn the_gate_reopens_at_half() {
        let mut gate = Gate::default();
        assert!(!gate.update((64 << 20) - 1, &LIMITS, false));
        assert!(gate.update(64 << 20, &LIMITS, false));
        assert!(gate.update(40 << 20, &LIMITS, false));
        assert!(!gate.update(31 << 20, &LIMITS, false));
        assert!(gate.update(0, &LIMITS, true));
        assert!(!gate.update(0, &LIMITS, false));
    }
}
