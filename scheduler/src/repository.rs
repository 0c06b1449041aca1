//! Where models lie: those named one by one, and a folder of them. Names come from clients, paths never do.

use std::path::{Path, PathBuf};

use orion_net::transfer::{check_fetched, is_fetched};
use orion_proto::{Code, Error, ModelName, Result, step::Run};

/// Folders below a model's own that are looked through: a version, and what it keeps in folders.
const DEPTH: usize = 3;
/// Bytes of a model's path: it travels in a control message.
const PATH_BYTES: usize = 3 * 1024;

/// The models that this scheduler may serve.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    named: Vec<(ModelName, PathBuf)>,
    folder: Option<PathBuf>,
}

impl Repository {
    /// Models given one by one, and a folder whose entries are models.
    ///
    /// # Errors
    /// NOT_FOUND for a path that is not there; INVALID_ARGUMENT for one that is not text or a name given twice.
    pub fn open(named: Vec<(ModelName, PathBuf)>, folder: Option<PathBuf>) -> Result<Self> {
        let mut repository = Self::default();
        for (name, path) in named {
            if name.as_str() == "identity" {
                return Err(Error::invalid("model name 'identity' is built in, give the model another name"));
            }
            if repository.named.iter().any(|(other, _)| *other == name) {
                return Err(Error::invalid(format!("model '{name}' is given twice")));
            }
            let path = match path.to_str().filter(|path| is_fetched(path)) {
                Some(fetched) => check_fetched(fetched).map(|()| path)?,
                None if path.to_str().is_some_and(Run::is_path) => {
                    let here = std::env::current_dir().unwrap_or_default();
                    PathBuf::from(Run::of_path(&path.to_string_lossy())?.within(&here).path())
                }
                None => canonical(&path)?,
            };
            repository.named.push((name, path));
        }
        repository.folder = folder.map(|folder| canonical(&folder)).transpose()?;
        if let Some(folder) = repository.folder.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Error::invalid(format!("model repository {} is not a folder", folder.display())));
        }
        Ok(repository)
    }

    /// Names in the folder, sorted; of some a model cannot be served, which [`Self::path_of`] or its name says.
    pub fn names(&self) -> Vec<String> {
        let Some(entries) = self.folder.as_ref().and_then(|folder| std::fs::read_dir(folder).ok()) else {
            return Vec::new();
        };
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        let shown = |name: &String| !name.contains(char::is_control) && !name.starts_with('.') && name != "identity";
        let mut names: Vec<String> = entries.filter_map(name).filter(shown).collect();
        names.sort();
        names
    }

    /// What is served from the start: what was named, and all of the folder.
    pub(crate) fn served(&self) -> Vec<(ModelName, String)> {
        let named = self.named.iter().map(|(name, path)| (name.clone(), path.display().to_string()));
        let in_folder = self.names().into_iter().filter_map(|name| {
            let found = ModelName::new(&name).and_then(|name| self.path_of(&name).map(|path| (name, path)));
            found.inspect_err(|error| tracing::warn!(%name, %error, "model_left_out")).ok()
        });
        let mut served: Vec<_> = named.collect();
        for (name, path) in in_folder {
            if served.iter().all(|(other, _)| *other != name) {
                served.push((name, path));
            }
        }
        served
    }

    /// Where a model lies.
    ///
    /// # Errors
    /// NOT_FOUND when it is neither named nor in the folder; PERMISSION_DENIED when it leads out of the folder.
    pub fn path_of(&self, name: &ModelName) -> Result<String> {
        if let Some((_, path)) = self.named.iter().find(|(other, _)| other == name) {
            return Ok(path.display().to_string());
        }
        let missing = || {
            let folder = self.folder.as_ref().map_or("no --model-repository was given".to_owned(), |folder| {
                format!("it is not in the model repository {}", folder.display())
            });
            Error::new(Code::NotFound, format!("model '{name}' is unknown, {folder}"))
        };
        let folder = self.folder.as_ref().ok_or_else(missing)?;
        let path = canonical(&folder.join(name.as_str())).map_err(|_| missing())?;
        if leads_out(&path, folder, DEPTH) {
            let text = format!("model '{name}' leads out of the model repository, put its files inside");
            return Err(Error::new(Code::PermissionDenied, text));
        }
        Ok(path.display().to_string())
    }
}

/// Whether a path, or a link in the folder that it names, lies outside of `folder`: what lies there is not to be served.
fn leads_out(path: &Path, folder: &Path, depth: usize) -> bool {
    let Ok(real) = std::fs::canonicalize(path) else { return true };
    if !real.starts_with(folder) {
        return true;
    }
    let entries = if depth > 0 { std::fs::read_dir(&real).ok() } else { None };
    entries.is_some_and(|mut entries| entries.any(|entry| entry.is_ok_and(|e| leads_out(&e.path(), folder, depth - 1))))
}

fn canonical(path: &Path) -> Result<PathBuf> {
    let path = std::fs::canonicalize(path)
        .map_err(|error| Error::new(Code::NotFound, format!("model path {}: {error}", path.display())))?;
    if path.as_os_str().len() > PATH_BYTES {
        return Err(Error::invalid(format!("model path {} is longer than {PATH_BYTES} bytes", path.display())));
    }
    if path.to_str().is_none() {
        return Err(Error::invalid(format!("model path {} is not UTF-8, rename it", path.display())));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_but_into_the_folder() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(root.path().join("good")).unwrap();
        std::fs::create_dir(root.path().join(".hidden")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        let repository = Repository::open(vec![], Some(root.path().to_owned())).unwrap();
        std::fs::create_dir(root.path().join("file-link")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.path().join("file-link/config.json")).unwrap();
        std::fs::create_dir(root.path().join("a^b")).unwrap();
        assert_eq!(repository.names(), ["a^b", "file-link", "good", "link"]);
        assert_eq!(repository.served().len(), 1);
        let path = |name: &str| repository.path_of(&ModelName::new(name).unwrap());
        assert!(path("good").is_ok());
        assert!(path("link").is_err_and(|e| e.code == Code::PermissionDenied));
        assert!(path("file-link").is_err_and(|e| e.code == Code::PermissionDenied));
        assert!(path("missing").is_err_and(|e| e.code == Code::NotFound));
        assert_eq!(repository.served().len(), 1);
    }

    #[test]
    fn what_is_named_must_be_there_and_once() {
        let root = tempfile::tempdir().unwrap();
        let model = |name: &str, path: &Path| (ModelName::new(name).unwrap(), path.to_owned());
        let twice = vec![model("m", root.path()), model("m", root.path())];
        assert!(Repository::open(twice, None).is_err_and(|e| e.message.contains("twice")));
        let stored = |path: &str| Repository::open(vec![model("m", Path::new(path))], None);
        assert!(stored("store:m@1").is_ok_and(|repository| repository.served()[0].1 == "store:m@1"));
        assert!(stored("store:m").is_err_and(|e| e.message.contains("store:NAME@VERSION")));
        let missing = vec![model("m", &root.path().join("nowhere"))];
        assert!(Repository::open(missing, None).is_err_and(|e| e.code == Code::NotFound));
    }
}
