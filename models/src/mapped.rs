//! A file in memory without a copy: the system reads a page when it is first touched.

use std::{fs::File, ops::Range, path::Path, sync::Arc};

use memmap2::{Advice, Mmap};
use orion_proto::Result;

use crate::{file, unreadable};

/// Progress of reading ahead is told about so often.
const STRIDE_BYTES: usize = 4 << 20;
/// The least page that any system has.
const PAGE_BYTES: usize = 4096;

/// A whole file.
#[derive(Clone, Debug)]
pub(crate) struct MappedFile(Arc<Mmap>);

impl MappedFile {
    /// Maps a regular file of any length.
    ///
    /// # Errors
    /// NOT_FOUND or FAILED_PRECONDITION naming the file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |error: std::io::Error| unreadable(path, &error);
        file::check_regular(path)?;
        let file = File::open(path).map_err(io)?;
        // SAFETY: the mapping is read only, and no value of a weight is out of bounds for anything. Cutting the file under
        // it would end the process with SIGBUS: model files are replaced by renaming, never written in place.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self(Arc::new(map)))
    }

    /// All of its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Touches every page, so that no later read waits for the disk. `progress` is told the bytes that are there.
    pub(crate) fn read_ahead(&self, progress: &dyn Fn(usize)) {
        // A hint: where it is refused, the pages come one by one.
        let _ = self.0.advise(Advice::WillNeed);
        for (number, stride) in self.0.chunks(STRIDE_BYTES).enumerate() {
            if !self.populate(number * STRIDE_BYTES, stride.len()) {
                let touched = stride.iter().step_by(PAGE_BYTES).fold(0u8, |sum, byte| sum ^ byte);
                std::hint::black_box(touched);
            }
            progress(number * STRIDE_BYTES + stride.len());
        }
    }
}

impl MappedFile {
    /// Has the system bring some pages at once; whether it can.
    #[cfg(target_os = "linux")]
    fn populate(&self, at: usize, length: usize) -> bool {
        self.0.advise_range(Advice::PopulateRead, at, length).is_ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn populate(&self, _: usize, _: usize) -> bool {
        false
    }
}

/// Touches every page of some files. `progress` is told the share that is done.
pub(crate) fn read_ahead(files: &[MappedFile], progress: &dyn Fn(f32)) {
    let total = files.iter().map(|file| file.bytes().len()).sum::<usize>().max(1) as f32;
    let mut done = 0;
    for file in files {
        file.read_ahead(&|bytes| progress((done + bytes) as f32 / total));
        done += file.bytes().len();
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// Some bytes of a mapped file, or of memory where they had to be changed.
#[derive(Clone, Debug)]
pub(crate) struct MappedBytes {
    file: MappedFile,
    range: Range<usize>,
}

impl MappedBytes {
    /// A range that lies inside the file; `None` where it does not.
    pub(crate) fn new(file: &MappedFile, range: Range<usize>) -> Option<Self> {
        file.bytes().get(range.clone()).map(|_| Self { file: file.clone(), range })
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // `new` has checked the range, and a mapping never shrinks.
        self.file.bytes().get(self.range.clone()).unwrap_or_default()
    }
}
