//! Memory of processes that move models and run none.

/// Takes memory from the system in small pages from now on. Chunks are many short-lived buffers on many threads: of pages of
/// 2 MiB most is zeroed for nothing, which was a third of a pull's processor time. Models gain from them, so a worker keeps
/// them.
pub(crate) fn take_small_pages() {
    // SAFETY: no memory is involved; where the system does not know it nothing changes.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}
