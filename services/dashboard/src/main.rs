//! The `kappa-dashboard` binary. Everything is in the library, so that tests and `kappa demo` can have it.

use std::process::ExitCode;

fn main() -> ExitCode {
    kappa_dashboard::cli::main()
}
