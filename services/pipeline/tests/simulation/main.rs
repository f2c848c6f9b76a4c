//! The protocol in a simulated world: the real partition, seal, adopt, restore and commit code against a simulated
//! log, object store, hot store, registry and group coordinator, under a seeded scheduler.
//!
//! Time is tokio's paused clock, so that a run takes milliseconds; everything random comes from one seed, so that a run
//! repeats exactly. `KAPPA_SIM_SEED=17 cargo test --release --test simulation` replays one seed, and
//! `KAPPA_SIM_SEEDS=1000000` (`make soak`) runs more of them.
//!
//! That the simulation can find what it looks for is shown by breaking the protocol on purpose, see [`mutation`].

#![allow(clippy::panic, reason = "tests")]

mod group_and_log;
mod hot_store;
mod invariants;
mod mutation;
mod object_store;
mod records;
mod registry;
mod scenario;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use mutation::Mutation;
use scenario::{run_late_schema, run_mutated, run_recreated_topic, run_seed};

/// As the program has it: runs make and drop many small files.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEFAULT_SEEDS: u64 = 10_000;

fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the seeds on all cores: each has a world of its own.
fn run_seeds(seeds: u64) -> scenario::Outcome {
    let next = AtomicU64::new(0);
    let run_some = || {
        let mut total = scenario::Outcome::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return total;
            }
            match run_seed(seed) {
                Ok(outcome) => total.add(&outcome),
                Err(broken) => {
                    panic!("seed {seed} breaks an invariant; replay it with KAPPA_SIM_SEED={seed}\n{broken}")
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut total = scenario::Outcome::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run_some)).collect();
        for thread in running {
            total.add(&thread.join().expect("no seed breaks an invariant"));
        }
    });
    total
}

#[test]
fn every_seed_keeps_every_invariant() {
    if let Some(seed) = number_from_environment("KAPPA_SIM_SEED") {
        let outcome = run_seed(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        println!("seed {seed}: {outcome:?}");
        return;
    }
    let seeds = number_from_environment("KAPPA_SIM_SEEDS").unwrap_or(DEFAULT_SEEDS);
    let total = run_seeds(seeds);
    println!("{seeds} seeds: {total:?}");
    // The scenarios must really have gone where the protocol is delicate.
    assert!(total.crashes > seeds / 2 && total.zombies > seeds && total.pauses > seeds / 2, "{total:?}");
    assert!(total.adopted_segments > seeds / 2 && total.refused_commits > seeds / 2, "{total:?}");
    assert!(total.store_faults > seeds * 4 && total.duplicates > seeds / 4, "{total:?}");
    assert!(total.late_rows > seeds && total.anomalies > seeds / 8 && total.readings_again > seeds, "{total:?}");
}

const SEEDS_OF_A_NEW_TOPIC: u64 = 100;

#[test]
fn a_topic_made_anew_leaves_nothing_behind() {
    let mut archived = 0;
    for seed in 0..SEEDS_OF_A_NEW_TOPIC {
        archived += run_recreated_topic(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
    assert!(archived > 10 * SEEDS_OF_A_NEW_TOPIC, "hardly anything was archived before: {archived}");
}

const SEEDS_OF_A_LATE_SCHEMA: u64 = 1_000;

#[test]
fn a_schema_that_is_registered_late_is_refused_or_accepted_by_all() {
    let mut total = scenario::Outcome::default();
    for seed in 0..SEEDS_OF_A_LATE_SCHEMA {
        total.add(&run_late_schema(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}")));
    }
    assert!(total.refused_commits > SEEDS_OF_A_LATE_SCHEMA / 10, "hardly any two owners have met: {total:?}");
}

#[test]
fn a_seed_repeats_exactly() {
    for seed in [3, 77] {
        let (first, second) = (run_seed(seed), run_seed(seed));
        assert_eq!(first, second, "seed {seed}");
    }
}

/// Within so many seeds a broken rule must show.
const SEEDS_FOR_A_MUTATION: u64 = 400;

#[test]
fn every_broken_rule_is_noticed() {
    for mutation in Mutation::ALL {
        let seeds = if mutation.needs_a_late_schema() { SEEDS_OF_A_LATE_SCHEMA } else { SEEDS_FOR_A_MUTATION };
        let noticed = (0..seeds).find_map(|seed| Some((seed, run_mutated(seed, mutation).err()?)));
        let Some((seed, broken)) = noticed else {
            panic!("{mutation:?} went unnoticed by {seeds} seeds");
        };
        println!("{mutation:?}: seed {seed}: {}", broken.lines().next().unwrap_or_default());
        assert_eq!(run_mutated(seed, mutation).err(), Some(broken), "{mutation:?} at seed {seed} does not repeat");
    }
}
