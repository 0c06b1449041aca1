//! How fast memory is copied.

use std::collections::HashMap;
use std::fs::read_to_string;
use std::time::Duration;

use memmap2::{Advice, MmapMut};
use rayon::prelude::*;

use super::gate::Gate;
use super::pool::Pool;
use crate::inventory::Memory;

const MIB: u64 = 1 << 20;
/// What one thread copies in one slice: far above its own caches' size, about a millisecond.
const SHARE: usize = 2 << 20;

/// Bytes a second that all cores together read and write while they copy a buffer too large for the caches, counted as
/// STREAM counts them: a copied byte is one read and one written. `None` when it could not be measured.
pub(super) fn bandwidth(pool: &Pool, gate: &Gate<'_>, budget: Duration) -> Option<f64> {
    let until = pool.cpu() + budget;
    let bytes = buffer_bytes(Memory::read().free_bytes, last_level_cache_bytes())?;
    // Mapped, not allocated: what is unmapped leaves the process at once.
    let mut buffer = MmapMut::map_anon(bytes).ok()?;
    // Large pages are only faster to fill: without them the figure is about the same.
    let _ = buffer.advise(Advice::HugePage);
    let slice_bytes = SHARE * pool.thread_count();
    for block in buffer.chunks_mut(slice_bytes) {
        if !gate.pass() || pool.cpu() >= until {
            return None;
        }
        pool.run(|| block.par_chunks_mut(SHARE).for_each(|share| share.fill(1)));
    }
    let (source, target) = buffer.split_at_mut(bytes / 2);
    let block_bytes = slice_bytes.min(bytes / 2);
    let blocks = bytes / 2 / block_bytes;
    let mut next = 0;
    pool.median_rate(gate, until, 2.0 * block_bytes as f64, || {
        let block = next * block_bytes..(next + 1) * block_bytes;
        let target = target[block.clone()].par_chunks_mut(SHARE);
        target.zip(source[block].par_chunks(SHARE)).for_each(|(target, source)| target.copy_from_slice(source));
        next = (next + 1) % blocks;
    })
}

/// Four times the last caches or 256 MiB, at most 1 GiB and an eighth of what is free; `None` when the caches would be
/// measured instead.
fn buffer_bytes(free: u64, cache: u64) -> Option<usize> {
    let bytes = cache.saturating_mul(4).clamp(256 * MIB, 1024 * MIB).min(free / 8);
    let bytes = bytes - bytes % MIB;
    (bytes >= 16 * MIB && bytes >= 2 * cache).then(|| usize::try_from(bytes).ok()).flatten()
}

/// The last-level caches of all cores, bytes; 0 where the system does not say. Cores that share one count it once.
fn last_level_cache_bytes() -> u64 {
    let mut caches = HashMap::new();
    let cores = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    for core in cores {
        let folder = core.path().join("cache/index3");
        let Ok(size) = read_to_string(folder.join("size")) else { continue };
        let kibibytes = size.trim().strip_suffix('K').and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        caches.insert(read_to_string(folder.join("shared_cpu_list")).unwrap_or_default(), kibibytes << 10);
    }
    caches.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_outgrows_the_caches_and_leaves_most_memory_free() {
        assert_eq!(buffer_bytes(64 << 30, 32 << 20), Some(256 << 20));
        assert_eq!(buffer_bytes(64 << 30, 100 << 20), Some(400 << 20));
        assert_eq!(buffer_bytes(1 << 30, 0), Some(128 << 20));
        assert_eq!(buffer_bytes(1 << 30, 100 << 20), None);
        assert_eq!(buffer_bytes(64 << 20, 0), None);
        assert_eq!(buffer_bytes(1 << 40, 1 << 30), None);
    }
}
