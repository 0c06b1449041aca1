//! Bringing a model's files from an origin into the store, or its chunks from a node that has done so.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use orion_proto::{Code, Error, ModelName, Result};
use tokio::sync::watch;

use super::{Progress, Wanted, node::Node};
use crate::{
    artifact::{Artifact, Hash},
    origin::{Downloaded, Listing, Location},
    store::{Publication, Reference, Staging},
};

/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);
/// Whether another process has finished is looked at so often.
const POLL: Duration = Duration::from_millis(200);

/// A model at an origin.
#[derive(Clone, Debug)]
pub struct Import {
    /// Where.
    pub location: Location,
    /// What it shall be called; without it, or without a version, as its origin has it.
    pub reference: Option<Reference>,
    /// Patterns of the files to take; none: those that make a model.
    pub include: Vec<String>,
    /// Nodes that may have it already.
    pub peers: Vec<String>,
    /// Whether what came from there before is good enough while the origin cannot be asked.
    pub accepts_known: bool,
}

impl Node {
    /// What a location last led to here.
    pub fn known_root(&self, location: &Location) -> Option<Hash> {
        self.0.store.of_origin(&origin_key(location, &[]))
    }

    /// Brings a model into the store, unless it is there; `told` hears how far it is.
    ///
    /// # Errors
    /// What the origin says; PERMISSION_DENIED where only signed artifacts are taken and no node has it signed.
    pub async fn import(&self, import: &Import, told: &watch::Sender<Progress>) -> Result<Artifact> {
        let artifact = self.import_listed(import, told).await?;
        self.0.store.came_from(&origin_key(&import.location, &import.include), &artifact.root)?;
        Ok(artifact)
    }

    async fn import_listed(&self, import: &Import, told: &watch::Sender<Progress>) -> Result<Artifact> {
        let listing = match self.0.origins.list(&import.location, &import.include).await {
            Err(error) if import.accepts_known && error.code == Code::Unavailable => {
                tracing::warn!(%error, "origin_unreachable");
                return self.known(import).map(|here| tell_here(here, told)).ok_or(error);
            }
            listing => listing?,
        };
        let named = import.reference.as_ref();
        let name = named.map_or_else(|| listing.location.name(), |named| ModelName::new(&named.name))?;
        let version = named.and_then(|named| named.version.as_ref());
        // A version that is not told by the files may be of others, here as elsewhere.
        let is_told =
            version.is_none_or(|version| version.as_str() == listing.version.as_str()) && listing.is_told_apart();
        let version = version.map_or_else(|| Ok(listing.version.clone()), ModelName::new)?;
        let (here, key) = (self.here(&name, &version), told_key(&listing));
        if let Some(here) = here.filter(|here| is_told || self.0.store.of_origin(&key) == Some(here.root)) {
            self.0.trust.accepts(&here.root, here.signed.as_ref())?;
            return Ok(tell_here(here, told));
        }
        let wanted = Wanted::Named(name.to_string(), Some(version.to_string()));
        if is_told
            && !import.peers.is_empty()
            && let Ok(artifact) = self.find(&wanted, &import.peers).await
        {
            match self.fetch_listed(&listing, &artifact, &import.peers, told).await {
                Ok(()) => return Ok(artifact),
                // The origin has it too.
                Err(error) => tracing::warn!(%error, origin = %import.location, "peers_failed"),
            }
        }
        if self.0.trust.is_limited() {
            let text = format!("{} is signed by nobody, and only signed models are taken here", import.location);
            return Err(Error::new(Code::PermissionDenied, text));
        }
        self.bring(&listing, name, version, told).await
    }

    /// What came from this origin before.
    fn known(&self, import: &Import) -> Option<Artifact> {
        let root = self.0.store.of_origin(&origin_key(&import.location, &import.include))?;
        let manifest = &self.0.store.get(&root).ok()?.artifact.manifest;
        let here = self.here(&manifest.name, &manifest.version)?;
        self.0.trust.accepts(&here.root, here.signed.as_ref()).is_ok().then_some(here)
    }

    fn here(&self, name: &ModelName, version: &ModelName) -> Option<Artifact> {
        let store = &self.0.store;
        let stored = store.find(name.as_str(), Some(version.as_str())).and_then(|root| store.get(&root)).ok()?;
        Some(stored.artifact.clone())
    }

    /// Fetches what a node calls this, and compares it with what the origin says.
    async fn fetch_listed(
        &self,
        listing: &Listing,
        artifact: &Artifact,
        peers: &[String],
        told: &watch::Sender<Progress>,
    ) -> Result<()> {
        let theirs = artifact.manifest.files.iter().map(|file| (file.path.as_str(), file.bytes()));
        let mut own: Vec<(&str, u64)> = listing.files.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
        own.sort_unstable();
        if !theirs.eq(own) {
            return Err(Error::new(Code::PermissionDenied, "what nodes have under this name has other files"));
        }
        let progress = self.fetch_to_end(artifact, peers, told).await?;
        if let Err(error) = listing.compare(&self.0.store.folder(&artifact.root)).await {
            self.0.store.remove(&artifact.root)?;
            return Err(error);
        }
        told.send_replace(progress);
        Ok(())
    }

    async fn fetch_to_end(
        &self,
        artifact: &Artifact,
        peers: &[String],
        told: &watch::Sender<Progress>,
    ) -> Result<Progress> {
        let mut progress = self.fetch(artifact.clone(), peers).await?;
        loop {
            let now = progress.borrow_and_update().clone();
            match now.outcome.clone() {
                // It may come from elsewhere yet.
                Some(Err(error)) => return Err(error),
                Some(Ok(())) => return Ok(now),
                None => _ = told.send_replace(now),
            }
            if progress.changed().await.is_err() {
                return Err(Error::new(Code::Internal, "the fetch ended unexpectedly"));
            }
        }
    }

    /// Downloads the files and publishes them; one process at a time, since others find it done.
    async fn bring(
        &self,
        listing: &Listing,
        name: ModelName,
        version: ModelName,
        told: &watch::Sender<Progress>,
    ) -> Result<Artifact> {
        let bytes = listing.bytes();
        // The same files under another name are the same download.
        let key = told_key(listing);
        let staging = loop {
            // Another process may have brought them meanwhile.
            let brought = self.0.store.of_origin(&key);
            if let Some(here) = self.here(&name, &version).filter(|here| brought == Some(here.root)) {
                return Ok(tell_here(here, told));
            }
            let (store, key) = (self.0.store.clone(), key.clone());
            // With what is encoded it takes up to twice as much.
            let staged = tokio::task::spawn_blocking(move || store.stage(&key, bytes.saturating_mul(2))).await;
            match staged.unwrap_or_else(|_| Err(Error::new(Code::Internal, "the store failed unexpectedly")))? {
                Some(staging) if self.0.store.of_origin(&told_key(listing)) == brought => break staging,
                // It was done between the look and the lock.
                Some(staging) => drop(staging),
                None => tokio::time::sleep(POLL).await,
            }
        };
        let counters = Arc::new(Downloaded::default());
        let download = listing.download(staging.folder(), &counters);
        let tell = async {
            loop {
                told.send_replace(progress(bytes, &counters));
                tokio::time::sleep(TELL).await;
            }
        };
        tokio::select! {
            downloaded = download => downloaded?,
            () = tell => {}
        }
        let artifact = self.take(staging, told_key(listing), name, version).await?;
        told.send_replace(Progress { outcome: Some(Ok(())), ..progress(bytes, &counters) });
        Ok(artifact)
    }

    async fn take(&self, staging: Staging, key: String, name: ModelName, version: ModelName) -> Result<Artifact> {
        let store = self.0.store.clone();
        let published = tokio::task::spawn_blocking(move || {
            let files = staging.files();
            // Without a base all nodes that bring it here make the same of it.
            let publication = Publication {
                source: &files,
                name,
                version: Some(version),
                base: None,
                codec: None,
                signer: None,
                is_own: true,
            };
            let published = store.publish(&publication, &|_, _| {})?;
            // Before others may begin with the same files.
            store.came_from(&key, &published.root)?;
            if let Err(error) = staging.remove() {
                tracing::warn!(%error, "staging_not_removed");
            }
            Ok(published)
        });
        published.await.unwrap_or_else(|_| Err(Error::new(Code::Internal, "publishing failed unexpectedly")))
    }
}

/// It is here: nothing is to be done.
fn tell_here(here: Artifact, told: &watch::Sender<Progress>) -> Artifact {
    let bytes = here.manifest.bytes();
    told.send_replace(Progress { bytes, here: bytes, found: bytes, outcome: Some(Ok(())), ..Progress::default() });
    here
}

/// What names all that an origin has, whatever it is.
fn origin_key(location: &Location, include: &[String]) -> String {
    format!("{} {}", location.key(), include.join(" "))
}

/// What names the files as they are at their origin.
fn told_key(listing: &Listing) -> String {
    format!("{} {} {}", listing.location.key(), listing.version, listing.bytes())
}

fn progress(bytes: u64, counters: &Downloaded) -> Progress {
    let (found, received) = (counters.found.load(Relaxed), counters.received.load(Relaxed));
    let here = found.saturating_add(received).min(bytes);
    Progress { bytes, here, found, received, peers: 1, ..Progress::default() }
}
