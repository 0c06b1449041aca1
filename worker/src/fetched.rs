//! Models that this worker fetches: what the scheduler is told of them, and what leaves the store without being asked.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use orion_net::{origin::shown, transfer::is_fetched};
use orion_proto::{
    Code, Error, Result,
    session::{HeldModel, PullModel, to_scheduler::Message},
};
use parking_lot::Mutex;

use crate::{artifacts::Local, worker::Worker};

/// What the scheduler was told.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// The paths that it believes to be here.
    told: Mutex<BTreeSet<String>>,
    /// Whether they are looked at now.
    looks: AtomicBool,
}

impl Fetched {
    fn tell(&self, worker: &Worker, path: &str, missing_bytes: Option<u64>) {
        let mut told = self.told.lock();
        match missing_bytes {
            Some(0) => _ = told.insert(path.to_owned()),
            _ => _ = told.remove(path),
        }
        drop(told);
        worker.tell(Message::Held(HeldModel { path: path.to_owned(), missing_bytes }));
    }

    /// Tells what is here no more: it was evicted, or removed by a person. The disk is read elsewhere, one look at a time.
    pub(crate) fn look(worker: &Arc<Worker>) {
        let fetched = worker.fetched();
        let Some(artifacts) = worker.options().artifacts.clone() else { return };
        if fetched.told.lock().is_empty() || fetched.looks.swap(true, Ordering::AcqRel) {
            return;
        }
        let worker = worker.clone();
        artifacts.runtime.clone().spawn_blocking(move || {
            let fetched = worker.fetched();
            let told: Vec<String> = fetched.told.lock().iter().cloned().collect();
            told.iter().filter(|path| artifacts.lacks(path)).for_each(|path| fetched.tell(&worker, path, None));
            fetched.looks.store(false, Ordering::Release);
        });
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
