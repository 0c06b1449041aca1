//! The greatest piece of memory that the tests have asked the system for.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

static GREATEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

#[global_allocator]
static WATCHED: Watched = Watched;

// SAFETY: everything is the system allocator's work.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        GREATEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's word is passed on, here and below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        GREATEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        GREATEST.fetch_max(size, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

/// Its bytes, by any test so far.
pub(super) fn greatest() -> usize {
    GREATEST.load(Ordering::Relaxed)
}
