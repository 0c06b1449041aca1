//! Opening what holds an origin's objects.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig,
    aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
    },
    gcp::GoogleCloudStorageBuilder,
    http::HttpBuilder,
    local::LocalFileSystem,
    path::Path,
};
use orion_proto::{Error, Result};
use url::Url;

use super::{
    Origins,
    config::{Cdn, Entry},
    error::failed,
    location::shown,
    sign::Signature,
};

const CONNECT: Duration = Duration::from_secs(5);
/// An origin that sends nothing for so long is asked again.
const SILENT: Duration = Duration::from_secs(20);
/// How long it is asked again and again.
const PATIENCE: Duration = Duration::from_secs(20);

/// An origin's objects.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    /// What is asked for names, and takes what is written.
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Whom contents are read from: the same, or a network that delivers them.
    pub(super) contents: Arc<dyn ObjectStore>,
    /// Where in both.
    pub(super) path: Path,
    /// The network, if there is one.
    pub(super) network: Option<String>,
}

impl Origins {
    /// Opens what a URL leads to.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the option that is wrong.
    pub(super) fn open(&self, url: &Url) -> Result<Opened> {
        let text = url.as_str();
        let entry = self.entry(text);
        let path =
            Path::from_url_path(url.path()).map_err(|error| Error::invalid(format!("'{}': {error}", url.path())))?;
        let objects = build(url, entry).map_err(|error| failed(&format!("origin {}", shown(url.as_str())), &error))?;
        let contents = match entry.and_then(|entry| entry.cdn.as_ref()) {
            Some(cdn) => {
                delivered(cdn).map_err(|error| failed(&format!("network {}", shown(cdn.prefix.as_str())), &error))?
            }
            None => objects.clone(),
        };
        let network = entry.and_then(|entry| entry.cdn.as_ref()).map(|cdn| shown(cdn.prefix.as_str()));
        Ok(Opened { objects, contents, path, network })
    }
}

fn build(url: &Url, entry: Option<&Entry>) -> object_store::Result<Arc<dyn ObjectStore>> {
    let options = entry.iter().flat_map(|entry| &entry.options);
    let endpoint = entry.and_then(|entry| entry.endpoint.as_deref());
    // Whoever writes http:// means it.
    let plain = |variable: &str| std::env::var(variable).is_ok_and(|value| value.starts_with("http://"));
    let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    Ok(match url.scheme() {
        "s3" => {
            let is_plain =
                is_plain || plain("AWS_ENDPOINT_URL") || plain("AWS_ENDPOINT") || plain("AWS_ENDPOINT_URL_S3");
            let mut builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_client_options(client(is_plain));
            for (key, value) in options {
                builder = builder.with_config(key.parse()?, value);
            }
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            Arc::new(builder.with_retry(retry()).build()?)
        }
        "gs" => {
            let mut builder =
                GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_client_options(client(is_plain));
            for (key, value) in options {
                builder = builder.with_config(key.parse()?, value);
            }
            if let Some(endpoint) = endpoint {
                builder = builder.with_config("google_base_url".parse()?, endpoint);
            }
            Arc::new(builder.with_retry(retry()).build()?)
        }
        "az" => {
            let is_plain = is_plain || plain("AZURE_STORAGE_ENDPOINT") || plain("AZURE_ENDPOINT");
            let mut builder =
                MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_client_options(client(is_plain));
            for (key, value) in options {
                builder = builder.with_config(key.parse()?, value);
            }
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint.to_owned());
            }
            Arc::new(builder.with_retry(retry()).build()?)
        }
        "file" => Arc::new(LocalFileSystem::new().with_fsync(true)),
        _ => {
            let mut base = url.clone();
            base.set_path("/");
            web(&base, client(true))?
        }
    })
}

/// A web server's files under a URL, whose query is sent with each.
pub(super) fn web(base: &Url, client: ClientOptions) -> object_store::Result<Arc<dyn ObjectStore>> {
    let builder = HttpBuilder::new().with_url(base.as_str()).with_client_options(client).with_retry(retry());
    Ok(Arc::new(builder.build()?))
}

fn delivered(cdn: &Cdn) -> object_store::Result<Arc<dyn ObjectStore>> {
    let Some(signature) = &cdn.signature else { return web(&cdn.prefix, client(true)) };
    let signing = Signing { signature: Arc::new(signature.clone()) };
    let builder = HttpBuilder::new().with_url(cdn.prefix.as_str()).with_client_options(client(true));
    Ok(Arc::new(builder.with_retry(retry()).with_http_connector(signing).build()?))
}

/// How connections are made. A whole answer may take as long as it needs, if only it goes on.
pub(super) fn client(plain: bool) -> ClientOptions {
    let agent = concat!("orion/", env!("CARGO_PKG_VERSION"));
    let options = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT)
        .with_read_timeout(SILENT)
        .with_timeout_disabled();
    match object_store::HeaderValue::from_str(agent) {
        Ok(agent) => options.with_user_agent(agent),
        Err(_) => options,
    }
}

fn retry() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 5, retry_timeout: PATIENCE }
}

/// Signs each request's URL as it goes out: a signature is good for one file and a while.
#[derive(Clone)]
struct Signing {
    signature: Arc<Signature>,
}

impl HttpConnector for Signing {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(SigningService { signature: self.signature.clone(), inner }))
    }
}

struct SigningService {
    signature: Arc<Signature>,
    inner: HttpClient,
}

impl std::fmt::Debug for Signing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Signing")
    }
}

impl std::fmt::Debug for SigningService {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("SigningService")
    }
}

#[tonic::async_trait]
impl HttpService for SigningService {
    async fn call(&self, mut request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signed = Url::parse(&request.uri().to_string())
            .map_err(|error| error.to_string())
            .and_then(|url| self.signature.sign(url, now))
            .and_then(|url| url.as_str().parse().map_err(|_| "its signed URL is none".to_owned()));
        *request.uri_mut() =
            signed.map_err(|reason| HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(reason)))?;
        self.inner.execute(request).await
    }
}
