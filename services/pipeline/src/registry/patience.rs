//! How long unknown ids may hold things up in all.
//!
//! One unknown id is worth a wait: registries replicate with a delay. But ten thousand records of garbage, each with
//! another id, must not hold a partition for ten thousand waits. So all waits draw on one pool that refills slowly.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many full waits are in a full pool.
const FULL_WAITS: u32 = 4;

/// The pool gains one second in so many.
const REFILL: u32 = 10;

#[derive(Debug)]
pub(super) struct Patience {
    capacity: Duration,
    pool: Mutex<Pool>,
}

#[derive(Debug)]
struct Pool {
    left: Duration,
    at: Instant,
}

impl Patience {
    /// A full pool for waits of this length.
    pub(super) fn new(wait: Duration) -> Self {
        let capacity = wait * FULL_WAITS;
        Self { capacity, pool: Mutex::new(Pool { left: capacity, at: Instant::now() }) }
    }

    /// Takes a wait out of the pool; false if there is too little left.
    pub(super) fn spend(&self, wait: Duration) -> bool {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        pool.left = (pool.left + now.duration_since(pool.at) / REFILL).min(self.capacity);
        pool.at = now;
        let Some(left) = pool.left.checked_sub(wait) else {
            return false;
        };
        pool.left = left;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_runs_dry() {
        let patience = Patience::new(Duration::from_hours(1));
        let granted = (0..20).filter(|_| patience.spend(Duration::from_mins(30))).count();
        assert_eq!(granted, 8);
    }
}
