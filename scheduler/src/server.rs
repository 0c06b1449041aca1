//! The scheduler's listeners: bound together, served together, drained together.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::Stream;
use orion_proto::{
    Code, DESCRIPTORS, Error, Result,
    cluster::cluster_server::ClusterServer,
    files::files_server::FilesServer,
    inference::grpc_inference_service_server::GrpcInferenceServiceServer,
    jobs::jobs_server::JobsServer,
    session::{relay_server::RelayServer, session_server::SessionServer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::{
    service::{Routes, interceptor::InterceptedService},
    transport::Server as GrpcServer,
};

use crate::{
    api::{
        access::{Access, Token},
        budget::{Budget, BudgetLayer},
        grpc::{ClusterService, FilesService, InferenceService, JobsService},
        http, metrics, note_arrival,
    },
    core::Limits,
    jobs::{Jobs, cluster::Cluster, seat::Seat},
    journal::{Embedded, Postgres},
    repository::Repository,
    scheduler::Scheduler,
    session::{RELAYED_BYTES, RelayService, SessionService},
};

/// How long accepting rests when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long accepted requests get to finish.
const DRAIN: Duration = Duration::from_secs(8);
/// How long connections then get to close.
const CLOSE: Duration = Duration::from_millis(1500);
/// Messages of the largest size that may be arriving at once, over all connections.
const ARRIVING_MESSAGES: usize = 8;
/// Room in a message beside its tensors.
const ENVELOPE_BYTES: usize = 1 << 20;
/// Bytes of one connection that may be waiting to be read. Half as many may be spent on frames that are smaller than 256
/// bytes, each up to that size (h2), or the connection ends: so much that a stream's window full of the smallest requests
/// does not.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// The journal of jobs in the data folder.
const JOBS: &str = "jobs.redb";
/// Largest frame of a session, encoded, with room for its fields.
const SESSION_MESSAGE_BYTES: usize = 128 * 1024;

/// What a scheduler is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// HTTP: Open Inference Protocol and OpenAI.
    pub http: SocketAddr,
    /// gRPC: Open Inference Protocol, cluster, health, reflection.
    pub grpc: SocketAddr,
    /// Prometheus.
    pub metrics: SocketAddr,
    /// Workers.
    pub session: SocketAddr,
    /// The bearer token of clients and workers.
    pub token: Option<Token>,
    /// Whether other machines may connect without a token.
    pub insecure: bool,
    /// Names under which HTTP may be addressed, beside its own.
    pub allowed_hosts: Vec<String>,
    /// Bytes of one message, tensors included.
    pub max_message_bytes: usize,
    /// The core's limits.
    pub limits: Limits,
    /// The models.
    pub repository: Repository,
    /// The folder in which what batches have taught and what operators made of nodes is kept; none: nowhere.
    pub data_folder: Option<PathBuf>,
    /// The journal of jobs that several schedulers share, `postgres://…`; none: one of its own, in the data folder.
    pub journal: Option<String>,
    /// Where other schedulers of that journal reach this one's gRPC, `HOST:PORT`; none: where it listens.
    pub advertise: Option<String>,
}

/// The addresses that were bound.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the names say it
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub metrics: SocketAddr,
    pub session: SocketAddr,
}

/// A scheduler whose ports are open and not yet served.
pub struct Server {
    scheduler: Arc<Scheduler>,
    seat: watch::Receiver<Seat>,
    /// Among those that share a journal, and what makes it leave them.
    cluster: Option<(Cluster, watch::Sender<bool>)>,
    access: Arc<Access>,
    relay_bytes_per_second: u64,
    max_message_bytes: usize,
    arriving_bytes: usize,
    listeners: [TcpListener; 4],
    addresses: Addresses,
}

impl Config {
    /// Everything that is wrong with it, checked before a port is opened.
    pub fn mistakes(&self) -> Vec<String> {
        let listeners =
            [("--http", self.http), ("--grpc", self.grpc), ("--metrics", self.metrics), ("--session", self.session)];
        let open = |(flag, address): &(&str, SocketAddr)| {
            (!address.ip().is_loopback()).then(|| {
                format!(
                    "{flag} {address} lets other machines in: give --token-file FILE, or --insecure to allow everyone"
                )
            })
        };
        let mut mistakes: Vec<String> = Vec::new();
        if self.token.is_none() && !self.insecure {
            mistakes.extend(listeners.iter().filter_map(open));
        }
        if self.journal.is_some() && self.advertise.is_none() && self.grpc.ip().is_unspecified() {
            let text = "is no address that other schedulers of the journal can reach: give --advertise HOST:PORT";
            mistakes.push(format!("--grpc {} {text}", self.grpc));
        }
        for (index, (flag, address)) in listeners.iter().enumerate() {
            let same = |(_, other): &&(&str, SocketAddr)| address.port() != 0 && other == address;
            if let Some((other, _)) = listeners[..index].iter().find(same) {
                mistakes.push(format!("{flag} and {other} are both {address}, each needs a port of its own"));
            }
        }
        mistakes
    }
}

impl Server {
    /// Opens every port.
    ///
    /// # Errors
    /// Every mistake of the configuration, or every port that cannot be opened, at once.
    pub async fn bind(config: Config) -> std::result::Result<Self, Vec<String>> {
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let wanted = [
            ("--http", config.http),
            ("--grpc", config.grpc),
            ("--metrics", config.metrics),
            ("--session", config.session),
        ];
        let (mut listeners, mut failed) = (Vec::new(), Vec::new());
        for (flag, address) in wanted {
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(listener),
                Err(error) => failed
                    .push(format!("{flag} {address} cannot be opened: {error}; another address: {flag} HOST:PORT")),
            }
        }
        let bound: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let (Ok(listeners), [http, grpc, metrics, session]) =
            (<[TcpListener; 4]>::try_from(listeners), bound.as_slice())
        else {
            return Err(failed);
        };
        let addresses = Addresses { http: *http, grpc: *grpc, metrics: *metrics, session: *session };
        if config.token.is_some() && !bound.iter().all(|address| address.ip().is_loopback()) {
            tracing::warn!("the token travels in plain text until TLS is there: use a trusted network");
        }
        let ips: Vec<_> = bound.iter().map(SocketAddr::ip).collect();
        let access = Access::new(config.token, &ips, &config.allowed_hosts).map_err(|error| vec![error.message])?;
        let relay_bytes_per_second = config.limits.relay_bytes_per_second;
        let scheduler = Scheduler::new(config.limits, config.repository, config.data_folder.as_deref());
        let (seat, cluster) = match &config.journal {
            None => (Seat::fixed(start_jobs(config.data_folder.as_deref(), &scheduler)), None),
            Some(url) => {
                let journal = Postgres::new(url).map_err(|error| vec![format!("--journal: {}", error.message)])?;
                let address = config.advertise.clone().unwrap_or_else(|| addresses.grpc.to_string());
                let (stop, stopped) = watch::channel(false);
                let (cluster, seat) = Cluster::new(journal, address, scheduler.front(), stopped);
                (seat, Some((cluster, stop)))
            }
        };
        Ok(Self {
            seat,
            cluster,
            arriving_bytes: config.max_message_bytes.saturating_mul(ARRIVING_MESSAGES),
            relay_bytes_per_second,
            scheduler,
            access: Arc::new(access),
            max_message_bytes: config.max_message_bytes,
            listeners,
            addresses,
        })
    }

    /// The addresses that were bound.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The scheduler behind the ports.
    pub fn scheduler(&self) -> Arc<Scheduler> {
        self.scheduler.clone()
    }

    /// Serves until `stop` turns true, then drains: new requests are refused, accepted ones answered.
    /// Returns how many were not.
    ///
    /// # Errors
    /// INTERNAL when a server ends that should not.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) -> Result<usize> {
        let (close, closing) = watch::channel(false);
        let [http_listener, grpc_listener, metrics_listener, session_listener] = self.listeners;
        let front = self.scheduler.front();
        let cluster = self.cluster.map(|(cluster, stop)| (tokio::spawn(cluster.run()), stop));
        let clock = tokio::spawn(self.scheduler.clone().run_clock());
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<GrpcInferenceServiceServer<InferenceService>>().await;

        let routes = grpc_routes(&front, self.max_message_bytes)?.add_service(health_service);
        let (jobs, files) = (JobsService::new(self.seat.clone()), FilesService::new(self.seat.clone()));
        let services = (jobs.clone(), files.clone());
        let jobs = JobsServer::new(jobs);
        let routes = routes.add_service(jobs.max_decoding_message_size(self.max_message_bytes + ENVELOPE_BYTES));
        let files = FilesServer::new(files);
        let routes = routes.add_service(files.max_decoding_message_size(self.max_message_bytes + ENVELOPE_BYTES));
        let layer = self.access.grpc_layer();
        let budget = Budget::new(self.arriving_bytes);
        let grpc = grpc_builder().layer(layer.clone()).layer(BudgetLayer(budget.clone())).add_routes(routes);
        let grpc = grpc.serve_with_incoming_shutdown(incoming(grpc_listener), closed(closing.clone()));
        let sessions = SessionServer::new(SessionService::new(self.scheduler.clone(), self.seat.clone()));
        let sessions = sessions.max_decoding_message_size(SESSION_MESSAGE_BYTES);
        let relay = RelayServer::new(RelayService::new(self.scheduler.clone(), self.relay_bytes_per_second));
        let relay = relay.max_decoding_message_size(RELAYED_BYTES);
        let sessions = grpc_builder().layer(layer).add_service(sessions).add_service(relay);
        let sessions = tokio::spawn(sessions.serve_with_incoming(incoming(session_listener)));

        let api = http::router(front.clone(), services, self.max_message_bytes, budget, &self.access);
        let metrics = metrics::router(front.clone()).layer(self.access.http_layer());
        let limits = http::server::Limits::default();
        let servers = async {
            tokio::join!(
                http::server::serve(http_listener, api, limits, closing.clone()),
                http::server::serve(metrics_listener, metrics, limits, closing.clone()),
                grpc,
            )
        };
        tokio::pin!(servers);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            _ = &mut servers => return Err(Error::new(Code::Internal, "a listener ended")),
        }
        tracing::info!("draining");
        health.set_not_serving::<GrpcInferenceServiceServer<InferenceService>>().await;
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        let seat = self.seat.borrow().clone();
        if let Seat::Leads(jobs) = seat {
            // A disk that hangs does not keep the server.
            let _ = tokio::time::timeout(CLOSE, jobs.drain()).await;
        }
        // The ports serve on while requests drain: a client that asks is told that it must go elsewhere.
        let drained = self.scheduler.drain(DRAIN);
        tokio::pin!(drained);
        let left = tokio::select! {
            left = &mut drained => left,
            _ = &mut servers => return Err(Error::new(Code::Internal, "a listener ended while requests drained")),
        };
        if let Seat::Leads(jobs) = &*self.seat.borrow() {
            jobs.hand_over(&front);
        }
        if let Some((task, stop)) = cluster {
            let _ = stop.send(true);
            // A journal's server that hangs does not keep this one.
            let _ = tokio::time::timeout(CLOSE, task).await;
        }
        let _ = close.send(true);
        let _ = tokio::time::timeout(CLOSE, servers).await;
        sessions.abort();
        clock.abort();
        self.scheduler.save_curves();
        if left > 0 {
            tracing::warn!(requests = left, "drain_timed_out");
        }
        Ok(left)
    }
}

/// The jobs of a data folder. Without them requests are served all the same.
fn start_jobs(folder: Option<&Path>, scheduler: &Arc<Scheduler>) -> Result<Jobs> {
    let none = || Error::new(Code::FailedPrecondition, "this scheduler keeps no jobs: it has no data folder");
    let journal = Embedded::open(&folder.ok_or_else(none)?.join(JOBS));
    let jobs = journal.and_then(|journal| Jobs::open(Arc::new(journal), scheduler.front()));
    jobs.inspect_err(|error| tracing::warn!(%error, "no_jobs"))
}

async fn closed(mut closing: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is as good as closed.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Connections without end. Where accepting fails (no descriptors are left) it rests, where tonic's own would spin.
fn incoming(listener: TcpListener) -> impl Stream<Item = std::io::Result<TcpStream>> {
    futures::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                // Without it an answer may wait for the client's delayed acknowledgement.
                Ok((stream, _)) if stream.set_nodelay(true).is_ok() => return Some((Ok(stream), listener)),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "connection_not_accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

fn grpc_builder() -> GrpcServer {
    GrpcServer::builder()
        .max_concurrent_streams(256)
        .http2_max_header_list_size(16 * 1024)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // Without it a client behind a partition holds its streams until somebody's timeout.
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
}

fn grpc_routes(front: &crate::front::Front, max_message_bytes: usize) -> Result<Routes> {
    let largest = max_message_bytes + ENVELOPE_BYTES;
    let inference = GrpcInferenceServiceServer::new(InferenceService::new(front.clone()))
        .max_decoding_message_size(largest)
        .max_encoding_message_size(usize::MAX);
    let inference = InterceptedService::new(inference, note_arrival);
    let reflection = |error: tonic_reflection::server::Error| Error::new(Code::Internal, error.to_string());
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(inference)
        .add_service(ClusterServer::new(ClusterService::new(front.clone())))
        .add_service(descriptors().build_v1().map_err(reflection)?)
        .add_service(descriptors().build_v1alpha().map_err(reflection)?))
}
