//! The `kappa-loadtest` command: see the library for how it works.

fn main() -> std::process::ExitCode {
    kappa_loadtest::cli::main()
}
