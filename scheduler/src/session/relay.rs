//! Chunks of models between workers of which neither can reach the other: their connection goes through here, byte by byte.
//!
//! It goes beside the sessions, no faster than it may, and what it carries is not looked at: the two ends check all of it.

mod pace;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use orion_proto::{
    Code, Error,
    session::{Relayed, RelayedConnection, relay_server::Relay, to_worker},
};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::pace::Pace;
use crate::scheduler::Scheduler;

/// Connections at once.
const MOST: usize = 128;
/// A worker that was asked for takes its end within this time.
const ACCEPT: Duration = Duration::from_secs(10);
/// Bytes that a message counts for at least, and encoded has at most.
const LEAST_BYTES: u64 = 512;
pub(crate) const RELAYED_BYTES: usize = 65 * 1024;
/// Messages that wait for an end to take them.
const WAITING: usize = 4;

type Out = mpsc::Sender<Result<Relayed, Status>>;

/// What was relayed since the scheduler started.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    bytes: AtomicU64,
    connections: AtomicU64,
}

impl Traffic {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Those that are open.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }
}

/// `orion.session.v1.Relay`.
#[derive(Clone)]
pub struct RelayService {
    scheduler: Arc<Scheduler>,
    waiting: Arc<Mutex<HashMap<String, Dialled>>>,
    room: Arc<Semaphore>,
    pace: Arc<Pace>,
}

/// Whoever asked for a worker that has not answered.
struct Dialled {
    incoming: Streaming<Relayed>,
    out: Out,
    room: OwnedSemaphorePermit,
}

impl RelayService {
    /// The service of this scheduler, for so many bytes a second over all connections; 0: it relays nothing.
    pub fn new(scheduler: Arc<Scheduler>, bytes_per_second: u64) -> Self {
        let room = Arc::new(Semaphore::new(if bytes_per_second == 0 { 0 } else { MOST }));
        Self { scheduler, waiting: Arc::default(), room, pace: Arc::new(Pace::new(bytes_per_second)) }
    }

    fn called(&self, request: &Request<Streaming<Relayed>>, key: &'static str) -> Result<String, Status> {
        let value = request.metadata().get(key).and_then(|value| value.to_str().ok());
        value.map(str::to_owned).ok_or_else(|| Error::invalid(format!("metadata '{key}' is missing")).into())
    }
}

#[tonic::async_trait]
impl Relay for RelayService {
    type DialStream = BoxStream<'static, Result<Relayed, Status>>;
    type AcceptStream = BoxStream<'static, Result<Relayed, Status>>;

    async fn dial(&self, request: Request<Streaming<Relayed>>) -> Result<Response<Self::DialStream>, Status> {
        let worker = self.called(&request, "orion-relay-worker")?;
        let room = self.room.clone().try_acquire_owned().map_err(|_| match self.pace.is_shut() {
            true => Error::new(Code::PermissionDenied, "this scheduler relays nothing (--relay-mb-per-second 0)"),
            false => Error::new(Code::ResourceExhausted, format!("{MOST} connections are relayed, as many as may be")),
        })?;
        let link = self.scheduler.core().relayed_link(&worker)?;
        let (out, messages) = mpsc::channel(WAITING);
        let ticket = format!("{:032x}", rand::random::<u128>());
        let dialled = Dialled { incoming: request.into_inner(), out, room };
        self.waiting.lock().insert(ticket.clone(), dialled);
        link.control(to_worker::Message::Relayed(RelayedConnection { ticket: ticket.clone() }));
        let waiting = self.waiting.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ACCEPT).await;
            let Some(dialled) = waiting.lock().remove(&ticket) else { return };
            let error = Error::new(Code::Unavailable, format!("worker '{worker}' did not answer through the relay"));
            let _ = dialled.out.try_send(Err(error.into()));
        });
        Ok(Response::new(ReceiverStream::new(messages).boxed()))
    }

    async fn accept(&self, request: Request<Streaming<Relayed>>) -> Result<Response<Self::AcceptStream>, Status> {
        let ticket = self.called(&request, "orion-relay-ticket")?;
        let Dialled { incoming: dialler, out: to_dialler, room } = self
            .waiting
            .lock()
            .remove(&ticket)
            .ok_or_else(|| Error::new(Code::NotFound, "nobody waits for this relayed connection"))?;
        let (to_worker, messages) = mpsc::channel(WAITING);
        let (worker, pace) = (request.into_inner(), self.pace.clone());
        let scheduler = self.scheduler.clone();
        tokio::spawn(async move {
            let _room = room;
            let traffic = scheduler.relayed();
            traffic.connections.fetch_add(1, Relaxed);
            // The end of one direction ends both.
            tokio::select! {
                () = carry(dialler, to_worker, &pace, traffic) => {}
                () = carry(worker, to_dialler, &pace, traffic) => {}
            }
            traffic.connections.fetch_sub(1, Relaxed);
        });
        Ok(Response::new(ReceiverStream::new(messages).boxed()))
    }
}

/// Hands on what comes at one end to the other, until either ends.
async fn carry(mut from: Streaming<Relayed>, to: Out, pace: &Pace, traffic: &Traffic) {
    while let Ok(Some(message)) = from.message().await {
        let bytes = message.bytes.len() as u64;
        // One without bytes takes time too.
        pace.pass(bytes.max(LEAST_BYTES)).await;
        traffic.bytes.fetch_add(bytes, Relaxed);
        if to.send(Ok(message)).await.is_err() {
            return;
        }
    }
}
