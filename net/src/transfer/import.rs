//! Bringing a model's files from an origin into the store, or its chunks from a node that has done so.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use orion_proto::{Code, Error, ModelName, Result};
use tokio::sync::watch;

use super::{Progress, Wanted, node::Node};
use crate::{
    artifact::Artifact,
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
    /// Brings a model into the store, unless it is there; `told` hears how far it is.
    ///
    /// # Errors
    /// What the origin says; PERMISSION_DENIED where only signed artifacts are taken and no node has it signed.
    pub async fn import(&self, import: &Import, told: &watch::Sender<Progress>) -> Result<Artifact> {
        let artifact = self.import_listed(import, told).await?;
        self.0.store.came_from(&import.location.to_string(), &artifact.root)?;
        Ok(artifact)
    }

    async fn import_listed(&self, import: &Import, told: &watch::Sender<Progress>) -> Result<Artifact> {
        let listing = match self.0.origins.list(&import.location, &import.include).await {
            Err(error) if import.accepts_known && error.code == Code::Unavailable => {
                tracing::warn!(%error, "origin_unreachable");
                return self.known(import, told).ok_or(error);
            }
            listing => listing?,
        };
        let named = import.reference.as_ref();
        let name = named.map_or_else(|| listing.location.name(), |named| ModelName::new(&named.name))?;
        let version = named.and_then(|named| named.version.as_ref());
        // A version that is not told by the files may be of others, here as elsewhere.
        let is_told = version.is_none_or(|version| version.as_str() == listing.version.as_str());
        let version = version.map_or_else(|| Ok(listing.version.clone()), ModelName::new)?;
        let (here, key) = (self.is_here(&name, &version, told), told_key(&listing));
        if let Some(here) = here.filter(|here| is_told || self.0.store.of_origin(&key) == Some(here.root)) {
            self.0.trust.accepts(&here.root, here.signed.as_ref())?;
            return Ok(here);
        }
        let wanted = Wanted::Named(name.to_string(), Some(version.to_string()));
        if is_told
            && !import.peers.is_empty()
            && let Ok(artifact) = self.find(&wanted, &import.peers).await
        {
            match self.fetch_to_end(&artifact, &import.peers, told).await {
                Ok(()) => return Ok(artifact),
                // The origin has it too.
                Err(error) => tracing::warn!(%error, origin = %import.location, "peers_failed"),
            }
        }
        if self.0.trust.is_limited() {
            let text = format!("{} is signed by nobody, and only signed models are taken here", import.location);
            return Err(Error::new(Code::PermissionDenied, text));
        }
        let artifact = self.bring(&listing, name, version, told).await?;
        self.0.store.came_from(&key, &artifact.root)?;
        Ok(artifact)
    }

    /// What came from this origin before.
    fn known(&self, import: &Import, told: &watch::Sender<Progress>) -> Option<Artifact> {
        let root = self.0.store.of_origin(&import.location.to_string())?;
        let manifest = &self.0.store.get(&root).ok()?.artifact.manifest;
        let here = self.is_here(&manifest.name, &manifest.version, told)?;
        self.0.trust.accepts(&here.root, here.signed.as_ref()).is_ok().then_some(here)
    }

    fn is_here(&self, name: &ModelName, version: &ModelName, told: &watch::Sender<Progress>) -> Option<Artifact> {
        let store = &self.0.store;
        let stored = store.find(name.as_str(), Some(version.as_str())).and_then(|root| store.get(&root)).ok()?;
        let bytes = stored.artifact.manifest.bytes();
        told.send_replace(Progress { bytes, here: bytes, found: bytes, outcome: Some(Ok(())), ..Progress::default() });
        Some(stored.artifact.clone())
    }

    async fn fetch_to_end(&self, artifact: &Artifact, peers: &[String], told: &watch::Sender<Progress>) -> Result<()> {
        let mut progress = self.fetch(artifact.clone(), peers).await?;
        loop {
            let now = progress.borrow_and_update().clone();
            if let Some(outcome) = now.outcome.clone() {
                told.send_replace(now);
                return outcome;
            }
            told.send_replace(now);
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
            let here = self
                .0
                .store
                .of_origin(&key)
                .and_then(|root| self.is_here(&name, &version, told).filter(|here| here.root == root));
            if let Some(here) = here {
                return Ok(here);
            }
            let (store, key) = (self.0.store.clone(), key.clone());
            // With what is encoded it takes up to twice as much.
            let staged = tokio::task::spawn_blocking(move || store.stage(&key, bytes.saturating_mul(2))).await;
            match staged.unwrap_or_else(|_| Err(Error::new(Code::Internal, "the store failed unexpectedly")))? {
                Some(staging) => break staging,
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
        let artifact = self.take(staging, name, version).await?;
        told.send_replace(Progress { outcome: Some(Ok(())), ..progress(bytes, &counters) });
        Ok(artifact)
    }

    async fn take(&self, staging: Staging, name: ModelName, version: ModelName) -> Result<Artifact> {
        let store = self.0.store.clone();
        let published = tokio::task::spawn_blocking(move || {
            let files = staging.files();
            // Without a base all nodes that bring it here make the same of it.
            let publication =
                Publication { source: &files, name, version: Some(version), base: None, signer: None, is_own: true };
            let published = store.publish(&publication, &|_, _| {})?;
            staging.remove()?;
            Ok(published)
        });
        published.await.unwrap_or_else(|_| Err(Error::new(Code::Internal, "publishing failed unexpectedly")))
    }
}

/// What names the files as they are at their origin.
fn told_key(listing: &Listing) -> String {
    format!("{} {} {}", listing.location, listing.version, listing.bytes())
}

fn progress(bytes: u64, counters: &Downloaded) -> Progress {
    let (found, received) = (counters.found.load(Relaxed), counters.received.load(Relaxed));
    let here = found.saturating_add(received).min(bytes);
    Progress { bytes, here, found, received, peers: 1, ..Progress::default() }
}
