//! The `kappa-loadtest` command: see the library for how it works.

mod allocator;

fn main() -> std::process::ExitCode {
    allocator::keep_pages();
    kappa_loadtest::cli::main()
}
