//! What a request says beside its body: when it came and from where, how long it may take, whose it is, where it goes.

mod timeout;

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use orion_proto::{Code, Error, InferRequest, JobAttempt, Parameters, Priority, Result, routing_key};

use crate::jobs::request_id as jobs_request_id;

const TENANT: &str = "x-orion-tenant";
const ROUTING_KEY: &str = "x-orion-routing-key";
/// What many clients and proxies call a request by.
pub(super) const REQUEST_ID: &str = "x-request-id";
/// Bytes of a tenant's name.
const LONGEST_TENANT: usize = 64;
/// Bytes of an `x-request-id`.
const LONGEST_REQUEST_ID: usize = 128;

/// When a request's head came, and from which address. Noted before the body is read: a body on a slow link takes of
/// the request's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(super) at: Instant,
    from: Option<IpAddr>,
    /// Where no client asks, but a job.
    job: Option<ForJob>,
}

/// What a job says of its request.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the names say it
pub(crate) struct ForJob {
    pub(crate) attempt: JobAttempt,
    pub(crate) priority: Priority,
    /// Of its time.
    pub(crate) left: Option<Duration>,
}

impl Arrival {
    pub(super) fn now(from: Option<IpAddr>) -> Self {
        Self { at: Instant::now(), from, job: None }
    }

    /// Of a job's request.
    pub(crate) fn of_job(job: ForJob) -> Self {
        Self { job: Some(job), ..Self::now(None) }
    }

    /// Of a call that passed [`note_arrival`].
    pub(super) fn of_call<T>(request: &tonic::Request<T>) -> Self {
        let noted = request.extensions().get::<Self>().copied();
        noted.unwrap_or_else(|| Self::now(request.remote_addr().map(|peer| peer.ip())))
    }
}

/// Of a request that came through the HTTP server.
impl<S: Send + Sync> FromRequestParts<S> for Arrival {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_else(|| Self::now(None)))
    }
}

/// Notes a gRPC call's [`Arrival`], for the service behind it.
#[allow(clippy::result_large_err)] // tonic's own type
pub(crate) fn note_arrival(mut call: tonic::Request<()>) -> std::result::Result<tonic::Request<()>, tonic::Status> {
    let from = call.remote_addr().map(|peer| peer.ip());
    call.extensions_mut().insert(Arrival::now(from));
    Ok(call)
}

/// What a request's headers ask for; a stream's hold for each of its requests.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    deadline: Option<Instant>,
    /// When a gRPC call is over whatever the scheduler says.
    call_ends: Option<Instant>,
    tenant: Option<Arc<str>>,
    routing_key: Option<u64>,
    request_id: Option<Arc<str>>,
    job: Option<ForJob>,
}

impl Terms {
    /// Of an HTTP request.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the header that is wrong.
    pub(super) fn of_http(headers: &HeaderMap, arrival: Arrival) -> Result<Self> {
        let timeout = one(headers, timeout::HTTP)?.map(timeout::of_http).transpose()?;
        let timeout = arrival.job.and_then(|job| job.left).into_iter().chain(timeout).min();
        let deadline = timeout.and_then(|timeout| arrival.at.checked_add(timeout));
        Ok(Self { deadline, ..Self::new(headers, arrival)? })
    }

    /// Of a gRPC call.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the metadata that is wrong.
    pub(super) fn of_grpc(metadata: &HeaderMap, arrival: Arrival) -> Result<Self> {
        let timeout = one(metadata, timeout::GRPC)?.map(timeout::of_grpc).transpose()?;
        let ends = |timeout| arrival.at.checked_add(timeout);
        let deadline = timeout.map(|timeout| timeout.saturating_sub(timeout::BEFORE_THE_LIBRARY)).and_then(ends);
        Ok(Self { deadline, call_ends: timeout.and_then(ends), ..Self::new(metadata, arrival)? })
    }

    fn new(headers: &HeaderMap, arrival: Arrival) -> Result<Self> {
        let key = one(headers, ROUTING_KEY)?.map(routing_key);
        let address = || arrival.from.map(|address| routing_key(&address.to_canonical().to_string()));
        let tenant = one(headers, TENANT)?.map(tenant).transpose()?;
        let request_id = one(headers, REQUEST_ID)?.map(request_id).transpose()?;
        let (job, of_job) = (arrival.job, |job: ForJob| Arc::from(jobs_request_id(job.attempt)));
        let request_id = job.map(of_job).or(request_id);
        Ok(Self { deadline: None, call_ends: None, tenant, routing_key: key.or_else(address), request_id, job })
    }

    /// What the header calls the request.
    pub(super) fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Waits for a gRPC call's answer no longer than the call lasts. The scheduler's own clock is the first to end, unless
    /// this thread was kept waiting between both.
    ///
    /// # Errors
    /// Those of the answer; DEADLINE_EXCEEDED.
    pub(super) async fn in_time<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(end) = self.call_ends else { return answer.await };
        let over = |_| Error::new(Code::DeadlineExceeded, "the call's time ran out");
        tokio::time::timeout_at(end.into(), answer).await.map_err(over)?
    }

    /// Adds them to a request. The earlier of both deadlines holds, and the request's own routing key and id before the
    /// headers'. `arrived` is when the request's own `timeout` began; what has passed since is taken off.
    pub(super) fn apply(&self, request: &mut InferRequest, arrived: Instant) {
        self.apply_at(&mut request.parameters, arrived, Instant::now());
        if let (true, Some(id)) = (request.id.is_empty(), &self.request_id) {
            request.id = id.to_string();
        }
        if let Some(job) = self.job {
            (request.parameters.priority, request.parameters.of_job) = (job.priority, true);
            // What generates is begun anew where its scheduler dies.
            request.parameters.job = request.generation.is_none().then_some(job.attempt);
        }
    }

    fn apply_at(&self, parameters: &mut Parameters, arrived: Instant, now: Instant) {
        let own = parameters.timeout.and_then(|timeout| arrived.checked_add(timeout));
        let deadline = own.into_iter().chain(self.deadline).min();
        parameters.timeout = deadline.map(|deadline| deadline.saturating_duration_since(now));
        parameters.tenant.clone_from(&self.tenant);
        parameters.routing_key = parameters.routing_key.or(self.routing_key);
    }
}

/// A header that may be given once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::invalid(format!("header '{name}' is given several times, it must be given once")));
    }
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Error::invalid(format!("header '{name}' is not UTF-8"))),
    }
}

fn tenant(name: &str) -> Result<Arc<str>> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match (1..=LONGEST_TENANT).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(Arc::from(name)),
        false => Err(Error::invalid(format!(
            "header '{TENANT}' is '{}', it must be 1 to {LONGEST_TENANT} of the characters A-Z a-z 0-9 . _ -",
            shown(name)
        ))),
    }
}

fn request_id(id: &str) -> Result<Arc<str>> {
    match (1..=LONGEST_REQUEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(Arc::from(id)),
        false => Err(Error::invalid(format!(
            "header '{REQUEST_ID}' is '{}', it must be 1 to {LONGEST_REQUEST_ID} visible ASCII characters",
            shown(id)
        ))),
    }
}

/// A header's value as a message may repeat it.
fn shown(value: &str) -> String {
    super::http::reply::excerpt(value)
}

#[cfg(test)]
mod tests;
