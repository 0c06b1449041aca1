//! A file of weights made into a folder that Orion serves.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use orion_proto::{Code, Error, Result};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::{
    Element, Format,
    llama2c::{Header, Vocabulary},
    source::Source,
    write,
};
use crate::{Precision, file::read_text, unservable};

const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";

/// What to convert, and to what.
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    /// The file: PyTorch's `.pt` or `.pth`, llama2.c's `.bin`, or safetensors; recognised by its content.
    pub source: PathBuf,
    /// The folder to write; made where it is not there.
    pub folder: PathBuf,
    /// What floats become; as they are where it is none.
    pub precision: Option<Precision>,
    /// The dict of a pickle that holds the weights, where it must be said.
    pub key: Option<String>,
    /// A `config.json` to copy into the folder.
    pub config: Option<PathBuf>,
    /// A tokenizer for the folder: a `tokenizer.json`, or llama2.c's `tokenizer.bin`.
    pub tokenizer: Option<PathBuf>,
    /// Whether files that are there are replaced.
    pub force: bool,
}

/// What was found and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// What the source was.
    pub format: Format,
    /// The key below which its tensors were, where it has several.
    pub key: Option<String>,
    /// Keys of the source that hold other tensors, which were left out.
    pub left_out: Vec<String>,
    /// Tensors written.
    pub tensors: usize,
    /// Bytes of the weights written.
    pub bytes: u64,
    /// The files written.
    pub files: Vec<PathBuf>,
}

/// Converts. A file of the folder is whole or not there; the weights come last. `progress` is told the share that is done.
///
/// # Errors
/// NOT_FOUND or FAILED_PRECONDITION naming a file that cannot be read or is already there, and what is wrong with it.
pub fn convert(conversion: &Conversion, progress: &dyn Fn(f32)) -> Result<Converted> {
    let Conversion { source: path, folder, .. } = conversion;
    let source = Source::open(path, conversion.key.as_deref())?;
    let texts = [(CONFIG, config(conversion, source.llama)?), (TOKENIZER, tokenizer(conversion, source.llama)?)];
    let texts: Vec<(&str, Vec<u8>)> = texts.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
    let names = texts.iter().map(|text| text.0).chain([WEIGHTS]);
    let files: Vec<PathBuf> = names.map(|name| folder.join(name)).collect();
    if let Some(there) = files.iter().find(|file| !conversion.force && file.exists()) {
        return Err(already_there(there));
    }
    std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    let mut written = Vec::with_capacity(files.len());
    for (_, text) in &texts {
        let mut file = beside(folder)?;
        file.write_all(text).map_err(|error| unwritable(folder, &error))?;
        written.push(file);
    }
    let mut weights = beside(folder)?;
    let float = conversion.precision.map(Element::from);
    let bytes = write::write(source.file.bytes(), &source.tensors.views, float, &mut weights, progress)
        .map_err(|error| Error::new(error.code, format!("{}: {error}", path.display())))?;
    written.push(weights);
    for (file, target) in written.into_iter().zip(&files) {
        put(file, target, conversion.force)?;
    }
    let tensors = source.tensors.views.len();
    let Source { format, tensors: found, .. } = source;
    Ok(Converted { format, key: found.key, left_out: found.left_out, tensors, bytes, files })
}

/// The folder's `config.json`, where it gets one.
fn config(conversion: &Conversion, llama: Option<Header>) -> Result<Option<Vec<u8>>> {
    match (&conversion.config, llama) {
        (Some(path), _) => object(path).map(Some),
        (None, Some(header)) => sorted(header.config(), serde_json::to_vec_pretty).map(Some),
        (None, None) => Ok(None),
    }
}

/// The folder's `tokenizer.json`, where it gets one.
fn tokenizer(conversion: &Conversion, llama: Option<Header>) -> Result<Option<Vec<u8>>> {
    let Some(path) = &conversion.tokenizer else { return Ok(None) };
    let text = read_text(path)?;
    if text.trim_ascii_start().starts_with(b"{") {
        return object(path).map(Some);
    }
    let refused = |error: Error| unservable(format!("{}: {error}", path.display()));
    let header = llama
        .ok_or_else(|| refused(Error::invalid("it is not a tokenizer.json, and the weights are not llama2.c's")))?;
    let json =
        Vocabulary::read(&text, header.vocabulary).and_then(|vocabulary| vocabulary.to_json()).map_err(refused)?;
    sorted(json, serde_json::to_vec).map(Some)
}

/// A file that must hold a JSON object, as it is.
fn object(path: &Path) -> Result<Vec<u8>> {
    let text = read_text(path)?;
    match serde_json::from_slice::<serde_json::Map<String, Value>>(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            let error = error.to_string().to_lowercase();
            Err(unservable(format!("{} is not a JSON object: {error}", path.display())))
        }
    }
}

/// The same bytes whatever order the library keeps its objects in.
fn sorted(mut json: Value, write: impl Fn(&Value) -> serde_json::Result<Vec<u8>>) -> Result<Vec<u8>> {
    json.sort_all_objects();
    let mut text = write(&json).map_err(|error| Error::new(Code::Internal, error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

/// A file in the folder that is gone again unless it is put in its place.
fn beside(folder: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".converting-");
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(mode);
    builder.tempfile_in(folder).map_err(|error| unwritable(folder, &error))
}

fn put(file: NamedTempFile, target: &Path, force: bool) -> Result<()> {
    file.as_file().sync_all().map_err(|error| unwritable(target, &error))?;
    let done = if force { file.persist(target) } else { file.persist_noclobber(target) };
    done.map(drop).map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => already_there(target),
        _ => unwritable(target, &error.error),
    })
}

fn already_there(file: &Path) -> Error {
    unservable(format!("{} is already there, --force replaces it", file.display()))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    unservable(format!("cannot write {}: {}", path.display(), error.to_string().to_lowercase()))
}
