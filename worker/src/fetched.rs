//! Models that this worker fetches: what the scheduler is told of them, and what leaves the store without being asked.

use std::{collections::BTreeSet, sync::Arc};

use orion_net::{origin::shown, transfer::is_fetched};
use orion_proto::{
    Code, Error, Result,
    session::{HeldModel, PullModel, to_scheduler::Message},
};
use parking_lot::Mutex;

use crate::{artifacts::Local, worker::Worker};

/// The paths that the scheduler believes to be here.
#[derive(Debug, Default)]
pub(crate) struct Fetched(Mutex<BTreeSet<String>>);

impl Fetched {
    fn tell(&self, worker: &Worker, path: &str, missing_bytes: Option<u64>) {
        let mut told = self.0.lock();
        match missing_bytes {
            Some(0) => _ = told.insert(path.to_owned()),
            _ => _ = told.remove(path),
        }
        drop(told);
        worker.tell(Message::Held(HeldModel { path: path.to_owned(), missing_bytes }));
    }

    /// Tells what is here no more: it was evicted, or removed by a person.
    pub(crate) fn look(&self, worker: &Worker) {
        let Some(artifacts) = &worker.options().artifacts else { return };
        let told: Vec<String> = self.0.lock().iter().cloned().collect();
        for path in told.iter().filter(|path| !artifacts.has(path)) {
            self.tell(worker, path, None);
        }
    }
}

/// Says what is missing of a model here, or brings it and says it then.
pub(crate) fn pull(worker: &Arc<Worker>, request: PullModel) {
    if request.fetch {
        let owner = worker.clone();
        return crate::lane::aside("orion-fetch", move || {
            if let Err(error) = local(&owner, &request.path, &request.peers, &|_| {}) {
                tracing::warn!(path = shown(&request.path), %error, "model_not_prefetched");
            }
        });
    }
    tell_missing(worker, request.path, request.peers);
}

/// A model's files on this machine.
///
/// # Errors
/// FAILED_PRECONDITION without a store, else as [`Artifacts::local`].
pub(crate) fn local(worker: &Arc<Worker>, path: &str, peers: &[String], progress: &dyn Fn(f32)) -> Result<Local> {
    if !is_fetched(path) {
        return Ok(Local { path: path.into(), pin: None });
    }
    let Some(artifacts) = &worker.options().artifacts else {
        return Err(Error::new(
            Code::FailedPrecondition,
            format!("'{}' is to be fetched into a store, and this worker has none", shown(path)),
        ));
    };
    let local = artifacts.local(path, peers, progress);
    match local {
        Ok(_) => worker.fetched().tell(worker, path, Some(0)),
        Err(_) => tell_missing(worker, path.to_owned(), peers.to_vec()),
    }
    local
}

/// Finds out what is missing of a model, and tells it.
fn tell_missing(worker: &Arc<Worker>, path: String, peers: Vec<String>) {
    let Some(artifacts) = worker.options().artifacts.clone() else { return };
    let worker = worker.clone();
    artifacts.runtime.clone().spawn(async move {
        let missing = artifacts.missing(&path, &peers).await;
        worker.fetched().tell(&worker, &path, missing);
    });
}
