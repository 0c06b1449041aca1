//! Passing calls to the scheduler that leads.

use std::{sync::Arc, time::Duration};

use orion_proto::{Code, Error, jobs::jobs_client::JobsClient};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::{
    Request, Response, Status,
    metadata::{MetadataMap, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::jobs::{Jobs, seat::Seat, view::View};

/// On a call that was passed on once: one that does not lead does not pass it on again.
const PASSED: &str = "orion-passed";
/// How long a connection may take, and how long one may be silent.
const PATIENCE: Duration = Duration::from_millis(500);
/// What of a client's metadata goes with its call.
const KEPT: [&str; 2] = ["authorization", "grpc-timeout"];
/// Bytes of an answer: a job's result and what is around it, or a page of jobs.
const ANSWER_BYTES: usize = 64 << 20;

/// Whether a call was passed on by another scheduler.
fn was_passed(metadata: &MetadataMap) -> bool {
    metadata.contains_key(PASSED)
}

/// The same call, as another scheduler's.
pub(super) fn passed<T>(metadata: &MetadataMap, message: T) -> Request<T> {
    let mut request = Request::new(message);
    for name in KEPT {
        if let Some(value) = metadata.get(name) {
            request.metadata_mut().insert(name, value.clone());
        }
    }
    request.metadata_mut().insert(PASSED, MetadataValue::from_static("1"));
    request
}

/// What a call to the leader came to: one that broke off, as when that dies, is UNAVAILABLE whatever its connection calls it.
pub(super) fn known(status: Status) -> Status {
    // What a server answered has no cause here.
    match std::error::Error::source(&status) {
        None => status,
        Some(cause) => Error::new(Code::Unavailable, format!("the scheduler that leads was lost: {cause}")).into(),
    }
}

/// A connection to the scheduler whose gRPC is there; it connects when it is called.
///
/// # Errors
/// INTERNAL where the address is none.
fn connection(address: &str) -> orion_proto::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| {
        Error::new(Code::Internal, format!("the leader's address '{address}' must be HOST:PORT: {error}"))
    })?;
    let endpoint = endpoint.connect_timeout(PATIENCE).tcp_nodelay(true);
    // One that is gone without a word is noticed, or what was passed to it would wait.
    let endpoint =
        endpoint.http2_keep_alive_interval(PATIENCE).keep_alive_timeout(PATIENCE).keep_alive_while_idle(false);
    Ok(endpoint.connect_lazy())
}

/// The jobs of the scheduler at the other end.
pub(super) fn jobs(leader: Channel) -> JobsClient<Channel> {
    let client = JobsClient::new(leader);
    client.max_decoding_message_size(ANSWER_BYTES).max_encoding_message_size(ANSWER_BYTES)
}

/// Who does what is asked.
pub(super) enum Doer {
    Here(Jobs),
    There(Channel),
}

/// Whoever runs the jobs, as the services of one scheduler see it.
#[derive(Clone)]
pub(super) struct Leading {
    seat: watch::Receiver<Seat>,
    /// The scheduler that was passed to last, and the connection to it.
    known: Arc<Mutex<Option<(String, Channel)>>>,
}

impl Leading {
    pub(super) fn new(seat: watch::Receiver<Seat>) -> Self {
        Self { seat, known: Arc::default() }
    }

    pub(super) fn view(&self) -> Result<Arc<View>, Status> {
        Ok(self.seat.borrow().view()?.clone())
    }

    /// Who does what this call asks.
    pub(super) fn doer(&self, metadata: &MetadataMap) -> Result<Doer, Status> {
        let seat = self.seat.borrow().clone();
        match seat {
            Seat::Leads(jobs) => Ok(Doer::Here(jobs)),
            Seat::Follows(..) if was_passed(metadata) => {
                Err(Error::new(Code::Unavailable, "the lead has just gone to another scheduler, ask again").into())
            }
            Seat::Follows(_, address) => {
                let mut known = self.known.lock();
                match &*known {
                    Some((last, leader)) if *last == address => Ok(Doer::There(leader.clone())),
                    _ => {
                        let leader = connection(&address)?;
                        *known = Some((address, leader.clone()));
                        Ok(Doer::There(leader))
                    }
                }
            }
            Seat::Vacant(error) => Err(error.into()),
        }
    }

    /// The leader, where another leads: what this scheduler knows may be a moment old.
    pub(super) fn there(&self, metadata: &MetadataMap) -> Option<Channel> {
        match self.doer(metadata) {
            Ok(Doer::There(leader)) => Some(leader),
            _ => None,
        }
    }

    /// The same over a connection of its own: streams that stay open would leave calls no room.
    pub(super) fn stream_there(&self, metadata: &MetadataMap) -> Result<Option<Channel>, Status> {
        match &*self.seat.borrow() {
            Seat::Follows(_, address) if !was_passed(metadata) => Ok(Some(connection(address)?)),
            _ => Ok(None),
        }
    }

    /// What this scheduler does not know, where another leads or led, may be there all the same.
    pub(super) fn unsure(&self, error: Error) -> Error {
        match (error.code, &*self.seat.borrow()) {
            (Code::NotFound, Seat::Follows(..)) => {
                Error::new(Code::Unavailable, format!("{}, as far as this scheduler knows; ask again", error.message))
            }
            _ => error,
        }
    }
}

/// What the leader answered; none where it cannot be reached.
pub(super) fn reached<T>(answer: Result<Response<T>, Status>) -> Option<Result<Response<T>, Status>> {
    match answer.map_err(known) {
        Err(status) if status.code() == tonic::Code::Unavailable => None,
        answer => Some(answer),
    }
}

/// Reads the journal where that may block.
pub(super) async fn off_thread<T: Send + 'static>(
    read: impl FnOnce() -> orion_proto::Result<T> + Send + 'static,
) -> orion_proto::Result<T> {
    let gone = |_| Error::new(Code::Internal, "reading the journal failed unexpectedly");
    tokio::task::spawn_blocking(read).await.map_err(gone)?
}
