//! The program's allocator: mimalloc, and an end at once where memory runs out.
//!
//! The standard library's answer to memory that is not there may print a backtrace, for which it waits for a lock; a panic
//! that is about to print one holds it. Such a process would stand still, alive to whoever watches it, its partitions its
//! own. Nothing is lost by dying: what was not sealed is replayed.
#![allow(unsafe_code, reason = "an allocator is")]

use std::alloc::{GlobalAlloc, Layout};
use std::io::Write as _;

use mimalloc::MiMalloc;

/// librdkafka allocates each message on one thread and frees it on another; mimalloc, which takes over C's `malloc` too, does
/// that twice as fast as glibc. It keeps unused pages for a second: buffers that are filled and emptied many times a second
/// never wait for the kernel, and a peak is given back.
#[derive(Debug)]
pub struct Allocator;

// SAFETY: everything is passed on to mimalloc as it came, and given back as it comes.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are ours.
        there(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        there(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        there(unsafe { MiMalloc.realloc(pointer, layout, new_size) }, new_size)
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

#[inline]
fn there(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if pointer.is_null() {
        out_of_memory(bytes);
    }
    pointer
}

#[cold]
fn out_of_memory(bytes: usize) -> ! {
    // Standard error has no buffer: this allocates nothing.
    _ = writeln!(
        std::io::stderr(),
        "kappa: out of memory: {bytes} bytes are not there; what was not sealed is replayed"
    );
    std::process::abort();
}
