//! The parts in which files are downloaded, and which of them are here.

use std::{
    fs::File,
    io::{self, Read, Write},
    ops::Range,
    path::Path,
};

/// Bytes of a part.
pub(super) const PART_BYTES: u64 = 8 << 20;

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Which file.
    pub(super) file: usize,
    /// Which of its bytes.
    pub(super) range: Range<u64>,
}

/// Cuts files of these lengths, if they may be cut; an empty one has no part.
pub(super) fn parts(files: impl Iterator<Item = (u64, bool)>) -> Vec<Part> {
    let of = |(file, (bytes, is_cut)): (usize, (u64, bool))| {
        let most = if is_cut { PART_BYTES } else { bytes.max(1) };
        let starts = (0..bytes.div_ceil(most)).map(move |number| number * most);
        starts.map(move |start| Part { file, range: start..bytes.min(start.saturating_add(most)) })
    };
    files.enumerate().flat_map(of).collect()
}

/// The numbers of the parts that are on the disk, in a file to which each is added when it is.
#[derive(Debug)]
pub(super) struct Journal(File);

impl Journal {
    /// Opens it, and tells what it holds.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<u32>)> {
        let mut file = File::options().create(true).read(true).append(true).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // A number that was cut off is none; what follows must begin where numbers do.
        file.set_len((bytes.len() / 4 * 4) as u64)?;
        let numbers =
            bytes.chunks_exact(4).map(|number| u32::from_le_bytes([number[0], number[1], number[2], number[3]]));
        Ok((Self(file), numbers.collect()))
    }

    /// A part is on the disk.
    pub(super) fn add(&mut self, part: u32) -> io::Result<()> {
        self.0.write_all(&part.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_to_their_ends() {
        let cut = parts([0, 1, PART_BYTES, PART_BYTES + 1].map(|bytes| (bytes, true)).into_iter());
        let expected = [(1, 0..1), (2, 0..PART_BYTES), (3, 0..PART_BYTES), (3, PART_BYTES..PART_BYTES + 1)];
        let whole = parts([(0, false), (3 * PART_BYTES, false)].into_iter());
        assert_eq!(whole, [Part { file: 1, range: 0..3 * PART_BYTES }]);
        assert_eq!(cut, expected.map(|(file, range)| Part { file, range }));
    }

    #[test]
    fn a_number_that_was_cut_off_is_none() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&path, [7, 0, 0, 0, 9, 0]).unwrap();
        let (mut journal, known) = Journal::open(&path).unwrap();
        assert_eq!(known, [7]);
        journal.add(8).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, [7, 8]);
    }
}
