//! What files a model has at its origin.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};
use orion_proto::{Code, Error, ModelName, Result};
use url::Url;

use super::{Location, Origins, connect::Opened, error::failed, select::select};
use crate::artifact::check_path;

/// Files of one model, at most.
const MOST_FILES: usize = 10_000;

/// A model's files at their origin.
#[derive(Debug)]
pub struct Listing {
    /// Where.
    pub location: Location,
    /// Another one as soon as one of its files is another.
    pub version: ModelName,
    /// Its files.
    pub files: Vec<RemoteFile>,
    pub(super) contents: Arc<dyn ObjectStore>,
    /// The network that contents come from, whose tags may be others; none: the origin itself.
    pub(super) network: Option<String>,
}

/// A file at its origin.
#[derive(Clone, Debug)]
pub struct RemoteFile {
    /// Its path in the model.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    pub(super) object: Path,
    /// What its origin calls its contents, which it is asked to compare; none: it has no such thing.
    pub(super) tag: Option<String>,
    /// When it was changed, in seconds since 1970; 0: not known.
    pub(super) changed: i64,
    pub(super) digest: Digest,
}

/// What is known of a file's contents before they are here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Digest {
    /// Nothing.
    Unknown,
    /// Its SHA-256, hexadecimal.
    Sha256(String),
    /// Its SHA-1 as git takes it, hexadecimal.
    GitBlob(String),
}

impl Origins {
    /// What files a model has. Of a hub's repository those that can be loaded; with `include` those that match one of these
    /// patterns, such as `*Q4_K_M.gguf`.
    ///
    /// # Errors
    /// NOT_FOUND, PERMISSION_DENIED, UNAVAILABLE naming the origin; INVALID_ARGUMENT where it is not clear what to take.
    pub async fn list(&self, location: &Location, include: &[String]) -> Result<Listing> {
        let listing = match location {
            Location::Hub { repository, revision } => self.list_hub(location, repository, revision).await?,
            Location::Url(url) => self.list_url(location, url).await?,
        };
        let files = select(listing.files, include, matches!(location, Location::Hub { .. }))
            .map_err(|error| Error::new(error.code, format!("{location}: {}", error.message)))?;
        for file in &files {
            check_path(&file.path).map_err(|reason| {
                Error::invalid(format!("{location}: file '{}': {reason}", file.path.escape_debug()))
            })?;
        }
        // Other files of the same origin are another model.
        let version = if include.is_empty() { listing.version } else { chosen_version(&listing.version, &files)? };
        Ok(Listing { files, version, ..listing })
    }

    async fn list_url(&self, location: &Location, url: &Url) -> Result<Listing> {
        let Opened { objects, contents, path, network } = self.open(url)?;
        // Of a web server only files are known.
        let is_web = matches!(url.scheme(), "http" | "https");
        let is_folder = url.path().ends_with('/') || path.as_ref().is_empty();
        let found = match is_folder && !is_web {
            true => Err(None),
            false => head(&*objects, &path, is_web).await.map_err(Some),
        };
        let mut files = match found {
            Ok(meta) => vec![RemoteFile::new(path.filename().unwrap_or_default().to_owned(), meta)],
            Err(Some(error)) if is_web || !is_no_file(&error) => return Err(failed(location, &error)),
            Err(_) => under(&*objects, &path).await.map_err(|error| failed(location, &error))?,
        };
        // Consoles and tools make objects of no bytes for folders.
        let folders: Vec<String> =
            files.iter().filter_map(|file| Some(file.path.rsplit_once('/')?.0.to_owned())).collect();
        let is_folder =
            |path: &str| folders.iter().any(|folder| folder == path || folder.starts_with(&format!("{path}/")));
        files.retain(|file| file.bytes > 0 || !is_folder(&file.path));
        files.retain(|file| !file.path.split('/').any(|part| part.starts_with('.')));
        files.sort_by(|one, other| one.path.cmp(&other.path));
        if files.is_empty() {
            return Err(Error::new(Code::NotFound, format!("{location} has no files")));
        }
        Ok(Listing { location: location.clone(), version: version(&files)?, files, contents, network })
    }
}

/// What is known of a file. A URL that is good for reading alone, as those that are signed, is asked for its first byte.
async fn head(objects: &dyn ObjectStore, path: &Path, is_web: bool) -> object_store::Result<ObjectMeta> {
    let found = objects.head(path).await;
    if !is_web || found.is_ok() {
        return found;
    }
    let first = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
    match objects.get_opts(path, first).await {
        Ok(answer) => Ok(answer.meta),
        Err(object_store::Error::NotSupported { .. }) => objects.get(path).await.map(|answer| answer.meta),
        Err(error) => Err(error),
    }
}

/// Whether this says that there is no such file: there may be a folder. A folder of this machine is read as one with an error.
fn is_no_file(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. } | object_store::Error::Generic { .. })
}

async fn under(objects: &dyn ObjectStore, folder: &Path) -> object_store::Result<Vec<RemoteFile>> {
    let mut found = objects.list(Some(folder));
    let mut files = Vec::new();
    while let Some(meta) = found.try_next().await? {
        let inner = meta
            .location
            .prefix_match(folder)
            .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
        if let Some(path) = inner.filter(|path| !path.is_empty()) {
            files.push(RemoteFile::new(path, meta));
        }
        if files.len() > MOST_FILES {
            let text = format!("it has more than {MOST_FILES} files");
            return Err(object_store::Error::Generic { store: "origin", source: text.into() });
        }
    }
    Ok(files)
}

impl Listing {
    /// Whether other contents of any file would be noticed.
    pub fn is_told_apart(&self) -> bool {
        self.files.iter().all(RemoteFile::is_told_apart)
    }
}

impl RemoteFile {
    /// Whether other contents under the same name would be noticed; else it comes in one piece.
    pub(super) fn is_told_apart(&self) -> bool {
        self.tag.is_some() || self.changed != 0 || self.digest != Digest::Unknown
    }

    fn new(path: String, meta: ObjectMeta) -> Self {
        let changed = meta.last_modified.timestamp();
        let object = meta.location;
        Self { path, bytes: meta.size, object, tag: meta.e_tag, changed, digest: Digest::Unknown }
    }
}

/// The version of some files of those that have this one.
fn chosen_version(all: &ModelName, files: &[RemoteFile]) -> Result<ModelName> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(all.as_str().as_bytes());
    for file in files {
        hasher.update(&(file.path.len() as u64).to_le_bytes()).update(file.path.as_bytes());
    }
    ModelName::new(&hasher.finalize().to_hex()[..12])
}

/// The version of what an origin lists: the same files have the same, wherever they lie.
fn version(files: &[RemoteFile]) -> Result<ModelName> {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let tag = file.tag.clone().unwrap_or_else(|| file.changed.to_string());
        for text in [&file.path, &tag] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        hasher.update(&file.bytes.to_le_bytes());
    }
    ModelName::new(&hasher.finalize().to_hex()[..12])
}
