//! The `kappa-loadtest` command: see the library for how it works.

/// librdkafka allocates each record on the generator's thread and frees it on another: mimalloc, which takes over C's
/// `malloc` too, does that twice as fast as glibc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    kappa_loadtest::cli::main()
}
