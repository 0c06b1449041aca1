//! What is too large for a row: kept under its BLAKE3 hash, once however many jobs and files need it.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use orion_proto::{Code, Error, Result};
use tempfile::{NamedTempFile, TempPath};

/// Of what is on its way in.
const STAGED: &str = ".staged-";

/// The BLAKE3 hash of a content.
pub type Address = [u8; 32];

/// The address in a record's or a row's bytes.
///
/// # Errors
/// INTERNAL where they are none.
pub fn address(bytes: &[u8]) -> Result<Address> {
    bytes.try_into().map_err(|_| Error::new(Code::Internal, "the journal is damaged: an address has 32 bytes"))
}

/// A content on its way in. What is dropped before it is finished leaves nothing.
pub trait Staging: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED or UNAVAILABLE where they cannot be kept.
    fn write(&mut self, piece: &[u8]) -> Result<()>;

    /// It is on disk as a whole, and is kept once it is appended.
    ///
    /// # Errors
    /// As of [`Staging::write`].
    fn finish(self: Box<Self>) -> Result<Staged>;
}

/// A whole content that nothing keeps yet.
#[derive(Clone, Debug)]
pub struct Staged {
    /// Its hash.
    pub address: Address,
    /// How many there are.
    pub bytes: u64,
    pub(super) place: Place,
}

/// Where a content is that nothing keeps yet.
#[derive(Clone, Debug)]
pub(super) enum Place {
    File(Arc<TempPath>),
    Rows([u8; 16]),
    /// Nowhere: of tests without a folder.
    #[cfg(test)]
    Nowhere,
}

/// Bytes of a content that is nowhere, all of which are the same.
#[cfg(test)]
pub(crate) const NOWHERE: usize = 100;

#[cfg(test)]
impl Staged {
    /// One of these bytes.
    pub(crate) fn nowhere(byte: u8) -> Self {
        let address = *blake3::hash(&[byte; NOWHERE]).as_bytes();
        Self { address, bytes: NOWHERE as u64, place: Place::Nowhere }
    }

    /// What one of this address has from there on.
    pub(super) fn read_nowhere(address: &Address, from: u64) -> Bytes {
        let byte = (0..=u8::MAX).find(|byte| Self::nowhere(*byte).address == *address).unwrap();
        vec![byte; NOWHERE.saturating_sub(from as usize)].into()
    }

    pub(super) fn is_nowhere(&self) -> bool {
        matches!(self.place, Place::Nowhere)
    }
}

/// Contents as files of a folder.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

struct Writing {
    file: NamedTempFile,
    hash: blake3::Hasher,
}

fn unkept(error: &io::Error) -> Error {
    let code = if error.kind() == io::ErrorKind::StorageFull { Code::ResourceExhausted } else { Code::Unavailable };
    // Clients see it, so it names no path.
    tracing::warn!(%error, "content_not_kept");
    Error::new(code, format!("it cannot be kept: {}", error.kind()))
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    fn file(&self, address: &Address) -> PathBuf {
        self.0.join(blake3::Hash::from_bytes(*address).to_hex().as_str())
    }

    pub(super) fn stage(&self) -> Result<Box<dyn Staging>> {
        let file = self.made().and_then(|()| tempfile::Builder::new().prefix(STAGED).tempfile_in(&self.0));
        Ok(Box::new(Writing { file: file.map_err(|error| unkept(&error))?, hash: blake3::Hasher::new() }))
    }

    /// Makes the folder, on disk.
    fn made(&self) -> io::Result<()> {
        if self.0.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.0)?;
        let parent = self.0.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Gives what was staged its name, on disk.
    pub(super) fn keep(&self, staged: &Staged) -> io::Result<()> {
        let Place::File(path) = &staged.place else {
            return Err(io::Error::other("it was staged elsewhere"));
        };
        let kept = self.file(&staged.address);
        if kept.exists() {
            return Ok(());
        }
        fs::rename(&**path, kept)?;
        File::open(&self.0)?.sync_all()
    }

    pub(super) fn remove(&self, address: &Address) {
        let path = self.file(address);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "content_not_removed");
        }
    }

    pub(super) fn read(&self, address: &Address, from: u64, most: usize) -> Result<Bytes> {
        let path = self.file(address);
        read(&path, from, most).map_err(|error| {
            tracing::error!(path = %path.display(), %error, "content_not_read");
            let name = blake3::Hash::from_bytes(*address);
            Error::new(Code::Internal, format!("content {name} cannot be read: {}", error.kind()))
        })
    }

    /// Removes what nothing keeps: what was on its way when the process ended.
    pub(super) fn sweep(&self, keeps: impl Fn(&Address) -> Result<bool>) -> Result<()> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| unkept(&error))?,
        };
        for entry in entries.filter_map(io::Result::ok) {
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let is_kept = match blake3::Hash::from_hex(name) {
                Ok(hash) => keeps(hash.as_bytes())?,
                // What is not ours stays.
                Err(_) => !name.starts_with(STAGED),
            };
            if !is_kept && let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "content_not_removed");
            }
        }
        Ok(())
    }
}

fn read(path: &Path, from: u64, most: usize) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let left = file.metadata()?.len().saturating_sub(from);
    let mut bytes = vec![0; most.min(usize::try_from(left).unwrap_or(usize::MAX))];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes.into())
}

impl Staging for Writing {
    fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.hash.update(piece);
        self.file.write_all(piece).map_err(|error| unkept(&error))
    }

    fn finish(self: Box<Self>) -> Result<Staged> {
        let (address, bytes) = (*self.hash.finalize().as_bytes(), self.hash.count());
        self.file.as_file().sync_all().map_err(|error| unkept(&error))?;
        Ok(Staged { address, bytes, place: Place::File(Arc::new(self.file.into_temp_path())) })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::journal::{Batch, Embedded, Forgotten, Journal};

    /// What each journal must do with contents.
    pub(in crate::journal) fn conforms(journal: &dyn Journal) {
        let bytes: Vec<u8> = (0..2_500_000u32).map(|at| (at / 7) as u8).collect();
        let stage = |bytes: &[u8]| {
            let mut staging = journal.stage().unwrap();
            bytes.chunks(300_001).for_each(|piece| staging.write(piece).unwrap());
            staging.finish().unwrap()
        };
        let append = |batch: Batch| journal.append(journal.end().unwrap(), &batch).unwrap();
        let keeps = |staged: Staged, keeper| Batch {
            keepers: vec![(staged.address, keeper)],
            staged: vec![staged],
            ..Batch::default()
        };
        let (first, empty) = (stage(&bytes), stage(b""));
        let (address, none) = (first.address, empty.address);
        assert_eq!((address, first.bytes), (*blake3::hash(&bytes).as_bytes(), bytes.len() as u64));
        assert!(journal.content(&address, 0, 1).is_err(), "nothing keeps it yet");
        append(keeps(first, 1));
        append(keeps(empty, 2));
        assert_eq!(journal.content(&none, 0, 10).unwrap(), "");
        for (from, most) in
            [(0, 10), (0, 3_000_000), (1_048_570, 12), (1_048_576, 1), (2_499_999, 5), (2_500_000, 5), (9_999_999, 5)]
        {
            let wanted = &bytes[from.min(bytes.len())..(from + most).min(bytes.len())];
            assert_eq!(journal.content(&address, from as u64, most).unwrap(), wanted, "{most} from {from}");
        }
        // The same again, twice in one append.
        let both = (stage(&bytes), stage(&bytes));
        append(Batch { keepers: vec![(address, 3)], staged: vec![both.0, both.1], ..Batch::default() });
        let forget = |job| {
            append(Batch {
                forgotten: vec![Forgotten { job, contents: vec![address], ..Forgotten::default() }],
                ..Batch::default()
            })
        };
        forget(1);
        assert_eq!(journal.content(&address, 7, 7).unwrap(), bytes[7..14]);
        forget(3);
        assert!(journal.content(&address, 0, 1).is_err(), "nothing needs it any more");
        assert_eq!(journal.keepers().unwrap().into_iter().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_folder_conforms() {
        let home = tempfile::tempdir().unwrap();
        let journal = Embedded::open(&home.path().join("jobs.redb")).unwrap();
        conforms(&journal);
        let kept = fs::read_dir(home.path().join("contents")).unwrap().count();
        assert_eq!(kept, 1, "but for the empty one all are gone");
    }

    #[test]
    fn what_is_kept_is_read_by_its_hash_and_the_rest_is_swept() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::new(home.path().join("contents"));
        let stage = |text: &[u8]| {
            let mut staging = folder.stage().unwrap();
            text.chunks(3).for_each(|piece| staging.write(piece).unwrap());
            staging.finish().unwrap()
        };
        let (first, second) = (stage(b"one two three"), stage(b"four"));
        assert_eq!((first.address, first.bytes), (*blake3::hash(b"one two three").as_bytes(), 13));
        folder.keep(&first).unwrap();
        folder.keep(&stage(b"one two three")).unwrap();
        folder.keep(&second).unwrap();
        drop(stage(b"nobody keeps it"));
        assert_eq!(folder.read(&first.address, 4, 5).unwrap(), "two t");
        assert_eq!(folder.read(&first.address, 8, 100).unwrap(), "three");
        assert_eq!(folder.read(&first.address, 13, 100).unwrap(), "");
        // As a process leaves it that was killed.
        fs::write(home.path().join("contents").join(".staged-x"), "half").unwrap();
        folder.sweep(|address| Ok(*address == first.address)).unwrap();
        assert!(folder.read(&second.address, 0, 10).is_err());
        assert_eq!(folder.read(&first.address, 0, 3).unwrap(), "one");
        drop((first, second));
        assert_eq!(fs::read_dir(home.path().join("contents")).unwrap().count(), 1);
    }
}
