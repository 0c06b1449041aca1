//! An artifact on its way: which of its chunks are here lasts, so that a process that was killed goes on where it was.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use orion_proto::{Code, Error, Result};
use parking_lot::Mutex;
use rayon::prelude::*;

use super::{Chunks, Store, Stored, commit::Whole, failed, lock_file};
use crate::{
    artifact::{Artifact, Form, Piece},
    codec::{Coder, Corrupt},
    swarm::Bitmap,
};

/// Why a chunk was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Its bytes, as they travelled, have another hash than the manifest says.
    #[error("the bytes of chunk {0} are not what its manifest says")]
    Wire(usize),
    /// They have the right hash, but do not decode to the chunk: the publisher was wrong.
    #[error("chunk {0} does not decode to what its manifest says: {1}")]
    Decoded(usize, Corrupt),
    /// The chunk that a difference is against is not here.
    #[error("chunk {0} came as a difference to one that is not here")]
    NoBase(usize),
    /// The disk failed.
    #[error("{0}")]
    Disk(Error),
}

/// An artifact that is being fetched by this process, and by no other.
#[derive(Debug)]
pub struct Incoming {
    chunks: Chunks,
    base: Option<Chunks>,
    have: Mutex<Bitmap>,
    /// The same on the disk.
    bitmap: File,
    folder: PathBuf,
    /// Locked for as long as this lives.
    _lock: File,
}

impl Store {
    /// Begins to fetch an artifact, or goes on with what an earlier process left: each chunk that is said to be there is
    /// checked. What other artifacts have of it is taken from them. Nothing if another process is fetching it now.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where the quota or the disk has no room, others where the disk fails.
    pub fn begin(&self, artifact: Artifact) -> Result<Option<Incoming>> {
        let stored = Arc::new(Stored::new(artifact));
        let root = stored.artifact.root;
        let folder = self.layout.incoming(&root);
        fs::create_dir_all(folder.join("files")).map_err(|error| failed("made", &folder, &error))?;
        let path = folder.join("lock");
        let lock = lock_file(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(failed("locked", &path, &error)),
        }
        let begun = self.check_name(&stored.artifact).and_then(|()| self.make_room(&stored));
        let begun = begun.and_then(|()| self.begin_locked(stored, &folder, lock));
        if begun.is_err() && !has_chunks(&folder) {
            // What has no room takes none.
            let _ = fs::remove_dir_all(&folder);
        }
        begun.map(Some)
    }

    fn begin_locked(&self, stored: Arc<Stored>, folder: &Path, lock: File) -> Result<Incoming> {
        let manifest = &stored.artifact.manifest;
        let folder = folder.to_owned();
        super::commit::write_whole(&folder.join("artifact"), &stored.artifact.encode())?;
        let mut files = Vec::with_capacity(manifest.files.len());
        for (index, file) in manifest.files.iter().enumerate() {
            let path = file_path(&folder, index);
            if !path.exists() {
                // Another artifact may have the same file.
                let _ = fs::hard_link(self.layout.object(&file.address()), &path);
            }
            files.push(open_sized(&path, file.bytes())?);
        }
        let encoded =
            stored.pieces.iter().map(|piece| piece.wire(Form::Encoded).map_or(0, |(bytes, _)| bytes.into())).sum();
        let encoded = Some(open_sized(&folder.join("encoded"), encoded)?);
        let bitmap_path = folder.join("bitmap");
        let said = fs::read(&bitmap_path).ok().and_then(|bytes| Bitmap::from_bytes(stored.pieces.len(), &bytes).ok());
        let bitmap = open_sized(&bitmap_path, stored.pieces.len().div_ceil(8) as u64)?;
        let base = manifest.base.and_then(|base| self.chunks(&self.get(&base).ok()?).ok());
        let chunks = Chunks { files, encoded, differences: None, stored };
        let said = said.unwrap_or_else(|| Bitmap::new(chunks.stored.pieces.len()));
        let incoming = Incoming { have: Mutex::new(said), chunks, base, bitmap, folder, _lock: lock };
        incoming.check()?;
        self.reuse(&incoming)?;
        Ok(incoming)
    }

    /// Takes from other artifacts what they have of it.
    fn reuse(&self, incoming: &Incoming) -> Result<()> {
        let own = &incoming.chunks.stored;
        for entry in self.list().into_iter().filter(|entry| entry.stored.artifact.root != own.artifact.root) {
            let Ok(chunks) = self.chunks(&entry.stored) else { continue };
            let missing: Vec<usize> = incoming.have.lock().missing().collect();
            let shared = missing.into_par_iter().filter_map(|index| {
                let piece = own.pieces.get(index)?;
                let other = entry.stored.pieces.get(entry.stored.pieces.find(&piece.chunk.address)?)?;
                Some((index, piece, chunks.raw(other)?))
            });
            shared.try_for_each(|(index, piece, raw)| incoming.keep(index, piece, &raw, None))?;
        }
        Ok(())
    }
}

impl Incoming {
    /// The artifact.
    pub fn stored(&self) -> &Arc<Stored> {
        &self.chunks.stored
    }

    /// Which chunks are here.
    pub fn have(&self) -> Bitmap {
        self.have.lock().clone()
    }

    /// Its chunks, to be sent on.
    pub fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// Whether the chunk that a chunk's difference is against is here.
    pub fn has_base_of(&self, index: usize) -> bool {
        let difference = self.chunks.stored.pieces.get(index).and_then(|piece| piece.chunk.difference);
        difference.is_some_and(|difference| {
            self.base.as_ref().is_some_and(|base| base.stored.pieces.find(&difference.base).is_some())
        })
    }

    /// Takes a chunk as it travelled: checks it, decodes it, checks it again and keeps it. Done twice it does no harm.
    ///
    /// # Errors
    /// See [`Refused`]; nothing was kept.
    pub fn put(&self, index: usize, form: Form, bytes: &[u8], coder: &mut Coder) -> std::result::Result<(), Refused> {
        // It is kept from one chunk to the next.
        let mut raw = std::mem::take(&mut coder.room);
        let put = self.put_decoded(index, form, bytes, coder, &mut raw);
        coder.room = raw;
        put
    }

    fn put_decoded(
        &self,
        index: usize,
        form: Form,
        bytes: &[u8],
        coder: &mut Coder,
        raw: &mut Vec<u8>,
    ) -> std::result::Result<(), Refused> {
        let piece = self.chunks.stored.pieces.get(index).ok_or(Refused::Wire(index))?;
        let (length, hash) = piece.wire(form).ok_or(Refused::Wire(index))?;
        if bytes.len() != length as usize || blake3::hash(bytes) != hash {
            return Err(Refused::Wire(index));
        }
        raw.clear();
        raw.resize(if form == Form::Raw { 0 } else { piece.chunk.bytes as usize }, 0);
        match (form, piece.chunk.encoded, piece.chunk.difference) {
            (Form::Encoded, Some(encoded), _) => coder
                .decode(encoded.codec, piece.chunk.element, bytes, raw)
                .map_err(|error| Refused::Decoded(index, error))?,
            (Form::Difference, _, Some(difference)) => {
                let base = self
                    .base
                    .as_ref()
                    .and_then(|base| base.raw(base.stored.pieces.get(base.stored.pieces.find(&difference.base)?)?));
                let base = base.ok_or(Refused::NoBase(index))?;
                coder
                    .decode_difference(piece.chunk.element, &base, bytes, raw)
                    .map_err(|error| Refused::Decoded(index, error))?;
            }
            _ => {}
        }
        let raw = if form == Form::Raw { bytes } else { raw };
        if form != Form::Raw && blake3::hash(raw) != piece.chunk.address {
            return Err(Refused::Decoded(index, Corrupt::Address));
        }
        let encoded = (form == Form::Encoded).then_some(bytes);
        self.keep(index, piece, raw, encoded).map_err(Refused::Disk)
    }

    /// Writes a chunk whose address was checked.
    fn keep(&self, index: usize, piece: &Piece, raw: &[u8], encoded: Option<&[u8]>) -> Result<()> {
        let disk = |error| failed("written", &self.folder, &error);
        for place in &piece.places {
            if let Some(file) = self.chunks.files.get(place.file) {
                file.write_all_at(raw, place.start).map_err(disk)?;
            }
        }
        if let (Some(encoded), Some(pack)) = (encoded, &self.chunks.encoded) {
            pack.write_all_at(encoded, piece.encoded_at).map_err(disk)?;
        }
        let mut have = self.have.lock();
        if have.insert(index) {
            self.bitmap.write_all_at(&[have.byte(index / 8)], index as u64 / 8).map_err(disk)?;
        }
        Ok(())
    }

    /// Forgets what is said to be here and is not: a machine that lost its power may have kept the one and not the other.
    /// Finds what a file that another artifact has brings along.
    fn check(&self) -> Result<()> {
        let pieces = &self.chunks.stored.pieces;
        let linked: Vec<bool> = self.chunks.files.iter().map(is_linked).collect();
        let said = self.have();
        let is_worth_a_look = |index: &usize| {
            said.contains(*index)
                || pieces.get(*index).is_some_and(|piece| piece.places.iter().any(|place| linked[place.file]))
        };
        let found: Vec<(usize, bool)> = (0..pieces.len())
            .into_par_iter()
            .filter(is_worth_a_look)
            .filter_map(|index| pieces.get(index).map(|piece| (index, self.is_here(piece))))
            .collect();
        let mut have = self.have.lock();
        for (index, here) in found {
            if here {
                have.insert(index)
            } else {
                have.remove(index)
            };
        }
        let path = self.folder.join("bitmap");
        self.bitmap.write_all_at(&have.to_bytes(), 0).map_err(|error| failed("written", &path, &error))
    }

    /// Whether every place of a chunk has it.
    fn is_here(&self, piece: &Piece) -> bool {
        let mut raw = vec![0; piece.chunk.bytes as usize];
        piece.places.iter().all(|place| {
            let file = self.chunks.files.get(place.file);
            file.is_some_and(|file| file.read_exact_at(&mut raw, place.start).is_ok())
                && blake3::hash(&raw) == piece.chunk.address
        })
    }

    /// Makes it part of the store.
    ///
    /// # Errors
    /// FAILED_PRECONDITION where chunks are missing, others where the disk fails.
    pub fn finish(&self, store: &Store) -> Result<()> {
        let have = self.have();
        if !have.is_full() {
            let missing = have.len() - have.count();
            return Err(Error::new(
                Code::FailedPrecondition,
                format!("{missing} of {} chunks are missing", have.len()),
            ));
        }
        let count = self.chunks.files.len();
        let files = (0..count).map(|index| file_path(&self.folder, index)).collect();
        let encoded = Some(self.folder.join("encoded"));
        store.commit(&self.chunks.stored, Whole { files, encoded, differences: None, is_only: false })?;
        fs::remove_dir_all(&self.folder).map_err(|error| failed("removed", &self.folder, &error))
    }
}

/// Whether chunks are in what is on its way.
pub(super) fn has_chunks(folder: &Path) -> bool {
    fs::read(folder.join("bitmap")).is_ok_and(|bitmap| bitmap.iter().any(|byte| *byte != 0))
}

/// Whether a file is part of another artifact.
fn is_linked(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|data| data.nlink() > 1)
}

pub(super) fn file_path(folder: &Path, index: usize) -> PathBuf {
    folder.join("files").join(index.to_string())
}

/// A file of so many bytes, for which there is room on the disk.
fn open_sized(path: &Path, bytes: u64) -> Result<File> {
    let open = || {
        // A file that another artifact has too is written to where it was damaged.
        if path.exists() {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
        }
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        if file.metadata()?.len() != bytes {
            file.set_len(bytes)?;
        }
        allocate(&file, bytes)?;
        Ok(file)
    };
    open().map_err(|error| failed("made", path, &error))
}

/// Asks for the room now, where a full disk harms nobody yet. A file system that cannot is believed to have it.
fn allocate(file: &File, bytes: u64) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    if bytes == 0 {
        return Ok(());
    }
    let length = libc::off_t::try_from(bytes).map_err(std::io::Error::other)?;
    // SAFETY: the descriptor is open for as long as the file lives.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
        libc::ENOSPC => Err(std::io::Error::from_raw_os_error(libc::ENOSPC)),
        _ => Ok(()),
    }
}
