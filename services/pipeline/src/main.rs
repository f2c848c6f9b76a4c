//! The `kappa` binary. Everything is in the library, so that tests can have it.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: kappa_pipeline::allocator::Allocator = kappa_pipeline::allocator::Allocator;

fn main() -> ExitCode {
    kappa_pipeline::cli::main()
}
