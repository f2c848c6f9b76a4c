//! The allocator, and the one setting of it that matters.
//!
//! librdkafka allocates each message on one thread and frees it on another; mimalloc, which takes over C's `malloc` too,
//! does that twice as fast as glibc. By default it gives unused pages back to the system after 10 ms, and the pipeline,
//! which fills and empties the same buffers many times a second, then waits for the kernel to clear them again: a fifth of
//! all CPU in the drain benchmark. A second is long enough for buffers that are used again, and gives a peak back.

#![allow(unsafe_code, reason = "the setting is a C function")]

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, the same number in its versions 2 and 3.
const PURGE_DELAY: c_int = 15;
/// Milliseconds.
const A_SECOND: c_long = 1_000;

unsafe extern "C" {
    #[cfg(test)]
    fn mi_option_get(option: c_int) -> c_long;
    fn mi_option_set(option: c_int, value: c_long);
}

/// Keeps unused pages for a while. The environment variable `MIMALLOC_PURGE_DELAY` (milliseconds) wins.
pub(crate) fn keep_pages() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: sets a number inside the allocator that this program is linked with; it may be set at any time.
        unsafe { mi_option_set(PURGE_DELAY, A_SECOND) };
    }
}

/// Milliseconds after which unused pages are given back.
#[cfg(test)]
fn purge_delay() -> c_long {
    // SAFETY: reads a number inside the allocator.
    unsafe { mi_option_get(PURGE_DELAY) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_reaches_the_allocator() {
        assert!(purge_delay() < A_SECOND, "by default pages are given back at once");
        keep_pages();
        assert_eq!(purge_delay(), A_SECOND);
    }
}
