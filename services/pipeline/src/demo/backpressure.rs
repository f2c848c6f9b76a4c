//! Keeps the producer from running away from the pipeline.
//!
//! A real broker keeps its log for days. The embedded one keeps a few megabytes of each partition and then forgets,
//! so whoever falls behind by more loses records. Well before that the producer waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::embedded::broker::RETAINED_BYTES;
use super::produced::Produced;

/// The producer waits while a partition has more than this that the pipeline has not read. The rest is for what is on
/// its way to the broker, and for a pipeline that has to read its last segment again.
const MOST_UNREAD_BYTES: u64 = RETAINED_BYTES * 2 / 5;

/// How far the pipeline has read, by partition.
#[derive(Debug)]
pub struct Positions(Vec<AtomicI64>);

impl Positions {
    /// Nothing read yet.
    pub fn new(partitions: usize) -> Arc<Self> {
        Arc::new(Self((0..partitions).map(|_| AtomicI64::new(0)).collect()))
    }

    /// The pipeline has read everything before `position`.
    pub fn set(&self, partition: i32, position: i64) {
        if let Some(known) = self.0.get(partition as usize) {
            known.store(position, Relaxed);
        }
    }

    /// Whether the producer has to wait.
    pub fn are_far_behind(&self, produced: &Produced) -> bool {
        let most_unread = (MOST_UNREAD_BYTES as f64 / produced.wire_bytes()) as i64;
        self.unread(produced).any(|unread| unread > most_unread)
    }

    /// Records in the log that the pipeline has not read.
    pub fn unread_total(&self, produced: &Produced) -> u64 {
        self.unread(produced).map(|unread| unread.max(0) as u64).sum()
    }

    fn unread<'a>(&'a self, produced: &'a Produced) -> impl Iterator<Item = i64> + 'a {
        produced.end_offsets().zip(&self.0).map(|(end, position)| end - position.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::fleet::message::{Nature, Ticket};

    #[test]
    fn one_partition_far_behind_is_enough() {
        let produced = Produced::new(1, 2);
        produced.measured_wire_bytes(100.0);
        let positions = Positions::new(2);
        let most_unread = (MOST_UNREAD_BYTES / 100) as i64;
        produced.acknowledged(Ticket { nature: Nature::OnTime, series: 0, is_evolved: false }, 1, most_unread - 1);
        assert!(!positions.are_far_behind(&produced));
        produced.acknowledged(Ticket { nature: Nature::OnTime, series: 0, is_evolved: false }, 1, most_unread);
        assert!(positions.are_far_behind(&produced));
        assert_eq!(positions.unread_total(&produced), most_unread as u64 + 1);
        positions.set(1, 1);
        assert!(!positions.are_far_behind(&produced));
    }
}
