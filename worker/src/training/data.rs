//! Where the data of a plan lies on this machine. Plans come from clients: they name what the machine's owner has put into the
//! folder for it, or what is in the nodes' stores, and lead nowhere else.

use std::{
    path::{Component, Path},
    sync::Arc,
};

use orion_net::store::Reference;
use orion_proto::{Code, Error, Result};

use crate::{artifacts::Local, fetched, worker::Worker};

/// The data that a plan names.
///
/// # Errors
/// INVALID_ARGUMENT for a path that leads elsewhere; NOT_FOUND where it is not here; as of a model that is fetched.
pub(super) fn local(worker: &Arc<Worker>, name: &str, peers: &[String]) -> Result<Local> {
    if Reference::is_path(name) {
        return fetched::local(worker, name, peers, &|_| {});
    }
    let folder = worker.options().datasets.as_deref();
    let folder = folder.ok_or_else(|| {
        let text = format!(
            "data '{name}' is not here: the worker was given no --datasets DIR, and it is no store:NAME@VERSION"
        );
        Error::new(Code::NotFound, text)
    })?;
    Ok(Local { path: inside(folder, name)?, pin: None })
}

fn inside(folder: &Path, name: &str) -> Result<std::path::PathBuf> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if name.contains("://") || !Path::new(name).components().all(plain) {
        let text = format!("data '{name}' must be a name in the workers' --datasets folder, or store:NAME@VERSION");
        return Err(Error::invalid(text));
    }
    let missing = |error: std::io::Error| {
        Error::new(Code::NotFound, format!("data '{name}' is not in the worker's --datasets folder: {error}"))
    };
    let (root, path) = (folder.canonicalize().map_err(missing)?, folder.join(name).canonicalize().map_err(missing)?);
    if !path.starts_with(&root) {
        return Err(Error::invalid(format!("data '{name}' leads out of the worker's --datasets folder")));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_but_into_the_folder() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        assert!(inside(root.path(), "a/b").is_ok());
        for (name, code) in [
            ("c", Code::NotFound),
            ("../x", Code::InvalidArgument),
            ("/etc", Code::InvalidArgument),
            ("a/../../x", Code::InvalidArgument),
            ("https://x/y", Code::InvalidArgument),
            ("link", Code::InvalidArgument),
        ] {
            assert_eq!(inside(root.path(), name).unwrap_err().code, code, "{name}");
        }
    }
}
