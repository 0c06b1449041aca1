//! What a user says of origins: whom to ask instead, with which key, and through which network that delivers contents.

use std::{collections::BTreeMap, fmt, fs, path::PathBuf};

use orion_proto::{Error, Result};
use serde::Deserialize;

use super::{
    location::Location,
    sign::{Scheme, Signature},
};

/// Seconds for which a signed URL is good, unless said otherwise.
const SECONDS: u64 = 3600;
const HUB: &str = "https://huggingface.co";

/// What is known of origins. Secrets are never shown.
#[derive(Clone)]
pub struct Origins {
    entries: Vec<Entry>,
    pub(super) hub: String,
    pub(super) hub_token: Option<String>,
}

/// What is said of all URLs that begin alike.
#[derive(Clone)]
pub(super) struct Entry {
    prefix: String,
    pub(super) endpoint: Option<String>,
    pub(super) options: BTreeMap<String, String>,
    pub(super) cdn: Option<Cdn>,
}

/// A network that delivers an origin's contents.
#[derive(Clone)]
pub(super) struct Cdn {
    pub(super) prefix: url::Url,
    pub(super) signature: Option<Signature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    origin: Vec<WrittenEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEntry {
    url: String,
    endpoint: Option<String>,
    #[serde(default)]
    options: BTreeMap<String, toml::Value>,
    cdn: Option<String>,
    sign: Option<Scheme>,
    key: Option<String>,
    key_file: Option<PathBuf>,
    key_id: Option<String>,
    seconds: Option<u64>,
}

impl Default for Origins {
    /// Of `HF_ENDPOINT` and `HF_TOKEN` alone.
    fn default() -> Self {
        let set = |name: &str| {
            std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let hub = set("HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned());
        Self { entries: Vec::new(), hub: hub.trim_end_matches('/').to_owned(), hub_token: set("HF_TOKEN") }
    }
}

impl Origins {
    /// Reads a file of `[[origin]]` tables beside what the environment says.
    ///
    /// # Errors
    /// What is wrong in which table.
    pub fn from_file(path: &std::path::Path) -> Result<Self> {
        let at = |reason: String| Error::invalid(format!("'{}': {reason}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
        let written: Written = toml::from_str(&text).map_err(|error| at(error.to_string()))?;
        let entries = written.origin.into_iter().map(|entry| {
            let url = entry.url.clone();
            entry.check().map_err(|reason| at(format!("origin '{}': {reason}", url.escape_debug())))
        });
        Ok(Self { entries: entries.collect::<Result<_>>()?, ..Self::default() })
    }

    /// What is said of a URL: of the longest that it begins with, to the end of a part of its path.
    pub(super) fn entry(&self, url: &str) -> Option<&Entry> {
        let begins = |entry: &&Entry| {
            let rest = url.strip_prefix(entry.prefix.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest.starts_with('?'))
        };
        self.entries.iter().filter(begins).max_by_key(|entry| entry.prefix.len())
    }
}

impl WrittenEntry {
    fn check(self) -> std::result::Result<Entry, String> {
        let location = Location::parse(&self.url).map_err(|error| error.message)?;
        if matches!(location, Location::Hub { .. }) {
            return Err("a hub is set by HF_ENDPOINT and HF_TOKEN".into());
        }
        let is_web = |text: &str| url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        if self.endpoint.as_deref().is_some_and(|endpoint| is_web(endpoint).is_none()) {
            return Err("endpoint must be a URL that begins with http:// or https://".into());
        }
        let key = match (&self.key, &self.key_file) {
            (Some(_), Some(_)) => return Err("key and key_file are both there, it must be one".into()),
            (Some(key), None) => Some(key.clone()),
            (None, Some(path)) => {
                Some(fs::read_to_string(path).map_err(|error| format!("key_file '{}': {error}", path.display()))?)
            }
            (None, None) => None,
        };
        let signature = match (self.sign, key) {
            (Some(scheme), Some(key)) => {
                Some(Signature::new(scheme, &key, self.key_id.as_deref(), self.seconds.unwrap_or(SECONDS))?)
            }
            (Some(_), None) => return Err("sign needs key or key_file".into()),
            (None, Some(_)) => return Err("key needs sign, which says what for".into()),
            (None, None) => None,
        };
        let cdn = match &self.cdn {
            Some(text) => {
                let mut prefix = is_web(text).ok_or("cdn must be a URL that begins with http:// or https://")?;
                if let Ok(mut parts) = prefix.path_segments_mut() {
                    parts.pop_if_empty();
                }
                Some(Cdn { prefix, signature })
            }
            None if signature.is_some() => return Err("sign needs cdn, whose URLs are signed".into()),
            None => None,
        };
        let option = |(key, value): (String, toml::Value)| match value {
            toml::Value::String(text) => Ok((key, text)),
            toml::Value::Boolean(_) | toml::Value::Integer(_) => Ok((key, value.to_string())),
            _ => Err(format!("option '{key}' must be text, a number, true or false")),
        };
        let options = self.options.into_iter().map(option).collect::<std::result::Result<_, _>>()?;
        Ok(Entry { prefix: self.url, endpoint: self.endpoint, options, cdn })
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<&str> = self.entries.iter().map(|entry| entry.prefix.as_str()).collect();
        out.debug_struct("Origins").field("known", &known).field("hub", &self.hub).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Origins> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("origins.toml");
        fs::write(&path, text).unwrap();
        Origins::from_file(&path)
    }

    #[test]
    fn the_longest_prefix_that_ends_with_a_part_of_the_path_counts() {
        let origins = read(
            "[[origin]]\nurl = 's3://models'\nendpoint = 'http://a:1'\n\
             [[origin]]\nurl = 's3://models/big/'\ncdn = 'https://cdn.example/x'\nsign = 'custom'\nkey = 'hidden'\n",
        )
        .unwrap();
        let endpoint = |url: &str| origins.entry(url).map(|entry| entry.endpoint.is_some());
        assert_eq!(endpoint("s3://models/m"), Some(true));
        assert_eq!(endpoint("s3://models/big/m"), Some(false));
        assert_eq!(endpoint("s3://models2/m"), None);
        assert!(!format!("{origins:?}").contains("hidden"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, said) in [
            ("[[origin]]\nurl = 's3://m'\nendpont = 'x'", "endpont"),
            ("[[origin]]\nurl = 'ftp://m'", "hf://"),
            ("[[origin]]\nurl = 's3://m'\nendpoint = 'minio:9000'", "http://"),
            ("[[origin]]\nurl = 's3://m'\ncdn = 'https://c'\nsign = 'fastly'", "key"),
            ("[[origin]]\nurl = 's3://m'\nsign = 'custom'\nkey = 'k'", "cdn"),
            ("[[origin]]\nurl = 's3://m'\ncdn = 'https://c'\nsign = 'akamai'\nkey = 'k'", "akamai"),
            ("[[origin]]\nurl = 's3://m'\ncdn = 'https://c'\nsign = 'google'\nkey = 'aGk='", "key_id"),
            ("[[origin]]\nurl = 'hf://a/b'", "HF_ENDPOINT"),
        ] {
            let error = read(text).unwrap_err().message;
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
