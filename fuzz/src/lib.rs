//! Hostile input for everything that reads bytes of somebody else's: payloads of arbitrary schemas, schemas, snapshots, footers,
//! configurations, contracts. Whatever comes, there is no panic, no hang, and no memory out of proportion; errors are answers.
//!
//! Inputs are mutated from a corpus. One that makes a target answer in words that it has not used before joins the corpus: the
//! decoder's errors name rule, type and field, so they lead the search as branches lead a coverage-guided one. Seeds and
//! finds lie in `corpus/<target>`, inputs that once broke something in `regressions/<target>`; both are run first, always.
//!
//! ```sh
//! cargo test --release --locked --workspace --test fuzz                              # a few seconds each, as `make test`
//! KAPPA_FUZZ_SECONDS=600 KAPPA_FUZZ_SEED=7 cargo test --release --locked --workspace --test fuzz -- --test-threads 2
//! KAPPA_FUZZ_KEEP=1 …                                                                # write finds into the corpus
//! ```

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test may stop where it stands"
)]

pub mod allocations;
pub mod fuzzer;
pub mod input;
pub mod targets;
