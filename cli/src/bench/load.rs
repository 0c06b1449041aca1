//! The closed loop: threads with connections of their own, and one task for each request in flight.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::sync::watch;
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use super::{codec::Encoded, window::Window};
use crate::{
    Failure,
    client::{Bearer, ServerArguments, block_on},
};

/// The path of an inference call.
pub(super) const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
/// How long answers may take after the run; what is later is given up.
const DRAIN: Duration = Duration::from_secs(10);
/// So that a server that refuses at once is not spun on.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(1);
const MOST_LATENCY_NANOSECONDS: u64 = 3_600_000_000_000;

/// What the slots of a run counted.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Latencies of the answers, in nanoseconds, to three significant figures.
    pub(crate) latencies: Histogram<u64>,
    /// Failures by gRPC status.
    pub(crate) errors: BTreeMap<String, u64>,
    /// The first of them.
    pub(crate) first_error: Option<Status>,
}

/// Threads that are connected and wait for their window.
pub(crate) struct Load {
    window: watch::Sender<Option<Window>>,
    threads: Vec<JoinHandle<Result<(), Failure>>>,
    tallies: Vec<Arc<Mutex<Tally>>>,
}

impl Tally {
    fn new() -> Result<Self, Failure> {
        let latencies = Histogram::new_with_bounds(1, MOST_LATENCY_NANOSECONDS, 3)
            .map_err(|error| Failure::new(format!("no histogram can be made: {error}")))?;
        Ok(Self { latencies, errors: BTreeMap::new(), first_error: None })
    }

    fn count(&mut self, outcome: Result<(), Status>, latency: Duration) {
        match outcome {
            Ok(()) => self.latencies.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX)),
            Err(status) => {
                *self.errors.entry(format!("{:?}", status.code())).or_default() += 1;
                self.first_error.get_or_insert(status);
            }
        }
    }

    fn add(&mut self, other: Self) -> Result<(), Failure> {
        self.latencies
            .add(other.latencies)
            .map_err(|error| Failure::new(format!("histograms cannot be merged: {error}")))?;
        for (status, count) in other.errors {
            *self.errors.entry(status).or_default() += count;
        }
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(())
    }
}

impl Load {
    /// Starts the threads and waits until all of them are connected.
    pub(crate) async fn start(
        server: &ServerArguments,
        message: &Bytes,
        concurrency: usize,
        connections: usize,
        threads: usize,
    ) -> Result<Self, Failure> {
        let (window, watched) = watch::channel(None);
        let (connected, waiting) = mpsc::channel();
        let mut load = Self { window, threads: Vec::with_capacity(threads), tallies: Vec::with_capacity(threads) };
        for thread in 0..threads {
            let tally = Arc::new(Mutex::new(Tally::new()?));
            let driver = Driver {
                server: server.clone(),
                endpoint: server.endpoint()?,
                bearer: server.bearer()?,
                message: message.clone(),
                slots: share(concurrency, threads, thread),
                connections: share(connections, threads, thread),
                window: watched.clone(),
                tally: tally.clone(),
            };
            let connected = connected.clone();
            load.threads.push(std::thread::spawn(move || block_on(driver.run(connected))));
            load.tallies.push(tally);
        }
        drop(connected);
        // Ends early when a thread failed: it dropped its end without a word.
        let ready = waiting.iter().take(threads).count();
        if ready == threads { Ok(load) } else { Err(load.failure()) }
    }

    /// Lets all threads send, for `warmup` without counting and for `seconds` with it.
    pub(crate) fn open(&self, warmup: Duration, seconds: Duration) -> Window {
        let window = Window::from_now(warmup, seconds);
        self.window.send_replace(Some(window));
        window
    }

    /// Waits for the last answers and adds up what the threads counted.
    pub(crate) fn finish(self) -> Result<Tally, Failure> {
        for thread in self.threads {
            join(thread)?;
        }
        let mut total = Tally::new()?;
        for tally in self.tallies {
            let counted = std::mem::replace(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner), Tally::new()?);
            total.add(counted)?;
        }
        Ok(total)
    }

    /// Why a thread could not connect. Those that could end when they see that no window will come.
    fn failure(self) -> Failure {
        drop(self.window);
        let failed = self.threads.into_iter().filter_map(|thread| join(thread).err());
        failed.reduce(|first, _| first).unwrap_or_else(|| Failure::new("a sending thread ended early"))
    }
}

fn join(thread: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    thread.join().unwrap_or_else(|_| Err(Failure::new("a sending thread panicked")))
}

/// The part of `total` that the thread `index` of `threads` takes.
fn share(total: usize, threads: usize, index: usize) -> usize {
    total / threads + usize::from(index < total % threads)
}

struct Driver {
    server: ServerArguments,
    endpoint: Endpoint,
    bearer: Bearer,
    message: Bytes,
    slots: usize,
    connections: usize,
    window: watch::Receiver<Option<Window>>,
    tally: Arc<Mutex<Tally>>,
}

impl Driver {
    async fn run(mut self, connected: mpsc::Sender<()>) -> Result<(), Failure> {
        let mut channels = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            channels.push(self.server.channel(&self.endpoint).await?);
        }
        if connected.send(()).is_err() {
            return Ok(());
        }
        drop(connected);
        let Ok(Some(window)) = self.window.wait_for(Option::is_some).await.map(|window| *window) else {
            return Ok(());
        };
        let mut slots = tokio::task::JoinSet::new();
        for channel in channels.iter().cycle().take(self.slots) {
            let limit = self.server.max_message_bytes();
            let slot = Slot {
                grpc: Grpc::new(channel.clone()).max_decoding_message_size(limit).max_encoding_message_size(limit),
                bearer: self.bearer.clone(),
                message: self.message.clone(),
                window,
                tally: self.tally.clone(),
            };
            slots.spawn(slot.run());
        }
        // Dropping the set cancels what is still out when the drain is over.
        let all = async { while slots.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(window.left() + DRAIN, all).await;
        Ok(())
    }
}

/// One request in flight after another.
struct Slot {
    grpc: Grpc<Channel>,
    bearer: Bearer,
    message: Bytes,
    window: Window,
    tally: Arc<Mutex<Tally>>,
}

impl Slot {
    async fn run(mut self) {
        loop {
            let begin = Instant::now();
            if self.window.is_over(begin) {
                return;
            }
            let outcome = self.send().await;
            let end = Instant::now();
            let failed = outcome.is_err();
            if self.window.counts(end) {
                self.tally.lock().unwrap_or_else(PoisonError::into_inner).count(outcome, end - begin);
            }
            if failed {
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }

    async fn send(&mut self) -> Result<(), Status> {
        let mut request = Request::new(self.message.clone());
        self.bearer.sign(&mut request);
        self.grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        self.grpc.unary(request, PathAndQuery::from_static(MODEL_INFER), Encoded).await.map(drop)
    }
}
