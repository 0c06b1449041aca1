//! Passing calls to the scheduler that leads.

use std::time::Duration;

use orion_proto::{Code, Error, jobs::jobs_client::JobsClient};
use tonic::{
    Request, Status,
    metadata::{MetadataMap, MetadataValue},
    transport::{Channel, Endpoint},
};

/// On a call that was passed on once: one that does not lead does not pass it on again.
const PASSED: &str = "orion-passed";
/// How long a connection may take, and how long one may be silent.
const PATIENCE: Duration = Duration::from_millis(500);
/// What of a client's metadata goes with its call.
const KEPT: [&str; 2] = ["authorization", "grpc-timeout"];
/// Bytes of an answer: a job's result and what is around it, or a page of jobs.
const ANSWER_BYTES: usize = 64 << 20;

/// Whether a call was passed on by another scheduler.
pub(super) fn was_passed(metadata: &MetadataMap) -> bool {
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

/// The service of the scheduler whose gRPC is there; it connects when it is called.
///
/// # Errors
/// INTERNAL where the address is none.
pub(super) fn client(address: &str) -> orion_proto::Result<JobsClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| {
        Error::new(Code::Internal, format!("the leader's address '{address}' must be HOST:PORT: {error}"))
    })?;
    let endpoint = endpoint.connect_timeout(PATIENCE).tcp_nodelay(true);
    // One that is gone without a word is noticed, or what was passed to it would wait.
    let endpoint =
        endpoint.http2_keep_alive_interval(PATIENCE).keep_alive_timeout(PATIENCE).keep_alive_while_idle(false);
    let client = JobsClient::new(endpoint.connect_lazy());
    Ok(client.max_decoding_message_size(ANSWER_BYTES).max_encoding_message_size(ANSWER_BYTES))
}
