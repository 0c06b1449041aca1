//! The end of a training: what was learnt becomes a version of its model in this worker's store.

use orion_models::training::Learner;
use orion_net::store::{Publication, Reference};
use orion_proto::{Code, Error, ModelName, Result};

use crate::worker::Worker;

/// Publishes; the path under which the model is fetched. A version of it that is here is what the difference is made against.
pub(super) fn publish(worker: &Worker, learner: &Learner, version: &str) -> Result<String> {
    let artifacts = worker.options().artifacts.as_ref();
    let store = artifacts.ok_or_else(|| Error::new(Code::FailedPrecondition, "this worker has no store"))?.node.store();
    let failed = |error: std::io::Error| Error::new(Code::Internal, format!("the trained model: {error}"));
    let folder = tempfile::tempdir_in(&worker.options().data_dir).map_err(failed)?;
    learner.save(folder.path())?;
    // What it began with is nearer than a version before it.
    let began = learner.plan().base().filter(|base| Reference::is_path(base)).and_then(|base| {
        let Reference { name, version } = Reference::of_path(base).ok()?;
        store.find(&name, version.as_deref()).ok()
    });
    let (name, version) = (ModelName::new(&learner.plan().name)?, ModelName::new(version)?);
    let publication = Publication {
        source: folder.path(),
        base: began.or_else(|| store.find(name.as_str(), None).ok()),
        name: name.clone(),
        version: Some(version.clone()),
        codec: None,
        signer: None,
        is_own: false,
    };
    store.publish(&publication, &|_, _| {})?;
    Ok(format!("store:{name}@{version}"))
}
