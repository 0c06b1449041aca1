//! Models of this machine's store, fetched from other nodes where they are not there.

use std::{path::PathBuf, sync::mpsc, time::Duration};

use orion_net::{
    origin::Location,
    store::{Pin, Reference},
    transfer::{Import, Node, Progress, Seen, Wanted},
};
use orion_proto::{Code, Error, Result, session::PeerLink};
use tokio::{runtime::Handle, sync::watch};

/// Other nodes are asked for so long how large a model is.
const LOOK: Duration = Duration::from_secs(8);

/// This machine's store among those of other nodes.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// The node that fetches and serves.
    pub node: Node,
    /// Where its connections run.
    pub runtime: Handle,
    /// Nodes that have models, tried beside those that the scheduler names.
    pub from: Vec<String>,
}

/// A model's files on this machine.
pub(crate) struct Local {
    pub(crate) path: PathBuf,
    /// Keeps them there; none where they are not of the store.
    pub(crate) pin: Option<Pin>,
}

impl Artifacts {
    /// The folder of a model of the store or of an origin, fetched and checked; `progress` is told the share that is here.
    ///
    /// # Errors
    /// NOT_FOUND or UNAVAILABLE where nobody has it, others where it is not to be believed or the disk fails.
    pub(crate) fn local(&self, path: &str, peers: &[String], progress: &dyn Fn(f32)) -> Result<Local> {
        let addresses = self.addresses(peers);
        let source = self.source(path, addresses.clone())?;
        let store = self.node.store();
        let (told, heard) = mpsc::channel();
        let node = self.node.clone();
        self.runtime.spawn(async move {
            let fetched = match source {
                Source::Stored(wanted) => fetch(&node, &wanted, &addresses, &told).await,
                Source::Origin(import) => bring(&node, &import, &told).await,
            };
            // Nobody waits any more where the load was given up.
            let _ = told.send(Told::Ended(fetched));
        });
        let root = loop {
            match heard.recv() {
                Ok(Told::Share(share)) => progress(share),
                Ok(Told::Ended(fetched)) => break fetched?,
                Err(_) => return Err(Error::new(Code::Internal, "fetching the model failed unexpectedly")),
            }
        };
        let pin = Some(store.pin(&root)?);
        Ok(Local { path: store.folder(&root), pin })
    }

    /// Serves somebody who cannot reach this machine, through the scheduler.
    pub(crate) fn serve_relayed(&self, ticket: String) {
        let node = self.node.clone();
        self.runtime.spawn(async move {
            if let Err(error) = node.serve_relayed(&ticket).await {
                tracing::warn!(%error, "relayed_connection_failed");
            }
        });
    }

    /// What was seen of the links to other nodes.
    pub(crate) fn links(&self) -> Vec<PeerLink> {
        let link = |(address, seen): (String, Seen)| PeerLink {
            address,
            round_trip_seconds: seen.round_trip_seconds,
            jitter_seconds: seen.jitter_seconds,
            bytes_per_second: seen.bytes_per_second,
            loss: seen.loss,
        };
        self.node.links().into_iter().map(link).collect()
    }

    /// Whether all of a model is in this machine's store.
    pub(crate) fn has(&self, path: &str) -> bool {
        if Location::is_url(path) {
            return Location::parse(path).is_ok_and(|location| self.node.known_root(&location).is_some());
        }
        let reference = Reference::of_path(path);
        reference.is_ok_and(|Reference { name, version }| self.node.store().find(&name, version.as_deref()).is_ok())
    }

    /// Whether a model is not in this machine's store; where that cannot be read nothing is known.
    pub(crate) fn lacks(&self, path: &str) -> bool {
        if Location::is_url(path) {
            return !self.has(path);
        }
        Reference::of_path(path).is_ok_and(|Reference { name, version }| {
            let found = self.node.store().find(&name, version.as_deref());
            found.is_err_and(|error| error.code == Code::NotFound)
        })
    }

    /// Bytes that this machine lacks of a model, which is looked up at these nodes where it is not known here; none: all, how
    /// many that is nobody told.
    pub(crate) async fn missing(&self, path: &str, peers: &[String]) -> Option<u64> {
        let (artifacts, own_path) = (self.clone(), path.to_owned());
        if self.runtime.spawn_blocking(move || artifacts.has(&own_path)).await.ok()? {
            return Some(0);
        }
        let Reference { name, version } = Reference::of_path(path).ok()?;
        let (wanted, addresses) = (Wanted::Named(name, version), self.addresses(peers));
        let artifact = tokio::time::timeout(LOOK, self.node.find(&wanted, &addresses)).await.ok()?.ok()?;
        let store = self.node.store().clone();
        self.runtime.spawn_blocking(move || store.missing_bytes(artifact)).await.ok()
    }

    /// Those that the scheduler names, then those that the user named.
    fn addresses(&self, peers: &[String]) -> Vec<String> {
        let others = self.from.iter().filter(|address| !peers.contains(address));
        peers.iter().chain(others).cloned().collect()
    }

    fn source(&self, path: &str, peers: Vec<String>) -> Result<Source> {
        if Location::is_url(path) {
            let location = Location::parse(path)?;
            return Ok(Source::Origin(Import {
                location,
                reference: None,
                include: Vec::new(),
                peers,
                // A hub that is down must not keep a worker from what it has.
                accepts_known: true,
            }));
        }
        let Reference { name, version } = Reference::of_path(path)?;
        Ok(Source::Stored(match self.node.store().find(&name, version.as_deref()) {
            // It may have been damaged: the fetch checks it, and mends it from who has it.
            Ok(root) => Wanted::Root(root),
            Err(_) => Wanted::Named(name, version),
        }))
    }
}

/// Where a model is.
enum Source {
    Stored(Wanted),
    Origin(Import),
}

enum Told {
    Share(f32),
    Ended(Result<orion_net::artifact::Hash>),
}

/// Brings a model from its origin, or from nodes that have done so; then what is here is checked.
async fn bring(node: &Node, import: &Import, told: &mpsc::Sender<Told>) -> Result<orion_net::artifact::Hash> {
    let (said, mut heard) = watch::channel(Progress::default());
    let imported = async move { node.import(import, &said).await };
    let listen = async {
        while heard.changed().await.is_ok() {
            let now = heard.borrow_and_update().clone();
            let _ = told.send(Told::Share(now.here as f32 / now.bytes.max(1) as f32));
        }
    };
    let (imported, ()) = futures::join!(imported, listen);
    let root = imported?.root;
    fetch(node, &Wanted::Root(root), &import.peers, told).await
}

async fn fetch(
    node: &Node,
    wanted: &Wanted,
    addresses: &[String],
    told: &mpsc::Sender<Told>,
) -> Result<orion_net::artifact::Hash> {
    let artifact = match wanted {
        Wanted::Root(root) => node.store().get(root)?.artifact.clone(),
        Wanted::Named(name, _) if addresses.is_empty() => {
            let text = format!("no other worker that has '{name}' can be reached; nodes that have it: --from ADDR");
            return Err(Error::new(Code::Unavailable, text));
        }
        Wanted::Named(..) => node.find(wanted, addresses).await?,
    };
    let root = artifact.root;
    let mut progress: watch::Receiver<Progress> = node.fetch(artifact, addresses).await?;
    loop {
        let now = progress.borrow_and_update().clone();
        let _ = told.send(Told::Share(now.here as f32 / now.bytes.max(1) as f32));
        if let Some(outcome) = now.outcome {
            return outcome.map(|()| root);
        }
        if progress.changed().await.is_err() {
            return Err(Error::new(Code::Internal, "the fetch ended unexpectedly"));
        }
    }
}
