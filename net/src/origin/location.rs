//! How a person or a configuration names a place of models.

use std::{fmt, path::Path};

use orion_proto::{Error, ModelName, Result};
use url::Url;

/// A place that has a model, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A repository of a hub: `hf://ORGANISATION/NAME[@REVISION]`.
    Hub {
        /// `ORGANISATION/NAME`.
        repository: String,
        /// A branch, tag or commit.
        revision: String,
    },
    /// A folder or object of a bucket, a file of a web server, a folder or file of this machine.
    Url(Url),
}

const FORMS: &str = "a path, file:///PATH, hf://ORGANISATION/NAME[@REVISION], s3://BUCKET/PATH, gs://BUCKET/PATH, \
                     az://CONTAINER/PATH or https://HOST/PATH";

impl Location {
    /// Whether this is meant for a location, and for no model's name or node's address.
    pub fn is_one(text: &str) -> bool {
        text.contains('/') || text == "." || text == ".."
    }

    /// Whether this is one on other machines too, and no path.
    pub fn is_url(text: &str) -> bool {
        text.contains("://")
    }

    /// Reads one.
    ///
    /// # Errors
    /// INVALID_ARGUMENT saying what it must be.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("'{}' must be {FORMS}", shown(text).escape_debug()));
        if let Some(named) = text.strip_prefix("hf://") {
            return Self::hub(named).ok_or_else(wrong);
        }
        if !Self::is_url(text) {
            let path = std::path::absolute(Path::new(text)).map_err(|_| wrong())?;
            return Url::from_file_path(path).map(Self::Url).map_err(|()| wrong());
        }
        let url = Url::parse(text).map_err(|_| wrong())?;
        let is_known = match url.scheme() {
            "s3" | "gs" | "az" | "http" | "https" => url.host_str().is_some_and(|host| !host.is_empty()),
            "file" => url.to_file_path().is_ok(),
            _ => false,
        };
        if is_known { Ok(Self::Url(url)) } else { Err(wrong()) }
    }

    fn hub(named: &str) -> Option<Self> {
        let (repository, revision) = named.split_once('@').unwrap_or((named, "main"));
        let repository = repository.trim_end_matches('/');
        let (organisation, name) = repository.split_once('/')?;
        let is_name = |name: &str| orion_proto::valid_name(name);
        let is_revision = |part: &str| orion_proto::valid_name(part);
        let fits = is_name(organisation) && is_name(name) && revision.split('/').all(is_revision);
        fits.then(|| Self::Hub { repository: repository.to_owned(), revision: revision.to_owned() })
    }

    /// What tells it from all others; not to be shown.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Hub { repository, revision } => format!("hf://{repository}@{revision}"),
            Self::Url(url) => url.to_string(),
        }
    }

    /// What a model is called that comes from here, unless it is given a name.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the location's last part cannot be a name.
    pub fn name(&self) -> Result<ModelName> {
        let last = match self {
            Self::Hub { repository, .. } => repository.rsplit('/').next().unwrap_or_default().to_owned(),
            Self::Url(url) => {
                let path = object_store::path::Path::from_url_path(url.path()).unwrap_or_default();
                let last = path.filename().or(url.host_str()).unwrap_or_default();
                without_extension(last).to_owned()
            }
        };
        ModelName::new(last)
            .map_err(|error| Error::invalid(format!("{self}: {error}; name it with --as NAME[@VERSION]")))
    }
}

/// The name of a model's file without what says of which kind it is.
fn without_extension(name: &str) -> &str {
    let known = [".safetensors", ".gguf", ".onnx"];
    known.iter().find_map(|end| name.strip_suffix(end)).filter(|name| !name.is_empty()).unwrap_or(name)
}

/// A path or address as it may be shown: a URL's query may hold a signature, and what is before its host a password.
pub fn shown(text: &str) -> String {
    let text = if Location::is_url(text) { text.split('?').next().unwrap_or(text) } else { text };
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let host = rest.find('/').unwrap_or(rest.len());
    let from = rest[..host].rfind('@').filter(|_| scheme != "hf").map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[from..])
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repository, revision } if revision == "main" => write!(out, "hf://{repository}"),
            Self::Hub { repository, revision } => write!(out, "hf://{repository}@{revision}"),
            Self::Url(url) => out.write_str(&shown(url.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for (text, safe) in [
            ("https://user:secret@host/a?sig=x", "https://host/a"),
            ("s3://bucket/a@b", "s3://bucket/a@b"),
            ("hf://org/m@main", "hf://org/m@main"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("/srv/what?", "/srv/what?"),
        ] {
            assert_eq!(shown(text), safe);
        }
    }

    #[test]
    fn each_kind_is_read_and_named() {
        for (text, shown, name) in [
            ("hf://org/All-MiniLM", "hf://org/All-MiniLM", "All-MiniLM"),
            ("hf://org/m@refs/pr/1", "hf://org/m@refs/pr/1", "m"),
            ("s3://models/minilm/", "s3://models/minilm/", "minilm"),
            ("gs://models", "gs://models", "models"),
            ("https://host/a/b.gguf?token=secret", "https://host/a/b.gguf", "b"),
            ("/srv/models/m.v2", "file:///srv/models/m.v2", "m.v2"),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!((location.to_string().as_str(), location.name().unwrap().as_str()), (shown, name));
        }
        for text in ["hf://m", "hf://org/", "hf://org/m@", "hf://org/m@../x", "ftp://host/m", "s3:///m", "https://"] {
            let said = Location::parse(text).unwrap_err().message;
            assert!(said.contains("hf://ORGANISATION/NAME"), "{text}: {said}");
        }
        assert!(Location::is_one("./m") && !Location::is_one("m@1") && !Location::is_one("10.0.0.1:80"));
    }
}
