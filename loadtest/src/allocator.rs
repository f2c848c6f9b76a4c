//! The allocator, and the one setting of it that matters.
//!
//! librdkafka allocates each record on the generator's thread and frees it on its own: mimalloc, which takes over C's
//! `malloc` too, does that twice as fast as glibc. By default it gives unused pages back to the system after a while, and
//! the generator, which fills and empties its queue all the time, then waits for the kernel to clear them again: a tenth
//! of its CPU. So pages are kept.

#![allow(unsafe_code, reason = "the setting is a C function")]

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, the same number in its versions 2 and 3.
const PURGE_DELAY: c_int = 15;
/// Milliseconds; negative means never.
const NEVER: c_long = -1;

unsafe extern "C" {
    #[cfg(test)]
    fn mi_option_get(option: c_int) -> c_long;
    fn mi_option_set(option: c_int, value: c_long);
}

/// Keeps unused pages.
pub(crate) fn keep_pages() {
    // SAFETY: sets a number inside the allocator that this program is linked with; it may be set at any time.
    unsafe { mi_option_set(PURGE_DELAY, NEVER) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_reaches_the_allocator() {
        // SAFETY: reads a number inside the allocator.
        let purge_delay = || unsafe { mi_option_get(PURGE_DELAY) };
        assert!(purge_delay() >= 0, "by default pages are given back");
        keep_pages();
        assert_eq!(purge_delay(), NEVER);
    }
}
