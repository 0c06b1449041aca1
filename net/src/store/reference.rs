//! How a person or a configuration names a model of a store.

use std::{fmt, str::FromStr};

use orion_proto::valid_name;

/// What the path of a model begins with that is in the workers' stores.
const STORE: &str = "store:";

/// A model and, where one is named, its version: `NAME` or `NAME@VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The model's name.
    pub name: String,
    /// Its version; none: the last.
    pub version: Option<String>,
}

impl Reference {
    /// Whether a model's path names one of the store.
    pub fn is_path(path: &str) -> bool {
        path.starts_with(STORE)
    }

    /// Reads such a path. It names a version: each worker must have the same.
    ///
    /// # Errors
    /// INVALID_ARGUMENT saying what it must be.
    pub fn of_path(path: &str) -> orion_proto::Result<Self> {
        let reference = path.strip_prefix(STORE).and_then(|named| named.parse::<Self>().ok());
        reference.filter(|reference| reference.version.is_some()).ok_or_else(|| {
            let path = path.escape_debug();
            let text =
                format!("'{path}' must be {STORE}NAME@VERSION, such as {STORE}minilm@1: orion cache ls lists them");
            orion_proto::Error::invalid(text)
        })
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = text.split_once('@').map_or((text, None), |(name, version)| (name, Some(version)));
        match valid_name(name) && version.is_none_or(valid_name) {
            true => Ok(Self { name: name.to_owned(), version: version.map(str::to_owned) }),
            false => Err("NAME or NAME@VERSION, each 1 to 128 of the characters A-Z a-z 0-9 . _ -".into()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(out, "{}@{version}", self.name),
            None => out.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_with_or_without_its_version() {
        let read = |text: &str| text.parse::<Reference>().map(|reference| reference.to_string());
        assert_eq!((read("m"), read("m@2")), (Ok("m".into()), Ok("m@2".into())));
        assert!(read("m@").is_err() && read("@2").is_err() && read("a/b").is_err());
    }

    #[test]
    fn a_path_of_the_store_names_a_version() {
        assert_eq!(Reference::of_path("store:m@1").unwrap().to_string(), "m@1");
        assert!(Reference::is_path("store:") && !Reference::is_path("models/store:m"));
        for wrong in ["store:", "store:m", "store:m@", "store:a/b@1", "store:m@../x", "m@1"] {
            assert!(
                Reference::of_path(wrong).is_err_and(|error| error.message.contains("store:NAME@VERSION")),
                "{wrong}"
            );
        }
    }
}
