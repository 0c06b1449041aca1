//! Models of this machine's store, fetched from other nodes where they are not there.

use std::{path::PathBuf, sync::mpsc};

use orion_net::{
    store::{Pin, Reference},
    transfer::{Node, Progress, Wanted},
};
use orion_proto::{Code, Error, Result};
use tokio::{runtime::Handle, sync::watch};

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
    /// The folder of a model of the store, fetched and checked; `progress` is told the share that is here.
    ///
    /// # Errors
    /// NOT_FOUND or UNAVAILABLE where nobody has it, others where it is not to be believed or the disk fails.
    pub(crate) fn local(&self, path: &str, peers: &[String], progress: &dyn Fn(f32)) -> Result<Local> {
        let Reference { name, version } = Reference::of_path(path)?;
        let store = self.node.store();
        let root = match store.find(&name, version.as_deref()) {
            // It may have been damaged: the fetch below checks it, and mends it from who has it.
            Ok(root) => Wanted::Root(root),
            Err(_) => Wanted::Named(name, version),
        };
        let mut addresses = peers.to_vec();
        addresses.extend(self.from.iter().filter(|address| !peers.contains(address)).cloned());
        let (told, heard) = mpsc::channel();
        let node = self.node.clone();
        self.runtime.spawn(async move {
            let fetched = fetch(&node, &root, &addresses, &told).await;
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
}

enum Told {
    Share(f32),
    Ended(Result<orion_net::artifact::Hash>),
}

async fn fetch(
    node: &Node,
    wanted: &Wanted,
    addresses: &[String],
    told: &mpsc::Sender<Told>,
) -> Result<orion_net::artifact::Hash> {
    let artifact = match wanted {
        Wanted::Root(root) => node.store().get(root)?.artifact.clone(),
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
