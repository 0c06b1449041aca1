//! Memory that this process may use: the machine's, or less where a cgroup limits it.

use sysinfo::{MemoryRefreshKind, System};

use super::cgroup;

/// Bytes of memory, of the machine or of the cgroup that limits this process, whichever is less.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// What there is.
    pub total_bytes: u64,
    /// What new work can have without anything being swapped or killed; caches that the kernel gives back count as free.
    pub free_bytes: u64,
}

impl Memory {
    /// Reads the figures of now: a few small files, some ten microseconds.
    pub fn read() -> Memory {
        // An error means a system that sysinfo does not know: nothing is free there as far as anyone can tell.
        let Ok(mut system) = System::new() else { return Memory { total_bytes: 0, free_bytes: 0 } };
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let mut memory = Memory { total_bytes: system.total_memory(), free_bytes: system.available_memory() };
        for limit in cgroup::memory_limits() {
            memory.total_bytes = memory.total_bytes.min(limit.limit_bytes);
            memory.free_bytes = memory.free_bytes.min(limit.limit_bytes.saturating_sub(limit.used_bytes));
        }
        memory
    }
}
