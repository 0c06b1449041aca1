//! Starting, wiring and stopping the serving commands.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use orion_net::SchedulerLink;
use orion_proto::{ModelName, session::to_scheduler};
use orion_scheduler::{
    api::access::Token,
    core::Limits,
    repository::Repository,
    server::{Config, Server},
    session::Session,
};
use orion_worker::{
    Worker, WorkerHandle,
    measure::{self, MeasureOptions},
    session::JoinOptions,
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    arguments::{CommonFlags, SchedulerArguments, SchedulerFlags, UpArguments, WorkerArguments},
    logging, node,
    transfers::Transfers,
};
use crate::{Failure, data_folder};

/// How often a worker in this process tells how it is.
const TELEMETRY: Duration = Duration::from_secs(1);
/// How long measuring waits for idle moments.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn run_up(arguments: &UpArguments, out: &mut dyn Write) -> Result<(), Failure> {
    logging::start(arguments.common.log_format, &arguments.common.log)?;
    let data_dir = data_dir(&arguments.common)?;
    let config = Config { data_folder: Some(data_dir.clone()), ..config(&arguments.scheduler)? };
    let (token, insecure) = (config.token.as_ref(), config.insecure);
    let transfers = Transfers::start(&arguments.node, &arguments.name, &data_dir, token, insecure)?;
    let options = node::options(&arguments.name, &data_dir, Some(&transfers), &arguments.node)?;
    runtime()?.block_on(async {
        let stop = stop_signal()?;
        let server = bind(config).await?;
        let worker = Worker::start(options)?;
        worker.joins(&near(server.addresses().session).to_string());
        let (hello, link) = (worker.hello(), Arc::new(WorkerHandle(worker.clone())));
        let session = server.scheduler().join_in_process(hello.clone(), link)?;
        worker.attach(session.clone(), server.scheduler().front().epoch(), &hello);
        session.start();
        tokio::spawn(telemetry(worker.clone(), session));
        measure_in_background(worker, data_dir);
        announce(&server, out)?;
        served(server.serve(stop).await)
    })
}

pub(crate) fn run_scheduler(arguments: &SchedulerArguments, out: &mut dyn Write) -> Result<(), Failure> {
    logging::start(arguments.common.log_format, &arguments.common.log)?;
    let data_folder = Some(data_dir(&arguments.common)?);
    let config = Config { data_folder, ..config(&arguments.scheduler)? };
    runtime()?.block_on(async {
        let stop = stop_signal()?;
        let server = bind(config).await?;
        announce(&server, out)?;
        served(server.serve(stop).await)
    })
}

pub(crate) fn run_worker(arguments: &WorkerArguments, _out: &mut dyn Write) -> Result<(), Failure> {
    logging::start(arguments.common.log_format, &arguments.common.log)?;
    let data_dir = data_dir(&arguments.common)?;
    if !orion_proto::valid_name(&arguments.name) {
        return Err(Failure::new(format!(
            "--name '{}' must be 1 to 128 of the characters A-Z a-z 0-9 . _ -",
            arguments.name
        )));
    }
    if let Some(bad) = arguments.join.iter().find(|address| !is_host_and_port(address)) {
        return Err(Failure::new(format!("--join '{bad}' must be HOST:PORT, such as 127.0.0.1:8003")));
    }
    let token = token(arguments.token_file.as_deref())?;
    let transfers = Transfers::start(&arguments.node, &arguments.name, &data_dir, token.as_ref(), arguments.insecure)?;
    let worker = Worker::start(node::options(&arguments.name, &data_dir, Some(&transfers), &arguments.node)?)?;
    measure_in_background(worker.clone(), data_dir);
    let join = JoinOptions {
        addresses: arguments.join.clone(),
        token: token.map(|token| token.reveal().to_owned()),
        max_batch_bytes: 4 << 30,
    };
    // One thread: the session's I/O is small work, and never on a thread that computes.
    let runtime = Builder::new_current_thread().enable_all().build().map_err(no_runtime)?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        tracing::info!(worker = arguments.name, schedulers = arguments.join.join(","), "worker_started");
        orion_worker::session::run(worker, join, stop).await;
        Ok(())
    })
}

/// Where this machine itself reaches a listener.
fn near(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listener.port())
}

fn is_host_and_port(address: &str) -> bool {
    !address.contains('@')
        && address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn no_runtime(error: std::io::Error) -> Failure {
    Failure::new(format!("threads cannot be started: {error}"))
}

/// Each connection is a file descriptor; the soft limit of a login shell is a thousand.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to a struct of the type that they want.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

fn runtime() -> Result<Runtime, Failure> {
    raise_descriptor_limit();
    Builder::new_multi_thread().enable_all().build().map_err(no_runtime)
}

/// Turns true at Ctrl-C or SIGTERM. A second Ctrl-C ends the process at once: a person has waited enough; a supervisor
/// that repeats SIGTERM has not.
fn stop_signal() -> Result<watch::Receiver<bool>, Failure> {
    let no_signal = |error| Failure::new(format!("signals cannot be heard: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signal)?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        // Nobody listens any more when the command has already ended.
        let _ = stop.send(true);
        interrupt.recv().await;
        tracing::warn!("stopped_without_draining");
        std::process::exit(1);
    });
    Ok(stopped)
}

fn token(file: Option<&Path>) -> Result<Option<Token>, Failure> {
    Ok(file.map(Token::from_file).transpose()?)
}

fn config(flags: &SchedulerFlags) -> Result<Config, Failure> {
    // Every mistake at once: fixing them one start at a time is tedious.
    let mut mistakes: Vec<String> = Vec::new();
    let mut models = Vec::new();
    for model in &flags.model {
        match named_model(model) {
            Ok(model) => models.push(model),
            Err(mistake) => mistakes.push(format!("--model '{model}': {mistake}")),
        }
    }
    let repository = Repository::open(models, flags.model_repository.clone());
    let token = token(flags.token_file.as_deref());
    let relay_bytes_per_second = u64::from(flags.relay_mb_per_second) * 1_000_000;
    let limits = Limits { requests: flags.max_requests as usize, relay_bytes_per_second, ..Limits::default() };
    mistakes.extend(repository.as_ref().err().map(|error| error.message.clone()));
    mistakes.extend(token.as_ref().err().map(|failure| failure.message.clone()));
    let config = Config {
        http: flags.http,
        grpc: flags.grpc,
        metrics: flags.metrics,
        session: flags.session,
        // A token file that cannot be read is a mistake of its own, not a missing token.
        insecure: flags.insecure || token.is_err(),
        token: token.unwrap_or_default(),
        allowed_hosts: flags.allowed_host.clone(),
        max_message_bytes: (flags.max_message_mb as usize) << 20,
        limits,
        repository: repository.unwrap_or_default(),
        data_folder: None,
        journal: flags.journal.clone(),
        advertise: flags.advertise.clone(),
    };
    if let Some(bad) = flags.advertise.as_ref().filter(|address| !is_host_and_port(address)) {
        mistakes.push(format!("--advertise '{bad}' must be HOST:PORT, such as 10.0.0.5:8001"));
    }
    mistakes.extend(config.mistakes());
    if mistakes.is_empty() { Ok(config) } else { Err(Failure::new(mistakes.join("\nerror: "))) }
}

fn named_model(text: &str) -> Result<(ModelName, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("it must be NAME=PATH, such as minilm=models/minilm")?;
    if path.is_empty() {
        return Err("the path is missing, it must be NAME=PATH".into());
    }
    Ok((ModelName::new(name).map_err(|error| error.message)?, PathBuf::from(path)))
}

async fn bind(config: Config) -> Result<Server, Failure> {
    Server::bind(config).await.map_err(|mistakes| Failure::new(mistakes.join("\nerror: ")))
}

/// Says where it listens: an event for scripts, lines for people.
fn announce(server: &Server, out: &mut dyn Write) -> Result<(), Failure> {
    let at = server.addresses();
    tracing::info!(http = %at.http, grpc = %at.grpc, metrics = %at.metrics, session = %at.session, "listening");
    writeln!(out, "orion {} is listening", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  http     http://{}", at.http)?;
    writeln!(out, "  grpc     {}", at.grpc)?;
    writeln!(out, "  metrics  http://{}/metrics", at.metrics)?;
    writeln!(out, "  workers  orion worker --join {} --name NAME", at.session)?;
    Ok(out.flush()?)
}

fn served(served: orion_proto::Result<usize>) -> Result<(), Failure> {
    match served? {
        0 => Ok(()),
        left => Err(Failure::new(format!("{left} accepted requests were not answered within the time to drain"))),
    }
}

fn data_dir(flags: &CommonFlags) -> Result<PathBuf, Failure> {
    let folder = match &flags.data_dir {
        Some(folder) => folder.clone(),
        None => data_folder::users()?,
    };
    std::fs::create_dir_all(&folder)
        .map_err(|error| Failure::new(format!("--data-dir {} cannot be made: {error}", folder.display())))?;
    Ok(folder)
}

async fn telemetry(worker: Arc<Worker>, session: Arc<Session>) {
    let mut ticks = tokio::time::interval(TELEMETRY);
    loop {
        ticks.tick().await;
        session.control(to_scheduler::Message::Telemetry(worker.telemetry()));
        worker.look_at_store();
    }
}

/// Measures this machine on a thread of its own, while the worker already serves on estimates.
fn measure_in_background(worker: Arc<Worker>, data_dir: PathBuf) {
    if worker.options().simulation.is_some() {
        // Nothing runs on this machine's own devices, and measuring would disturb those that are emulated.
        return;
    }
    let spawned = std::thread::Builder::new().name("orion-measure".into()).spawn(move || {
        let busy = || worker.is_busy();
        let fingerprint = worker.capability().fingerprint.clone();
        let options =
            MeasureOptions { data_dir: &data_dir, fingerprint: &fingerprint, busy: &busy, patience: PATIENCE };
        worker.publish(measure::measure(&options));
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "nothing_measured");
    }
}
