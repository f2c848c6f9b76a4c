//! The `kappa` binary. Everything is in the library, so that tests can have it.

use std::process::ExitCode;

/// librdkafka allocates each message on one thread and frees it on another; mimalloc, which takes over C's `malloc` too, does
/// that twice as fast as glibc. It keeps unused pages for a second: buffers that are filled and emptied many times a second
/// never wait for the kernel, and a peak is given back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kappa_pipeline::cli::main()
}
