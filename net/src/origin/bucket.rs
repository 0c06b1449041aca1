//! Artifacts in a bucket or folder, where nodes fetch their chunks one by one.
//!
//! `artifacts/NAME/VERSION` is an encoded [`Artifact`], `latest/NAME` the one that came last, `packs/ROOT` all its chunks in the
//! order of its pieces, each in its shortest form that needs no other, `differences/ROOT` those to its base.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{GetOptions, GetRange, GetResult, ObjectStoreExt, buffered::BufWriter, path::Path};
use orion_proto::{Code, Error, Result};
use tokio::io::AsyncWriteExt;

use super::{Location, Origins, connect::Opened, error::failed};
use crate::{
    artifact::{Artifact, Form, MOST_MANIFEST_BYTES, Piece},
    codec::Coder,
    store::{Chunks, Stored},
};

/// Chunks that are read for one write.
const AT_ONCE: usize = 16;

/// A place of artifacts.
#[derive(Clone, Debug)]
pub struct Bucket {
    opened: Opened,
    location: Location,
}

impl Origins {
    /// Opens a place of artifacts.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where it is none.
    pub fn bucket(&self, location: &Location) -> Result<Bucket> {
        match location {
            Location::Url(url) => Ok(Bucket { opened: self.open(url)?, location: location.clone() }),
            Location::Hub { .. } => Err(Error::invalid(format!(
                "{location} holds a model's files and no artifacts: orion pull {location} takes them"
            ))),
        }
    }
}

impl Bucket {
    /// What was put under a name, or last under it.
    ///
    /// # Errors
    /// NOT_FOUND, or what the origin says; INVALID_ARGUMENT where it is no artifact.
    pub async fn find(&self, name: &str, version: Option<&str>) -> Result<Artifact> {
        let path = match version {
            Some(version) => self.path(&["artifacts", name, version]),
            None => self.path(&["latest", name]),
        };
        let what = format!("{}: model '{name}'", self.location);
        let at = |error: &object_store::Error| failed(&what, error);
        let answer = self.opened.contents.get(&path).await.map_err(|error| at(&error))?;
        let bytes = collect(answer, MOST_MANIFEST_BYTES).await.map_err(|error| at(&error))?;
        let artifact =
            Artifact::decode(&bytes).map_err(|error| Error::new(error.code, format!("{what}: {}", error.message)))?;
        let manifest = &artifact.manifest;
        let is_it =
            manifest.name.as_str() == name && version.is_none_or(|version| manifest.version.as_str() == version);
        match is_it {
            true => Ok(artifact),
            false => {
                let text = format!("{what} is another model there, {}@{}", manifest.name, manifest.version);
                Err(Error::new(Code::PermissionDenied, text))
            }
        }
    }

    /// Reads a chunk as it lies there; the form must be one of [`packed_form`] or the difference.
    pub(crate) async fn read(&self, stored: &Stored, starts: &[u64], index: usize, form: Form) -> Result<Bytes> {
        let root = stored.artifact.root.to_hex();
        let gone = || Error::new(Code::NotFound, format!("{}: chunk {index} is not there", self.location));
        let piece = stored.pieces.get(index).ok_or_else(gone)?;
        let (bytes, _) = piece.wire(form).ok_or_else(gone)?;
        let (pack, start) = match form {
            Form::Difference => ("differences", piece.difference_at),
            _ => ("packs", *starts.get(index).ok_or_else(gone)?),
        };
        let path = self.path(&[pack, root.as_str()]);
        let range = GetRange::Bounded(start..start.saturating_add(bytes.into()));
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let at = |error: &object_store::Error| failed(&format!("{}: {path}", self.location), error);
        let answer = self.opened.contents.get_opts(&path, options).await.map_err(|error| at(&error))?;
        collect(answer, bytes as usize).await.map_err(|error| at(&error))
    }

    /// Puts an artifact there, its name last of all. What is there already stays.
    ///
    /// # Errors
    /// What the origin says, INTERNAL where a chunk was damaged here.
    pub async fn put(&self, chunks: Chunks) -> Result<()> {
        let chunks = Arc::new(chunks);
        let stored = chunks.stored().clone();
        let root = stored.artifact.root.to_hex();
        let manifest = &stored.artifact.manifest;
        match self.find(manifest.name.as_str(), Some(manifest.version.as_str())).await {
            Ok(there) if there.root != stored.artifact.root => {
                let text = format!(
                    "{} has another {}@{}, versions stay as they are",
                    self.location, manifest.name, manifest.version
                );
                return Err(Error::new(Code::FailedPrecondition, text));
            }
            Ok(_) => {}
            Err(error) if error.code == Code::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut packs = vec![("packs", false)];
        if stored.pieces.iter().any(|piece| piece.wire(Form::Difference).is_some()) {
            packs.push(("differences", true));
        }
        for (folder, is_difference) in packs {
            let path = self.path(&[folder, root.as_str()]);
            let form = move |piece: &Piece| match is_difference {
                true => piece.wire(Form::Difference).map(|_| Form::Difference),
                false => Some(packed_form(piece)),
            };
            let sizes =
                stored.pieces.iter().filter_map(|piece| piece.wire(form(piece)?)).map(|(bytes, _)| u64::from(bytes));
            let bytes: u64 = sizes.sum();
            let there = self.opened.objects.head(&path).await.is_ok_and(|meta| meta.size == bytes);
            if !there {
                self.put_pack(&chunks, &path, form).await?;
            }
        }
        let encoded = Bytes::from(stored.artifact.encode());
        for path in [
            self.path(&["artifacts", manifest.name.as_str(), manifest.version.as_str()]),
            self.path(&["latest", manifest.name.as_str()]),
        ] {
            let put = self.opened.objects.put(&path, encoded.clone().into()).await;
            put.map_err(|error| failed(&format!("{}: {path}", self.location), &error))?;
        }
        Ok(())
    }

    /// Writes the chunks that have a form, one after the other; what could not be written to its end is taken back.
    async fn put_pack(
        &self,
        chunks: &Arc<Chunks>,
        path: &Path,
        form: impl Fn(&Piece) -> Option<Form> + Copy + Send + 'static,
    ) -> Result<()> {
        let at = |error: &object_store::Error| failed(&format!("{}: {path}", self.location), error);
        let mut writer = BufWriter::new(self.opened.objects.clone(), path.clone());
        let indices: Vec<usize> = (0..chunks.stored().pieces.len()).collect();
        for some in indices.chunks(AT_ONCE) {
            let written = async {
                let bytes = read(chunks.clone(), some.to_vec(), form).await?;
                writer.put(bytes.into()).await.map_err(|error| at(&error))
            };
            if let Err(error) = written.await {
                let _ = writer.abort().await;
                return Err(error);
            }
        }
        let ended = writer.shutdown().await;
        ended.map_err(|error| {
            Error::new(Code::Unavailable, format!("{}: {path}: {}", self.location, crate::root_cause(&error)))
        })
    }

    fn path(&self, parts: &[&str]) -> Path {
        let base = self.opened.path.parts();
        base.chain(parts.iter().map(|part| (*part).into())).collect()
    }
}

impl std::fmt::Display for Bucket {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.location.fmt(out)
    }
}

/// The form in which a pack has a chunk.
pub(crate) fn packed_form(piece: &Piece) -> Form {
    match piece.wire(Form::Encoded) {
        Some(_) => Form::Encoded,
        None => Form::Raw,
    }
}

/// Where each chunk begins in a pack.
pub(crate) fn starts(stored: &Stored) -> Vec<u64> {
    let lengths =
        stored.pieces.iter().map(|piece| piece.wire(packed_form(piece)).map_or(0, |(bytes, _)| u64::from(bytes)));
    lengths.scan(0u64, |at, bytes| Some(std::mem::replace(at, at.saturating_add(bytes)))).collect()
}

/// An answer's bytes, of which no more are taken than there may be.
async fn collect(answer: GetResult, most: usize) -> object_store::Result<Bytes> {
    let (mut stream, mut bytes) = (answer.into_stream(), Vec::new());
    while let Some(more) = stream.try_next().await? {
        bytes.extend_from_slice(&more);
        if bytes.len() > most {
            let text = format!("it has more than {most} bytes");
            return Err(object_store::Error::Generic { store: "bucket", source: text.into() });
        }
    }
    Ok(bytes.into())
}

async fn read(
    chunks: Arc<Chunks>,
    indices: Vec<usize>,
    form: impl Fn(&Piece) -> Option<Form> + Send + 'static,
) -> Result<Vec<u8>> {
    let read = tokio::task::spawn_blocking(move || {
        let (mut coder, mut all) = (Coder::default(), Vec::new());
        for index in indices {
            let Some(form) = chunks.stored().pieces.get(index).and_then(&form) else { continue };
            let bytes = chunks.read(index, form, &mut coder, Vec::new()).ok_or_else(|| {
                let name = &chunks.stored().artifact.manifest.name;
                Error::new(
                    Code::Internal,
                    format!("chunk {index} of model '{name}' was damaged here: orion cache verify"),
                )
            })?;
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    });
    read.await.unwrap_or_else(|_| Err(Error::new(Code::Internal, "reading chunks failed unexpectedly")))
}
