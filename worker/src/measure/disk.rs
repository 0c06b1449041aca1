//! How fast the disk of the data folder is read.

use std::fs::{File, OpenOptions, create_dir_all, remove_file};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::gate::Gate;
use super::pool::Pool;
use crate::inventory::free_disk_bytes;

const BLOCK_BYTES: usize = 4 << 20;
const BLOCKS: u64 = 16;
/// A disk with less room than this many times the file is left alone.
const ROOM: u64 = 4;

/// Bytes a second that one reader gets from the disk under `folder`, past the page cache where the file system lets it;
/// `None` when there is no idle moment.
///
/// # Errors
/// When there is no room, the folder cannot be made, or the file cannot be written or read.
pub(super) fn read_rate(pool: &Pool, gate: &Gate<'_>, folder: &Path, budget: Duration) -> io::Result<Option<f64>> {
    let until = pool.cpu() + budget;
    create_dir_all(folder)?;
    let (free, wanted) = (free_disk_bytes(folder)?, ROOM * BLOCKS * BLOCK_BYTES as u64);
    if free < wanted {
        let text = format!("{free} bytes are free, measuring wants {wanted}");
        return Err(io::Error::new(io::ErrorKind::StorageFull, text));
    }
    // Page-aligned, as reads past the page cache must be.
    let mut block = MmapMut::map_anon(BLOCK_BYTES)?;
    fill_with_noise(&mut block);
    let mut file = nameless_file(folder)?;
    for _ in 0..BLOCKS {
        if !gate.pass() || pool.cpu() >= until {
            return Ok(None);
        }
        file.write_all(&block)?;
    }
    file.sync_all()?;
    leave_page_cache(&file);
    let mut reading = Duration::ZERO;
    for index in 0..BLOCKS {
        if !gate.pass() || pool.cpu() >= until {
            return Ok(None);
        }
        let begun = Instant::now();
        file.read_exact_at(&mut block, index * BLOCK_BYTES as u64)?;
        reading += begun.elapsed();
    }
    Ok(Some((BLOCKS * BLOCK_BYTES as u64) as f64 / reading.as_secs_f64().max(f64::MIN_POSITIVE)))
}

/// A file whose name is taken away at once, so that nothing is left of it however the process ends.
fn nameless_file(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!("disk-{}.tmp", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    remove_file(&path)?;
    Ok(file)
}

/// Not all the same byte: file systems that compress would read next to nothing.
fn fill_with_noise(block: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for word in block.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

/// Both are requests: a file system that refuses them is read as it can be.
fn leave_page_cache(file: &File) {
    #[cfg(target_os = "linux")]
    // SAFETY: both calls take an open descriptor and plain numbers.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT);
    }
}
