//! The connection to a running scheduler, as every client command makes it.

use std::{future::Future, path::PathBuf, time::Duration};

use clap::Args;
use orion_net::root_cause;
use orion_proto::{
    cluster::cluster_client::ClusterClient, files::files_client::FilesClient,
    inference::grpc_inference_service_client::GrpcInferenceServiceClient, jobs::jobs_client::JobsClient,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{Failure, table::Format};

const DEFAULT_PORT: u16 = 8001;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Without keep-alive a partition would hang until the caller's timeout.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// How to reach the server and how to show what it says.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArguments {
    /// The scheduler's gRPC address
    #[arg(long, global = true, env = "ORION_SERVER", value_name = "ADDR", default_value = "127.0.0.1:8001")]
    pub(crate) server: String,
    /// File that holds the server's bearer token
    #[arg(long, global = true, env = "ORION_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Largest message to send or accept, in MiB
    #[arg(long, global = true, env = "ORION_CLIENT_MAX_MESSAGE_MB", value_name = "MIB", default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(1..=2047))]
    pub(crate) max_message_mb: u32,
    /// How to print what was found
    #[arg(short, long, global = true, env = "ORION_OUTPUT", value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Adds the bearer token, where there is one, to each request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        self.sign(&mut request);
        Ok(request)
    }
}

impl Bearer {
    /// Adds the token to a request that no interceptor sees.
    pub(crate) fn sign<T>(&self, request: &mut Request<T>) {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
    }
}

type Signed = InterceptedService<Channel, Bearer>;

/// A connected client of the services that share the scheduler's gRPC port.
#[derive(Clone)]
pub(crate) struct Client {
    /// Inference and the model repository.
    pub(crate) inference: GrpcInferenceServiceClient<Signed>,
    /// Nodes, models and the scheduler's own state.
    pub(crate) cluster: ClusterClient<Signed>,
    /// Jobs.
    pub(crate) jobs: JobsClient<Signed>,
    /// Files of calls and of what came of them.
    pub(crate) files: FilesClient<Signed>,
}

impl ServerArguments {
    /// The largest message in bytes.
    pub(crate) fn max_message_bytes(&self) -> usize {
        self.max_message_mb as usize * (1 << 20)
    }

    /// Where and how to connect.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Failure> {
        let wrong = || Failure::new(format!("server address '{}' is not valid, it must be HOST:PORT", self.server));
        let authority = match self.server.split_once("://") {
            None => self.server.as_str(),
            Some(("http", rest)) => rest.trim_end_matches('/'),
            Some((scheme, _)) => {
                return Err(Failure::new(format!("server scheme '{scheme}' is not supported, it must be http")));
            }
        };
        let authority: tonic::codegen::http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        let uri = match authority.port_u16() {
            Some(_) => format!("http://{authority}"),
            None if authority.as_str().ends_with(':') || authority.port().is_some() => return Err(wrong()),
            None => format!("http://{authority}:{DEFAULT_PORT}"),
        };
        let endpoint = Endpoint::from_shared(uri).map_err(|_| wrong())?;
        Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE))
    }

    /// The token of `--token-file`.
    pub(crate) fn bearer(&self) -> Result<Bearer, Failure> {
        let Some(path) = &self.token_file else { return Ok(Bearer::default()) };
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("token file '{shown}' cannot be read: {error}")))?;
        if text.trim().is_empty() {
            return Err(Failure::new(format!("token file '{shown}' is empty, it must hold one token")));
        }
        let mut value = MetadataValue::try_from(format!("Bearer {}", text.trim()))
            .map_err(|_| Failure::new(format!("token file '{shown}' must hold one line of printable ASCII")))?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }

    /// Connects now, so that a server that is not there is told from one that refuses.
    pub(crate) async fn channel(&self, endpoint: &Endpoint) -> Result<Channel, Failure> {
        endpoint.connect().await.map_err(|error| {
            Failure::new(format!("cannot reach the server at {}: {}", self.server, root_cause(&error)))
                .hint("is a scheduler running? start one with: orion up")
        })
    }

    /// Connects all services over one connection.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let (bearer, limit) = (self.bearer()?, self.max_message_bytes());
        let signed = InterceptedService::new(self.channel(&self.endpoint()?).await?, bearer);
        Ok(Client {
            inference: GrpcInferenceServiceClient::new(signed.clone())
                .max_decoding_message_size(limit)
                .max_encoding_message_size(limit),
            cluster: ClusterClient::new(signed.clone()).max_decoding_message_size(limit),
            files: FilesClient::new(signed.clone()).max_decoding_message_size(limit),
            jobs: JobsClient::new(signed).max_decoding_message_size(limit).max_encoding_message_size(limit),
        })
    }
}

/// Runs a client command's future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no runtime can be started: {error}")))?
        .block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(server: &str) -> ServerArguments {
        ServerArguments { server: server.into(), token_file: None, max_message_mb: 1, output: Format::Json }
    }

    #[test]
    fn an_address_gets_its_scheme_and_port() {
        for (given, uri) in [
            ("127.0.0.1:9", "http://127.0.0.1:9/"),
            ("http://host:9/", "http://host:9/"),
            ("host", "http://host:8001/"),
            ("[::1]", "http://[::1]:8001/"),
        ] {
            assert_eq!(arguments(given).endpoint().unwrap().uri().to_string(), uri);
        }
        for wrong in ["", "a b", "https://host:1", "host:", "host:x", "host:99999", "host:1/path"] {
            assert!(arguments(wrong).endpoint().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_is_trimmed_and_must_be_printable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bearer = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            ServerArguments { token_file: Some(file.path().into()), ..arguments("a") }.bearer()
        };
        let mut request = Request::new(());
        bearer("secret\n").unwrap().sign(&mut request);
        assert_eq!(request.metadata().get("authorization").unwrap().as_bytes(), b"Bearer secret");
        assert!(bearer(" \n").is_err());
        assert!(bearer("a\nb").is_err());
    }
}
