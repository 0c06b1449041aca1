//! A file in memory without being read: its pages come when they are touched.

use std::{fs::File, path::Path};

use memmap2::Mmap;
use orion_proto::Result;

use crate::unreadable;

/// A whole regular file.
#[derive(Debug)]
pub(crate) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a file of any length.
    ///
    /// # Errors
    /// NOT_FOUND or FAILED_PRECONDITION naming the file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        crate::file::check_regular(path)?;
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        // SAFETY: the mapping is private and only read. Cutting the file under it would end the process with SIGBUS:
        // model files are replaced by renaming, never written in place.
        let map = unsafe { Mmap::map(&file) };
        map.map(Self).map_err(|error| unreadable(path, &error))
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
