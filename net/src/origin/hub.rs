//! Hugging Face's hub and those that speak as it does: an API that lists a repository's files, and the files.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use object_store::{
    ClientOptions, HeaderMap, HeaderValue,
    client::{HttpConnector, HttpRequestBody, ReqwestConnector},
    path::Path,
};
use orion_proto::{Code, Error, ModelName, Result};
use serde::Deserialize;
use url::Url;

use super::{
    Listing, Location, Origins, RemoteFile,
    connect::{client, web},
    error::failed,
    listing::Digest,
};

/// What the API says of a repository, at most.
const MOST_API_BYTES: usize = 64 << 20;
/// How often the API is asked, and how long after it failed, at least.
const TRIES: u32 = 5;
const RETRY: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Repository {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    sha256: Option<String>,
    oid: Option<String>,
    size: Option<u64>,
}

impl Origins {
    /// All files of a repository's revision.
    pub(super) async fn list_hub(&self, location: &Location, repository: &str, revision: &str) -> Result<Listing> {
        let mut api = self.hub_url(&format!("api/models/{repository}/revision"), Some(revision))?;
        api.set_query(Some("blobs=true"));
        let said = self.read_api(location, &api).await?;
        let wrong =
            |reason: String| Error::new(Code::Unavailable, format!("{location}: the hub's answer is none: {reason}"));
        let found: Repository = serde_json::from_slice(&said).map_err(|error| wrong(error.to_string()))?;
        if found.sha.len() < 12 || !found.sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong("it names no commit".into()));
        }
        let base = self.hub_url(&format!("{repository}/resolve"), Some(&found.sha))?;
        let contents = web(&base, self.hub_client(&base)).map_err(|error| failed(location, &error))?;
        let files = found.siblings.into_iter().map(|sibling| sibling.file().map_err(&wrong)).collect::<Result<_>>()?;
        let version = ModelName::new(&found.sha[..12])?;
        Ok(Listing { location: location.clone(), version, files, contents, network: None })
    }

    /// The API's answer, which need not say how long it is.
    async fn read_api(&self, location: &Location, url: &Url) -> Result<Bytes> {
        let failed = |reason: String| Error::new(Code::Unavailable, format!("{location}: {}: {reason}", self.hub));
        let client =
            ReqwestConnector::default().connect(&self.hub_client(url)).map_err(|error| failed(error.to_string()))?;
        let mut tries = 0;
        loop {
            tries += 1;
            let request = http::Request::get(url.as_str()).body(HttpRequestBody::empty());
            let answer = client.execute(request.map_err(|error| failed(error.to_string()))?).await;
            let reason = match answer {
                Ok(answer) if answer.status().is_success() => {
                    let body = Limited::new(answer.into_body(), MOST_API_BYTES).collect().await;
                    return body.map(|body| body.to_bytes()).map_err(|error| failed(error.to_string()));
                }
                Ok(answer) if answer.status().is_server_error() || answer.status() == StatusCode::TOO_MANY_REQUESTS => {
                    format!("it answered {}", answer.status())
                }
                Ok(answer) => return Err(self.refused(location, answer.status())),
                Err(error) => crate::root_cause(&error),
            };
            if tries == TRIES {
                return Err(failed(reason));
            }
            tokio::time::sleep(RETRY * (1 << tries)).await;
        }
    }

    fn hub_url(&self, path: &str, last: Option<&str>) -> Result<Url> {
        let wrong =
            || Error::invalid(format!("HF_ENDPOINT '{}' must be a URL that begins with https:// or http://", self.hub));
        let mut url = Url::parse(&self.hub).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong());
        }
        // A revision may have slashes, which are no steps of the path.
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(path.split('/')).extend(last);
        Ok(url)
    }

    /// The hub's token goes to the hub: where it sends elsewhere for a file, the token does not go along.
    fn hub_client(&self, base: &Url) -> ClientOptions {
        let options = client(base.scheme() == "http");
        match self.hub_token.as_ref().and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok()) {
            Some(mut bearer) => {
                bearer.set_sensitive(true);
                options.with_default_headers(HeaderMap::from_iter([(http::header::AUTHORIZATION, bearer)]))
            }
            None => options,
        }
    }

    fn refused(&self, location: &Location, status: StatusCode) -> Error {
        let hint = match self.hub_token.is_some() {
            true => "HF_TOKEN may not see it",
            false => "if it is private or gated, set HF_TOKEN",
        };
        let (code, text) = match status {
            StatusCode::NOT_FOUND => (Code::NotFound, format!("{location} is not at {}; {hint}", self.hub)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                (Code::PermissionDenied, format!("{} does not give out {location}; {hint}", self.hub))
            }
            _ => (Code::Unavailable, format!("{location}: {} answered {status}", self.hub)),
        };
        Error::new(code, text)
    }
}

impl Sibling {
    fn file(self) -> std::result::Result<RemoteFile, String> {
        let name = || self.rfilename.escape_debug();
        let lfs = self.lfs.as_ref();
        let bytes =
            lfs.and_then(|lfs| lfs.size).or(self.size).ok_or_else(|| format!("file '{}' has no size", name()))?;
        let object = Path::parse(&self.rfilename).map_err(|error| format!("file '{}': {error}", name()))?;
        let sha256 = lfs.and_then(|lfs| lfs.sha256.clone().or_else(|| lfs.oid.clone()));
        let digest = match (sha256, self.blob_id) {
            (Some(sha256), _) => Digest::Sha256(sha256.trim_start_matches("sha256:").to_ascii_lowercase()),
            (None, Some(blob)) if lfs.is_none() => Digest::GitBlob(blob.to_ascii_lowercase()),
            (None, _) => Digest::Unknown,
        };
        Ok(RemoteFile { path: self.rfilename, bytes, object, tag: None, changed: 0, digest })
    }
}
