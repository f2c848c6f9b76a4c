//! The byte budget of the whole process.
//!
//! Whatever can grow with the backlog or with the length of an outage (fetched records, rows waiting to be encoded,
//! open and sealed segments, rows waiting for the hot store) holds a [`Reservation`]. Ingest stops taking records
//! while [`MemoryBudget::is_exhausted`]; partitions cut their segments when [`MemoryBudget::is_tight`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Share of the budget from which the largest open segments are cut.
const TIGHT: f64 = 0.6;
/// Share of the budget from which no more records are taken in. The rest is for what is already on its way: encoders
/// hold a few batches each that they cannot refuse.
const EXHAUSTED: f64 = 0.85;

/// Counts the bytes in use against `limits.memory`.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: usize,
    used: AtomicUsize,
}

/// A share of the budget, given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// Takes a share. Never refuses: whoever takes bytes in from outside asks [`Self::is_exhausted`] first.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation { budget: Arc::clone(self), bytes }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The budget in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether open segments should be cut to free memory.
    pub fn is_tight(&self) -> bool {
        self.used() as f64 >= self.limit as f64 * TIGHT
    }

    /// Whether no more records may be taken in.
    pub fn is_exhausted(&self) -> bool {
        self.used() as f64 >= self.limit as f64 * EXHAUSTED
    }
}

impl Reservation {
    /// Grows or shrinks the share.
    pub fn resize(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// A further share of the same budget.
    #[must_use]
    pub fn sibling(&self, bytes: usize) -> Self {
        self.budget.reserve(bytes)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_comes_back() {
        let budget = MemoryBudget::new(1_000);
        let mut share = budget.reserve(100);
        let other = budget.reserve(500);
        assert!(budget.is_tight() && !budget.is_exhausted());
        share.resize(400);
        assert!(budget.is_exhausted());
        share.resize(50);
        drop(other);
        assert_eq!(budget.used(), share.bytes());
        drop(share);
        assert_eq!(budget.used(), 0);
    }
}
