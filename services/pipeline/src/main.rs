//! The `kappa` binary. Everything is in the library, so that tests can have it.

mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::keep_pages();
    kappa_pipeline::cli::main()
}
