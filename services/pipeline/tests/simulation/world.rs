//! What all simulated parts share: the seed's random numbers, the faults in force, what happened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::mutation::Mutation;
use crate::scenario::Outcome;

/// 2026-09-21, 13:59:00 UTC: the hour ends soon, so segments are cut at it.
pub(crate) const START_MS: i64 = 1_790_000_000_000 - 13 * 60_000;

/// Until then everything has happened that was to happen later.
pub(crate) const LATEST: Duration = Duration::from_secs(5);

/// Shared by all simulated processes and parts.
#[derive(Debug)]
pub(crate) struct World {
    random: Mutex<ChaCha8Rng>,
    started: tokio::time::Instant,
    outcome: Mutex<Outcome>,
    /// The first invariant that was seen broken while running.
    broken: Mutex<Option<String>>,
    faults: Mutex<Faults>,
    /// Of a hundred records so many are of a schema that is registered late.
    late_schemas: AtomicU64,
    /// The rule that is broken on purpose.
    mutation: Option<Mutation>,
}

/// How often, in per cent, a call goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) store_errors: u32,
    pub(crate) lost_acknowledgements: u32,
    pub(crate) false_conflicts: u32,
    /// Rows that arrive a second time, some seconds later: a request that somebody on the way has sent again.
    pub(crate) duplicates: u32,
    pub(crate) longest_delay_ms: u64,
    /// How far the owners' clocks are off.
    pub(crate) clock_skew_ms: i64,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        store_errors: 0,
        lost_acknowledgements: 0,
        false_conflicts: 0,
        duplicates: 0,
        longest_delay_ms: 20,
        clock_skew_ms: 0,
    };
}

impl World {
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
            started: tokio::time::Instant::now(),
            outcome: Mutex::default(),
            broken: Mutex::default(),
            faults: Mutex::new(Faults::NONE),
            late_schemas: AtomicU64::new(2),
            mutation,
        })
    }

    pub(crate) fn late_schemas(&self) -> u64 {
        self.late_schemas.load(Ordering::Relaxed)
    }

    pub(crate) fn set_late_schemas(&self, per_cent: u64) {
        self.late_schemas.store(per_cent, Ordering::Relaxed);
    }

    /// Whether that rule is broken in this run.
    pub(crate) fn breaks_rule(&self, rule: Mutation) -> bool {
        self.mutation == Some(rule)
    }

    /// A number in `0..bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        lock(&self.random).random_range(0..bound.max(1))
    }

    pub(crate) fn happens(&self, per_cent: u32) -> bool {
        self.below(100) < u64::from(per_cent)
    }

    /// Milliseconds since the epoch by the simulated clock.
    pub(crate) fn now_ms(&self) -> i64 {
        START_MS + self.started.elapsed().as_millis() as i64
    }

    /// Takes some time: anything may happen meanwhile, a crash of the caller among it.
    pub(crate) async fn delay(&self) {
        let longest = self.faults().longest_delay_ms;
        let delay = self.below(longest);
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }

    /// Does something some seconds from now, whatever becomes of the process that asked for it.
    pub(crate) fn later(&self, work: impl Future<Output = ()> + Send + 'static) {
        let delay = Duration::from_millis(self.below(LATEST.as_millis() as u64));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            work.await;
        });
    }

    pub(crate) fn faults(&self) -> Faults {
        *lock(&self.faults)
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut lock(&self.outcome));
    }

    pub(crate) fn outcome(&self) -> Outcome {
        lock(&self.outcome).clone()
    }

    pub(crate) fn breaks(&self, invariant: String) {
        lock(&self.broken).get_or_insert(invariant);
    }

    pub(crate) fn broken(&self) -> Option<String> {
        lock(&self.broken).clone()
    }
}

/// Mutexes are never poisoned here: a panic ends the run.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
