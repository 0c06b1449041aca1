//! The gRPC carrier's scheduler end: two streams a worker, each on a connection of its own.

use std::{collections::HashMap, sync::Arc, time::Duration, time::Instant};

use futures::{Stream, StreamExt, stream::BoxStream};
use orion_net::{BatchResult, FrameStream, FromWorker, KeepAlive, LEASE, WorkerLink, decode_from_worker, receive};
use orion_proto::session::{
    Frame, Pong, ToScheduler, ToWorker, Welcome, session_server::Session as SessionRpc, to_scheduler, to_worker,
};
use parking_lot::Mutex;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Session, control, refused,
    remote::{MAILBOX, RemoteWorker},
};
use crate::scheduler::Scheduler;

/// A worker says hello within this time.
const HELLO: Duration = Duration::from_secs(5);
/// Bytes of a result's tensors.
const RESULT_BYTES: u64 = 4 << 30;

/// `orion.session.v1.Session`.
#[derive(Clone)]
pub struct SessionService {
    scheduler: Arc<Scheduler>,
    open: Arc<Mutex<HashMap<u64, Open>>>,
}

#[derive(Clone)]
struct Open {
    session: Session,
    link: Arc<RemoteWorker>,
    keepalive: Arc<Mutex<KeepAlive>>,
}

impl SessionService {
    /// The service of this scheduler.
    pub fn new(scheduler: Arc<Scheduler>) -> Self {
        Self { scheduler, open: Arc::default() }
    }

    async fn converse(self, mut messages: Streaming<ToScheduler>, mailbox: tokio::sync::mpsc::Sender<ToWorker>) {
        let hello = match tokio::time::timeout(HELLO, messages.next()).await {
            Ok(Some(Ok(ToScheduler { message: Some(to_scheduler::Message::Hello(hello)) }))) => hello,
            _ => {
                let error = orion_proto::Error::invalid("the first control message must be a hello, within 5 s");
                let _ = mailbox.send(ToWorker { message: Some(refused(&error)) }).await;
                return;
            }
        };
        let name = hello.name.clone();
        let link = Arc::new(RemoteWorker::new(mailbox.clone()));
        let keepalive = Arc::new(Mutex::new(KeepAlive::new(Instant::now(), LEASE)));
        // Registered under the lock that `data` takes: a worker that is quick finds its session.
        let opened: Result<(Session, Welcome), orion_proto::Error> = {
            let mut open = self.open.lock();
            self.scheduler.open_session(hello, "grpc", link.clone()).inspect(|(session, _)| {
                let entry = Open { session: session.clone(), link: link.clone(), keepalive: keepalive.clone() };
                open.insert(session.number, entry);
            })
        };
        match opened {
            Err(error) => {
                tracing::warn!(worker = name, %error, "worker_refused");
                let _ = mailbox.send(ToWorker { message: Some(refused(&error)) }).await;
            }
            Ok((session, welcome)) => {
                let number = session.number;
                link.control(to_worker::Message::Welcome(welcome));
                session.start();
                control::run(session, link, keepalive, messages).await;
                self.open.lock().remove(&number);
            }
        }
    }
}

#[tonic::async_trait]
impl SessionRpc for SessionService {
    type ControlStream = BoxStream<'static, Result<ToWorker, Status>>;
    type DataStream = BoxStream<'static, Result<Frame, Status>>;

    async fn control(&self, request: Request<Streaming<ToScheduler>>) -> Result<Response<Self::ControlStream>, Status> {
        let (mailbox, messages) = tokio::sync::mpsc::channel(MAILBOX);
        tokio::spawn(self.clone().converse(request.into_inner(), mailbox));
        Ok(Response::new(ReceiverStream::new(messages).map(Ok).boxed()))
    }

    async fn data(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::DataStream>, Status> {
        let number = request.metadata().get("orion-session").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let open = number.and_then(|number: u64| self.open.lock().get(&number).cloned());
        let open = open.ok_or_else(|| Status::failed_precondition("metadata 'orion-session' names no open session"))?;
        let outgoing = FrameStream(open.link.outbox.clone()).map(Ok).boxed();
        tokio::spawn(take_data(open, request.into_inner()));
        Ok(Response::new(outgoing))
    }
}

async fn take_data<E: std::fmt::Display>(open: Open, frames: impl Stream<Item = Result<Frame, E>> + Unpin) {
    let ended = receive(frames, &open.link.outbox, RESULT_BYTES, |transfers| {
        open.keepalive.lock().frame(Instant::now());
        let mut results: Vec<BatchResult> = Vec::with_capacity(transfers.len());
        for transfer in transfers.drain(..) {
            match decode_from_worker(transfer) {
                Ok(FromWorker::Result(result)) => results.push(result),
                Ok(FromWorker::Probe(sequence)) => open.link.control(to_worker::Message::Probed(Pong { sequence })),
                Err(error) => return Err(error.message),
            }
        }
        if !results.is_empty() {
            open.session.results(results);
        }
        Ok(())
    });
    let reason = match ended.await {
        Ok(()) => "data connection closed".into(),
        Err(error) => format!("data connection broke: {error}"),
    };
    open.link.close(&reason);
}
