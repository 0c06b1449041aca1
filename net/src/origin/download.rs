//! Bringing a model's files from their origin: in parts, several at once, and on from where it was cut off.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use orion_proto::{Code, Error, Result};
use parking_lot::Mutex;
use rayon::prelude::*;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use super::{
    Listing, RemoteFile,
    error::failed,
    listing::Digest,
    parts::{Journal, PART_BYTES, Part, parts},
    sign::hex,
};

/// Parts that come at once.
const AT_ONCE: usize = 8;
/// What came of a part is written when it is so much.
const WRITE_BYTES: usize = 1 << 20;

/// A download's counters, in bytes.
#[derive(Debug, Default)]
pub struct Downloaded {
    /// What was here before.
    pub found: AtomicU64,
    /// What came.
    pub received: AtomicU64,
}

/// What writes a part once it is here.
struct Target {
    files: Vec<(File, PathBuf)>,
    /// What the origin said of each file.
    seen: Vec<Mutex<Seen>>,
    /// Whether one of them turned out another.
    changed: AtomicBool,
    journal: Mutex<Journal>,
}

/// What tells a file's contents from others: all answers must say the same.
#[derive(Debug, Default)]
struct Seen {
    tag: Option<String>,
    /// Seconds since 1970; 0: not known.
    changed: i64,
}

impl Seen {
    /// Whether an answer is of the same contents, as far as it says.
    fn accepts(&mut self, meta: &ObjectMeta, bytes: u64) -> bool {
        let changed = meta.last_modified.timestamp();
        let known = self.tag.get_or_insert_with(|| meta.e_tag.clone().unwrap_or_default());
        if self.changed == 0 {
            self.changed = changed;
        }
        // Of two servers behind one name clocks may differ; a tag says more.
        let is_same = match &meta.e_tag {
            // Some lists have them without the quotes of the header.
            Some(tag) if !known.is_empty() => tag.trim_matches('"') == known.trim_matches('"'),
            _ => changed == self.changed,
        };
        meta.size == bytes && is_same
    }
}

impl Listing {
    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
    }

    /// Brings all files into `folder/files`, and compares them with what the origin says of them. Parts that an earlier call
    /// brought there are not fetched again.
    ///
    /// # Errors
    /// What the origin or the disk says, naming the file; what is here stays, but for a file that is not what it should be.
    pub async fn download(&self, folder: &Path, counters: &Arc<Downloaded>) -> Result<()> {
        let parts = parts(self.files.iter().map(|file| (file.bytes, file.is_told_apart())));
        if self.network.is_some() {
            // Whether what it delivered before is the same as now is not known.
            let _ = fs::remove_file(folder.join("parts"));
        }
        let (target, done) = self.prepare(folder, parts.len())?;
        let here =
            parts.iter().zip(&done).filter(|(_, done)| **done).map(|(part, _)| part.range.end - part.range.start);
        counters.found.store(here.sum(), Relaxed);
        let missing = parts.iter().enumerate().filter(|(number, _)| !done[*number]);
        let fetched = missing.map(|(number, part)| self.fetch(number as u32, part, target.clone(), counters.clone()));
        let fetched: Vec<_> = fetched.collect();
        let fetched = stream::iter(fetched).buffer_unordered(AT_ONCE).try_collect::<()>().await;
        if target.changed.load(Relaxed) {
            let _ = fs::remove_file(folder.join("parts"));
        }
        fetched?;
        let compared = self.compare(&folder.join("files")).await;
        if compared.as_ref().is_err_and(|error| error.code == Code::InvalidArgument) {
            // None of its parts can be believed, nor can the origin say which are wrong.
            let _ = fs::remove_file(folder.join("parts"));
        }
        compared
    }

    /// Compares files in a folder with what the origin says of them.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the file that is another, others where the disk fails.
    pub async fn compare(&self, folder: &Path) -> Result<()> {
        let files: Vec<(RemoteFile, PathBuf)> =
            self.files.iter().map(|file| (file.clone(), folder.join(&file.path))).collect();
        let compared =
            tokio::task::spawn_blocking(move || files.par_iter().try_for_each(|(file, path)| compare(file, path)));
        let compared =
            compared.await.unwrap_or_else(|_| Err(Error::new(Code::Internal, "comparing files failed unexpectedly")));
        compared.map_err(|error| Error::new(error.code, format!("{}: {}", self.location, error.message)))
    }

    /// Opens the files, and tells which parts are here.
    fn prepare(&self, folder: &Path, count: usize) -> Result<(Arc<Target>, Vec<bool>)> {
        let at = |path: &Path, error: &io::Error| on_disk(path, error);
        let mut files = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let path = folder.join("files").join(&file.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|error| at(parent, &error))?;
            }
            if fs::metadata(&path).is_ok_and(|data| data.permissions().readonly()) {
                // The store took it before this process was killed: what is written here must not be written there.
                let _ = fs::remove_file(folder.join("parts"));
                fs::remove_file(&path).map_err(|error| at(&path, &error))?;
            }
            let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
            let open = open.and_then(|open| open.set_len(file.bytes).map(|()| open));
            files.push((open.map_err(|error| at(&path, &error))?, path));
        }
        let path = folder.join("parts");
        let (journal, known) = Journal::open(&path).map_err(|error| at(&path, &error))?;
        let mut done = vec![false; count];
        known.iter().filter_map(|number| usize::try_from(*number).ok()).for_each(|number| {
            if let Some(done) = done.get_mut(number) {
                *done = true;
            }
        });
        let seen = |file: &RemoteFile| match self.network.is_none() {
            true => Seen { tag: file.tag.clone(), changed: file.changed },
            false => Seen::default(),
        };
        let seen = self.files.iter().map(|file| Mutex::new(seen(file))).collect();
        Ok((Arc::new(Target { files, seen, changed: AtomicBool::new(false), journal: Mutex::new(journal) }), done))
    }

    async fn fetch(&self, number: u32, part: &Part, target: Arc<Target>, counters: Arc<Downloaded>) -> Result<()> {
        let file = &self.files[part.file];
        let from = self.network.as_ref().map(|network| format!(" through {network}")).unwrap_or_default();
        let what = || format!("{}{from}: file '{}'", self.location, file.path);
        let is_whole = part.range == (0..file.bytes);
        let range = (!is_whole).then(|| GetRange::Bounded(part.range.clone()));
        // A weak tag matches nothing (RFC 9110, 13.1.1), and a network may have tags of its own.
        let tag = file.tag.clone().filter(|tag| !tag.starts_with("W/") && self.network.is_none());
        let options = GetOptions { range, if_match: tag.clone(), ..GetOptions::default() };
        let answer = match self.contents.get_opts(&file.object, options).await {
            // All of it comes, and as much as is wanted is taken: that is slow, but it works.
            Err(object_store::Error::NotSupported { .. }) => {
                self.contents.get_opts(&file.object, GetOptions { if_match: tag, ..GetOptions::default() }).await
            }
            answer => answer,
        };
        let answer = answer.map_err(|error| {
            target.changed.fetch_or(matches!(error, object_store::Error::Precondition { .. }), Relaxed);
            failed(&what(), &error)
        })?;
        // What has a hash is compared when all of it is here.
        let is_hashed = file.digest != Digest::Unknown && answer.meta.size == file.bytes;
        if !is_hashed && !target.seen[part.file].lock().accepts(&answer.meta, file.bytes) {
            target.changed.store(true, Relaxed);
            let text = format!("{}: it was changed while it was downloaded; pulled again it begins anew", what());
            return Err(Error::new(Code::Unavailable, text));
        }
        let mut at = answer.range.start;
        let mut stream = answer.into_stream();
        let (mut written, mut buffer) = (part.range.start, Vec::with_capacity(WRITE_BYTES));
        while written + (buffer.len() as u64) < part.range.end {
            let Some(bytes) = stream.try_next().await.map_err(|error| failed(&what(), &error))? else { break };
            let wanted = part.range.start.saturating_sub(at).min(bytes.len() as u64) as usize;
            at += bytes.len() as u64;
            let room = (part.range.end - written) as usize - buffer.len();
            let taken = &bytes[wanted..][..room.min(bytes.len() - wanted)];
            buffer.extend_from_slice(taken);
            counters.received.fetch_add(taken.len() as u64, Relaxed);
            if buffer.len() >= WRITE_BYTES {
                let count = buffer.len() as u64;
                buffer = target.clone().write(part.file, written, buffer, None).await?;
                written += count;
            }
        }
        if written + (buffer.len() as u64) < part.range.end {
            return Err(Error::new(Code::Unavailable, format!("{}: it ended early", what())));
        }
        target.write(part.file, written, buffer, Some(number)).await.map(drop)
    }
}

impl Target {
    /// Writes bytes; with the last ones of a part, the part. Gives the buffer back, empty.
    async fn write(self: Arc<Self>, file: usize, at: u64, mut bytes: Vec<u8>, part: Option<u32>) -> Result<Vec<u8>> {
        let written = tokio::task::spawn_blocking(move || {
            let (open, path) = &self.files[file];
            let write = || {
                open.write_all_at(&bytes, at)?;
                if let Some(part) = part {
                    // A part that is said to be here is here after a power failure too.
                    open.sync_data()?;
                    self.journal.lock().add(part)?;
                }
                Ok(())
            };
            write().map_err(|error: io::Error| on_disk(path, &error))?;
            bytes.clear();
            Ok(bytes)
        });
        written.await.unwrap_or_else(|_| Err(Error::new(Code::Internal, "writing a file failed unexpectedly")))
    }
}

fn on_disk(path: &Path, error: &io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
        _ => Code::Internal,
    };
    Error::new(code, format!("'{}' could not be written: {error}", path.display()))
}

/// Whether a file is what its origin says of it.
fn compare(file: &RemoteFile, path: &Path) -> Result<()> {
    let (own, said) = match &file.digest {
        Digest::Unknown => return Ok(()),
        Digest::Sha256(said) => (hashed(path, Sha256::new()), said),
        Digest::GitBlob(said) => {
            let begun = Sha1::new().chain_update(format!("blob {}\0", file.bytes));
            (hashed(path, begun), said)
        }
    };
    let own = own.map_err(|error| on_disk(path, &error))?;
    match own == *said {
        true => Ok(()),
        false => {
            let text = format!("file '{}' is not what its origin says of it: its hash is {own}, not {said}", file.path);
            Err(Error::new(Code::InvalidArgument, text))
        }
    }
}

fn hashed<D: sha1::Digest>(path: &Path, mut hasher: D) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; PART_BYTES as usize];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}
