//! Manifests on the wire: every path, length, number and hash is checked here.

use std::collections::{HashMap, HashSet};

use blake3::Hash;
use orion_proto::{ModelName, artifact as wire};

use super::manifest::{Chunk, Difference, Encoded, File, MOST_CHUNK_BYTES, Manifest, Tensor};
use crate::codec::{Codec, Element};

const MOST_PATH_BYTES: usize = 1024;
/// Bytes of a file's or folder's name: no file system takes more.
const MOST_NAME_BYTES: usize = 255;
const MOST_FILES: usize = 100_000;

/// What was checked, or what is wrong with it.
type Checked<T> = std::result::Result<T, String>;

/// The message that holds a manifest.
pub(super) fn manifest_to_wire(manifest: &Manifest) -> wire::Manifest {
    wire::Manifest {
        name: manifest.name.to_string(),
        version: manifest.version.to_string(),
        files: manifest.files.iter().map(file_to_wire).collect(),
        chunk_bytes: manifest.chunk_bytes,
        base: manifest.base.map(|base| to_bytes(&base)).unwrap_or_default(),
    }
}

/// The manifest that a message holds.
pub(super) fn manifest_from_wire(read: wire::Manifest) -> Checked<Manifest> {
    let name = ModelName::new(read.name).map_err(|error| error.message)?;
    let version = ModelName::new(read.version).map_err(|error| format!("its version: {}", error.message))?;
    let chunk_bytes = read.chunk_bytes;
    if !(1..=MOST_CHUNK_BYTES).contains(&chunk_bytes) {
        return Err(format!("its chunks have up to {chunk_bytes} bytes, it must be 1 to {MOST_CHUNK_BYTES}"));
    }
    if read.files.len() > MOST_FILES {
        return Err(format!("it has {} files, at most {MOST_FILES} are taken", read.files.len()));
    }
    let base = if read.base.is_empty() { None } else { Some(hash(&read.base)?) };
    let mut files = Vec::with_capacity(read.files.len());
    for file in read.files {
        let path = file.path.clone();
        let file = file_from_wire(file, chunk_bytes, base.is_some());
        files.push(file.map_err(|reason| format!("file '{}': {reason}", shortened(&path)))?);
    }
    do_lengths_agree(&files)?;
    let paths_differ = do_paths_differ(&files);
    let total = files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.bytes()));
    match (paths_differ, total) {
        (Err(path), _) => Err(format!("file '{}' is there twice, or is a folder of another file", shortened(&path))),
        (_, None) => Err("its files are larger than can be counted".into()),
        (Ok(()), Some(_)) => Ok(Manifest { name, version, files, chunk_bytes, base }),
    }
}

/// No file may lie where another, or a folder of another, is.
fn do_paths_differ(files: &[File]) -> Checked<()> {
    let mut paths = HashSet::new();
    for file in files {
        if !paths.insert(file.path.as_str()) {
            return Err(file.path.clone());
        }
    }
    let folders = files.iter().flat_map(|file| file.path.match_indices('/').map(|(at, _)| &file.path[..at]));
    match folders.into_iter().find(|folder| paths.contains(folder)) {
        Some(folder) => Err(folder.to_owned()),
        None => Ok(()),
    }
}

/// A text from outside, as a message may hold it.
fn shortened(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// Chunks of one address are kept once, so they must be as long as each other.
fn do_lengths_agree(files: &[File]) -> Checked<()> {
    let mut lengths = HashMap::new();
    for chunk in files.iter().flat_map(|file| &file.chunks) {
        let first = *lengths.entry(chunk.address).or_insert(chunk.bytes);
        if first != chunk.bytes {
            return Err(format!("a chunk of {} bytes has the address of one of {first} bytes", chunk.bytes));
        }
    }
    Ok(())
}

/// A path leads nowhere but into the model's folder.
pub(crate) fn check_path(path: &str) -> Checked<()> {
    let part_is_fine = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= MOST_NAME_BYTES;
    let plain = path.len() <= MOST_PATH_BYTES && !path.contains(['\\', '\0']) && !path.chars().any(char::is_control);
    match plain && path.split('/').all(part_is_fine) {
        true => Ok(()),
        false => {
            Err(format!("its path must be relative, without '.', '..' and '\\', of {MOST_PATH_BYTES} bytes at most"))
        }
    }
}

fn file_to_wire(file: &File) -> wire::File {
    let tensors = file.tensors.iter().map(|tensor| wire::Tensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.clone(),
        shape: tensor.shape.clone(),
        start: tensor.start,
        bytes: tensor.bytes,
    });
    let chunks = file.chunks.iter().map(chunk_to_wire);
    wire::File { path: file.path.clone(), tensors: tensors.collect(), chunks: chunks.collect() }
}

fn file_from_wire(file: wire::File, chunk_bytes: u32, has_base: bool) -> Checked<File> {
    check_path(&file.path)?;
    let mut chunks = Vec::with_capacity(file.chunks.len());
    for (index, chunk) in file.chunks.iter().enumerate() {
        let chunk = chunk_from_wire(chunk, chunk_bytes, has_base);
        chunks.push(chunk.map_err(|reason| format!("chunk {index}: {reason}"))?);
    }
    let bytes = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum::<u64>();
    let mut tensors = Vec::with_capacity(file.tensors.len());
    for tensor in file.tensors {
        let wire::Tensor { name, datatype, shape, start, bytes: own } = tensor;
        if start.checked_add(own).is_none_or(|end| end > bytes) {
            return Err(format!("tensor '{}' ends after its {bytes} bytes", shortened(&name)));
        }
        tensors.push(Tensor { name, datatype, shape, start, bytes: own });
    }
    Ok(File { path: file.path, tensors, chunks })
}

fn chunk_to_wire(chunk: &Chunk) -> wire::Chunk {
    let encoded = |encoded: Encoded| wire::Encoded {
        codec: codec_to_wire(encoded.codec).into(),
        bytes: encoded.bytes,
        hash: to_bytes(&encoded.hash),
    };
    let difference = |difference: Difference| wire::Difference {
        base: to_bytes(&difference.base),
        bytes: difference.bytes,
        hash: to_bytes(&difference.hash),
    };
    wire::Chunk {
        bytes: chunk.bytes,
        address: to_bytes(&chunk.address),
        element: element_to_wire(chunk.element).into(),
        encoded: chunk.encoded.map(encoded),
        difference: chunk.difference.map(difference),
    }
}

fn chunk_from_wire(chunk: &wire::Chunk, chunk_bytes: u32, has_base: bool) -> Checked<Chunk> {
    if !(1..=chunk_bytes).contains(&chunk.bytes) {
        return Err(format!("it has {} bytes, it must be 1 to {chunk_bytes}", chunk.bytes));
    }
    let shorter = |bytes: u32| match (1..chunk.bytes).contains(&bytes) {
        true => Ok(bytes),
        false => Err(format!("encoded it has {bytes} bytes, it must have fewer than its {}", chunk.bytes)),
    };
    let encoded = match &chunk.encoded {
        None => None,
        Some(read) => {
            let codec = codec_from_wire(read.codec)?;
            Some(Encoded { codec, bytes: shorter(read.bytes)?, hash: hash(&read.hash)? })
        }
    };
    let difference = match &chunk.difference {
        None => None,
        Some(_) if !has_base => return Err("it has a difference, but there is no base version".into()),
        Some(read) => {
            Some(Difference { base: hash(&read.base)?, bytes: shorter(read.bytes)?, hash: hash(&read.hash)? })
        }
    };
    let element = element_from_wire(chunk.element)?;
    Ok(Chunk { bytes: chunk.bytes, address: hash(&chunk.address)?, element, encoded, difference })
}

/// The bytes of a hash.
fn to_bytes(hash: &Hash) -> prost::bytes::Bytes {
    prost::bytes::Bytes::copy_from_slice(hash.as_bytes())
}

fn hash(bytes: &[u8]) -> Checked<Hash> {
    Hash::from_slice(bytes).map_err(|_| format!("a hash has {} bytes, it must have 32", bytes.len()))
}

fn element_to_wire(element: Element) -> wire::Element {
    match element {
        Element::Bytes => wire::Element::Bytes,
        Element::Bf16 => wire::Element::Bf16,
        Element::F16 => wire::Element::F16,
        Element::F32 => wire::Element::F32,
    }
}

fn element_from_wire(element: i32) -> Checked<Element> {
    match wire::Element::try_from(element) {
        Ok(wire::Element::Bytes) => Ok(Element::Bytes),
        Ok(wire::Element::Bf16) => Ok(Element::Bf16),
        Ok(wire::Element::F16) => Ok(Element::F16),
        Ok(wire::Element::F32) => Ok(Element::F32),
        Err(_) => Err(format!("its element {element} is not known here, the publisher may be newer")),
    }
}

fn codec_to_wire(codec: Codec) -> wire::Codec {
    match codec {
        Codec::None => wire::Codec::None,
        Codec::Gzip => wire::Codec::Gzip,
        Codec::Deflate => wire::Codec::Deflate,
        Codec::Brotli => wire::Codec::Brotli,
        Codec::Lz4 => wire::Codec::Lz4,
        Codec::Zstd => wire::Codec::Zstd,
        Codec::Weights => wire::Codec::Weights,
    }
}

fn codec_from_wire(codec: i32) -> Checked<Codec> {
    let known = Codec::ALL.into_iter().find(|known| codec_to_wire(*known) as i32 == codec);
    known.ok_or_else(|| format!("its codec {codec} is not known here, the publisher may be newer"))
}
