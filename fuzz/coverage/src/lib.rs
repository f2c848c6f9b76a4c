//! The targets of `kappa-fuzz` under libFuzzer, one program each. `make fuzz` builds and runs them on the stable compiler.
//!
//! `cargo test --test fuzz` searches without any tools and in seconds, led by the words of the answers. This one is led by
//! the branches that an input takes, so it gets behind checks that answer nothing; but it needs a build of everything
//! with counters in it.

use std::path::Path;
use std::sync::LazyLock;

use kappa_fuzz::allocations::measured;
use kappa_fuzz::fuzzer::{Target, write};

pub use kappa_fuzz::allocations::Counting;
pub use libfuzzer_sys::fuzz_target;

/// Made when it is first needed.
pub type OneTarget = LazyLock<Box<dyn Target + Send + Sync>>;

/// Makes a program of a target.
#[macro_export]
macro_rules! under_libfuzzer {
    ($target:expr) => {
        #[global_allocator]
        static ALLOCATOR: $crate::Counting = $crate::Counting;

        static TARGET: $crate::OneTarget = $crate::OneTarget::new(|| Box::new($target));

        $crate::fuzz_target!(init: $crate::write_seeds(&**TARGET), |input: &[u8]| {
            $crate::check(&**TARGET, input);
        });
    };
}

/// Writes the good inputs into the directory `KAPPA_FUZZ_SEEDS`, before libFuzzer reads its corpus.
///
/// # Panics
/// Where they cannot be written.
pub fn write_seeds(target: &dyn Target) {
    let Some(directory) = std::env::var_os("KAPPA_FUZZ_SEEDS") else { return };
    for seed in target.seeds() {
        write(Path::new(&directory), &seed);
    }
}

/// Runs a target once.
///
/// # Panics
/// If the target does, or holds too much memory.
pub fn check(target: &dyn Target, input: &[u8]) {
    let (_, peak) = measured(|| target.run(input));
    let allowed = target.memory_allowed(input);
    assert!(peak <= allowed, "{} held {peak} B, {allowed} are allowed", target.name());
}
