//! Taking a model into the store: its chunks are cut, hashed and encoded once, here.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use blake3::Hash;
use memmap2::Mmap;
use orion_proto::{Code, Error, ModelName, Result};
use rayon::prelude::*;

use super::{Chunks, Store, Stored, commit::Whole, failed, incoming::file_path};
use crate::{
    artifact::{
        Artifact, Chunk, Cut, Difference, Encoded, File as ManifestFile, Manifest, Signer, Tensor, chunk_bytes, cut,
        tensors,
    },
    codec::{Codec, Coder, Element, choose},
};

/// Chunks that are encoded before the first of them is written.
const AT_ONCE: usize = 64;
/// What is encoded must save at least this share: decoding takes time too.
const LEAST_SAVING: f64 = 0.015;

/// What is to be published.
#[derive(Debug)]
pub struct Publication<'p> {
    /// A file, or a folder with all that is in it.
    pub source: &'p Path,
    /// The model's name.
    pub name: ModelName,
    /// Its version; none: told by its contents.
    pub version: Option<ModelName>,
    /// The root of the version that differences are made against.
    pub base: Option<Hash>,
    /// The codec of all chunks; none: chosen for each by its entropy.
    pub codec: Option<Codec>,
    /// Who signs it.
    pub signer: Option<&'p Signer>,
    /// Whether the files are nobody else's and on this file system: they are not copied.
    pub is_own: bool,
}

/// A chunk and what is sent in its place.
struct Made {
    chunk: Chunk,
    encoded: Vec<u8>,
    difference: Vec<u8>,
}

impl Store {
    /// Takes a model into the store. `progress` is told bytes that were read, of how many.
    ///
    /// # Errors
    /// INVALID_ARGUMENT or NOT_FOUND naming the file that cannot be taken, RESOURCE_EXHAUSTED where there is no room.
    pub fn publish(&self, publication: &Publication<'_>, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Artifact> {
        let sources = sources(publication.source)?;
        let total: u64 = sources.iter().map(|(_, path)| fs::metadata(path).map_or(0, |data| data.len())).sum();
        // With what is encoded it takes up to twice as much, of which its own files are there.
        self.make_room_for(if publication.is_own { total } else { total.saturating_mul(2) })?;
        let incoming = self.layout.all_incoming();
        let folder = tempfile::tempdir_in(&incoming).map_err(|error| failed("made", &incoming, &error))?;
        let folder = folder.path();
        fs::create_dir(folder.join("files")).map_err(|error| failed("made", folder, &error))?;
        let base = publication.base.map(|base| Base::open(self, &base)).transpose()?;
        let mut packs = Packs::create(folder)?;
        let (mut files, mut done, mut paths) =
            (Vec::with_capacity(sources.len()), 0, Vec::with_capacity(sources.len()));
        let most = chunk_bytes(total);
        for (index, (path, source)) in sources.iter().enumerate() {
            let copy = file_path(folder, index);
            let taken = publication.is_own && fs::hard_link(source, &copy).is_ok();
            if !taken {
                fs::copy(source, &copy).map_err(|error| failed("copied", source, &error))?;
            }
            let contents = map(&copy)?;
            let tensors = tensors(&contents);
            let cuts = cut(&contents, &tensors, most);
            let mut chunks = Vec::with_capacity(cuts.len());
            for cuts in cuts.chunks(AT_ONCE) {
                let made: Vec<Made> = cuts
                    .par_iter()
                    .map_init(Coder::default, |coder, cut| {
                        make(&contents, cut, &tensors, base.as_ref(), publication.codec, coder)
                    })
                    .collect::<Result<_>>()?;
                for made in made {
                    packs.write(&made)?;
                    chunks.push(made.chunk);
                }
                done += cuts.iter().map(|cut| cut.range.len() as u64).sum::<u64>();
                progress(done, total);
            }
            files.push(ManifestFile { path: path.clone(), tensors, chunks });
            paths.push(copy);
        }
        let version = publication.version.clone().map_or_else(|| version_of(&files), Ok)?;
        let name = publication.name.clone();
        if let Some(same) = self.same(&name, &version, &files) {
            return Ok(same);
        }
        let manifest = Manifest { name, version, files, chunk_bytes: most as u32, base: publication.base };
        let stored = Stored::new(Artifact::new(manifest, publication.signer));
        let artifact = stored.artifact.clone();
        // What others will be told must be what they accept.
        Manifest::decode(&artifact.manifest.encode())?;
        let (encoded, differences) = packs.finish()?;
        self.commit(
            &Arc::new(stored),
            Whole { files: paths, encoded: Some(encoded), differences: Some(differences), is_only: true },
        )?;
        Ok(artifact)
    }
}

impl Store {
    /// What is here under this name with the same files: published again it is the same.
    fn same(&self, name: &ModelName, version: &ModelName, files: &[ManifestFile]) -> Option<Artifact> {
        let known = self.get(&self.find(name.as_str(), Some(version.as_str())).ok()?).ok()?;
        let own = files.iter().map(|file| (&file.path, file.address()));
        let is_same = known.artifact.manifest.files.iter().map(|file| (&file.path, file.address())).eq(own);
        is_same.then(|| known.artifact.clone())
    }
}

/// The version of a model whose publisher named none: the same files have the same.
fn version_of(files: &[ManifestFile]) -> Result<ModelName> {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(&(file.path.len() as u64).to_le_bytes()).update(file.path.as_bytes());
        hasher.update(file.address().as_bytes());
    }
    ModelName::new(&hasher.finalize().to_hex()[..12])
}

/// Hashes a chunk, and encodes it in each form that saves enough.
fn make(
    file: &[u8],
    cut: &Cut,
    tensors: &[Tensor],
    base: Option<&Base>,
    codec: Option<Codec>,
    coder: &mut Coder,
) -> Result<Made> {
    let raw = &file[cut.range.clone()];
    let no_memory =
        |error: std::io::Error| Error::new(Code::Internal, format!("a chunk could not be encoded: {error}"));
    let mut encoded = Vec::new();
    let codec = codec.unwrap_or_else(|| choose(cut.element, raw));
    if codec != Codec::None {
        coder.encode(codec, cut.element, raw, &mut encoded).map_err(no_memory)?;
        if encoded.len() as f64 > raw.len() as f64 * (1.0 - LEAST_SAVING) {
            encoded.clear();
        }
    }
    let mut made = Made {
        chunk: Chunk {
            // A chunk has sixteen million bytes at most.
            bytes: raw.len() as u32,
            address: blake3::hash(raw),
            element: cut.element,
            encoded: None,
            difference: None,
        },
        encoded,
        difference: Vec::new(),
    };
    if !made.encoded.is_empty() {
        let (bytes, hash) = (made.encoded.len() as u32, blake3::hash(&made.encoded));
        made.chunk.encoded = Some(Encoded { codec, bytes, hash });
    }
    if let Some((address, base)) = base.and_then(|base| base.of(cut, tensors, &made.chunk.address)) {
        coder
            .encode_difference(cut.element, &base, raw, &mut made.difference)
            .map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        let full = made.chunk.encoded.map_or(raw.len(), |encoded| encoded.bytes as usize);
        if (made.difference.len() as f64) < full as f64 * (1.0 - LEAST_SAVING) {
            let (bytes, hash) = (made.difference.len() as u32, blake3::hash(&made.difference));
            made.chunk.difference = Some(Difference { base: address, bytes, hash });
        } else {
            made.difference.clear();
        }
    }
    Ok(made)
}

/// The version that differences are made against.
struct Base {
    chunks: Chunks,
    /// Where each tensor lies: of which file, from which byte, and what it is.
    tensors: HashMap<String, (usize, Tensor)>,
    /// The chunks by where they begin, of which file and byte.
    starts: HashMap<(usize, u64), usize>,
}

impl Base {
    fn open(store: &Store, root: &Hash) -> Result<Self> {
        let stored = store.get(root)?;
        let files = stored.artifact.manifest.files.iter().enumerate();
        let tensors = files
            .flat_map(|(index, file)| {
                file.tensors.iter().map(move |tensor| (tensor.name.clone(), (index, tensor.clone())))
            })
            .collect();
        let places = stored.pieces.iter().enumerate();
        let starts = places
            .flat_map(|(index, piece)| piece.places.iter().map(move |place| ((place.file, place.start), index)))
            .collect();
        Ok(Self { chunks: store.chunks(&stored)?, tensors, starts })
    }

    /// The chunk that lies where this one does in the tensor of the same name, shape and type: its address and bytes.
    /// Nothing where it is the same.
    fn of(&self, cut: &Cut, tensors: &[Tensor], own: &Hash) -> Option<(Hash, Vec<u8>)> {
        if cut.element == Element::Bytes {
            return None;
        }
        let start = cut.range.start as u64;
        let tensor = &tensors[tensors.partition_point(|tensor| tensor.start <= start).checked_sub(1)?];
        // An encoder that was saved alone has no prefix; with a head it has one, such as `bert.`.
        let bare = || self.tensors.get(tensor.name.split_once('.')?.1);
        let (file, base) = self.tensors.get(&tensor.name).or_else(bare)?;
        if (&base.datatype, &base.shape, base.bytes) != (&tensor.datatype, &tensor.shape, tensor.bytes) {
            return None;
        }
        let at = base.start.checked_add(start.checked_sub(tensor.start)?)?;
        let piece = self.chunks.stored().pieces.get(*self.starts.get(&(*file, at))?)?;
        let fits = piece.chunk.bytes as usize == cut.range.len() && piece.chunk.address != *own;
        fits.then(|| Some((piece.chunk.address, self.chunks.raw(piece)?))).flatten()
    }
}

/// The encoded chunks, each address once, in the order in which a manifest's pieces have them.
struct Packs {
    paths: [PathBuf; 2],
    encoded: BufWriter<File>,
    differences: BufWriter<File>,
    written: std::collections::HashSet<Hash>,
}

impl Packs {
    fn create(folder: &Path) -> Result<Self> {
        let paths = ["encoded", "differences"].map(|name| folder.join(name));
        let open = |path: &Path| File::create(path).map(BufWriter::new).map_err(|error| failed("made", path, &error));
        let (encoded, differences) = (open(&paths[0])?, open(&paths[1])?);
        Ok(Self { encoded, differences, paths, written: Default::default() })
    }

    fn write(&mut self, made: &Made) -> Result<()> {
        if !self.written.insert(made.chunk.address) {
            return Ok(());
        }
        let packs = [(&mut self.encoded, &made.encoded), (&mut self.differences, &made.difference)];
        for ((pack, bytes), path) in packs.into_iter().zip(&self.paths) {
            pack.write_all(bytes).map_err(|error| failed("written", path, &error))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(PathBuf, PathBuf)> {
        for (pack, path) in [&mut self.encoded, &mut self.differences].into_iter().zip(&self.paths) {
            pack.flush().map_err(|error| failed("written", path, &error))?;
        }
        let [encoded, differences] = self.paths;
        Ok((encoded, differences))
    }
}

/// The files of a model, by their paths in it. What begins with a dot is no part of it.
fn sources(source: &Path) -> Result<Vec<(String, PathBuf)>> {
    let data = fs::metadata(source).map_err(|error| failed("read", source, &error))?;
    let mut found = Vec::new();
    if data.is_dir() {
        walk(source, "", 0, &mut found)?;
    } else {
        found.push((name_of(source)?, source.to_owned()));
    }
    found.sort();
    match found.is_empty() {
        false => Ok(found),
        true => {
            Err(Error::invalid(format!("'{}' has no files, it must be a model's file or folder", source.display())))
        }
    }
}

/// A folder that links to itself would have no end.
const MOST_DEPTH: usize = 16;

fn walk(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<(String, PathBuf)>) -> Result<()> {
    if depth > MOST_DEPTH {
        return Err(Error::invalid(format!("'{}' is more than {MOST_DEPTH} folders deep", folder.display())));
    }
    let entries = fs::read_dir(folder).map_err(|error| failed("read", folder, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| failed("read", folder, &error))?.path();
        let name = name_of(&path)?;
        if name.starts_with('.') {
            continue;
        }
        // What a link leads to: a hub's cache is made of them.
        let data = fs::metadata(&path).map_err(|error| failed("read", &path, &error))?;
        let inner = format!("{prefix}{name}");
        match () {
            () if data.is_dir() => walk(&path, &format!("{inner}/"), depth + 1, found)?,
            () if data.is_file() => found.push((inner, path)),
            () => {}
        }
    }
    Ok(())
}

fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| Error::invalid(format!("'{}' has a name that is not UTF-8", path.display())))
}

/// A file's bytes; of an empty file none.
fn map(path: &Path) -> Result<MappedOrEmpty> {
    let open = || {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(MappedOrEmpty(None));
        }
        // SAFETY: it is this process's own copy, which nobody else changes.
        Ok(MappedOrEmpty(Some(unsafe { Mmap::map(&file)? })))
    };
    open().map_err(|error: std::io::Error| failed("read", path, &error))
}

struct MappedOrEmpty(Option<Mmap>);

impl std::ops::Deref for MappedOrEmpty {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
