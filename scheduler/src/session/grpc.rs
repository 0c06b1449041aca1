//! The gRPC carrier's scheduler end: two streams a worker, each on a connection of its own.

use std::{collections::HashMap, sync::Arc, time::Duration, time::Instant};

use futures::{Stream, StreamExt, stream::BoxStream};
use orion_net::{FrameStream, FromWorker, KeepAlive, LEASE, WorkerLink, decode_from_worker, receive};
use orion_proto::session::{
    Frame, Pong, StandingRequest, StandingResponse, ToScheduler, ToWorker, Welcome,
    session_server::Session as SessionRpc, to_scheduler, to_worker,
};
use parking_lot::Mutex;
use prost::Message as _;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Session, control, refused,
    remote::{MAILBOX, RemoteWorker},
};
use crate::{jobs::seat::Seat, scheduler::Scheduler};

/// A worker says hello within this time.
const HELLO: Duration = Duration::from_secs(5);
/// Bytes of a hello: what the worker is, and the batches and jobs that it holds.
const HELLO_BYTES: usize = 48 * 1024;
/// Bytes of a result's tensors.
const RESULT_BYTES: u64 = 1 << 30;

/// `orion.session.v1.Session`.
#[derive(Clone)]
pub struct SessionService {
    scheduler: Arc<Scheduler>,
    open: Arc<Mutex<HashMap<u64, Open>>>,
    seat: watch::Receiver<Seat>,
}

#[derive(Clone)]
struct Open {
    session: Session,
    link: Arc<RemoteWorker>,
    keepalive: Arc<Mutex<KeepAlive>>,
    /// Known to the worker that was welcomed alone: without it, another could take its work and answer in its name.
    key: String,
    data_opened: bool,
}

impl SessionService {
    /// The service of this scheduler.
    pub fn new(scheduler: Arc<Scheduler>, seat: watch::Receiver<Seat>) -> Self {
        Self { scheduler, open: Arc::default(), seat }
    }

    async fn converse(self, mut messages: Streaming<ToScheduler>, mailbox: tokio::sync::mpsc::Sender<ToWorker>) {
        let hello = match tokio::time::timeout(HELLO, messages.next()).await {
            Ok(Some(Ok(ToScheduler { message: Some(to_scheduler::Message::Hello(hello)) })))
                if hello.encoded_len() <= HELLO_BYTES =>
            {
                hello
            }
            _ => {
                let text =
                    format!("the first control message must be a hello of at most {HELLO_BYTES} bytes, within 5 s");
                let error = orion_proto::Error::invalid(text);
                let _ = mailbox.send(ToWorker { message: Some(refused(&error)) }).await;
                return;
            }
        };
        let name = hello.name.clone();
        let link = Arc::new(RemoteWorker::new(mailbox.clone()));
        let keepalive = Arc::new(Mutex::new(KeepAlive::new(Instant::now(), LEASE)));
        let key = format!("{:032x}", rand::random::<u128>());
        // Registered under the lock that `data` takes: a worker that is quick finds its session.
        let elsewhere = self.seat.borrow().elsewhere();
        let opened: Result<(Session, Welcome), orion_proto::Error> = if let Some(error) = elsewhere {
            Err(error)
        } else {
            let mut open = self.open.lock();
            self.scheduler.open_session(hello, "grpc", link.clone()).inspect(|(session, _)| {
                let (session, link, keepalive) = (session.clone(), link.clone(), keepalive.clone());
                open.insert(session.number(), Open { session, link, keepalive, key: key.clone(), data_opened: false });
            })
        };
        match opened {
            Err(error) => {
                tracing::warn!(worker = name, %error, "worker_refused");
                let _ = mailbox.send(ToWorker { message: Some(refused(&error)) }).await;
            }
            Ok((session, welcome)) => {
                let number = session.number();
                link.control(to_worker::Message::Welcome(Welcome { key, ..welcome }));
                let messages = messages.map(|message| message.map_err(|status| status.message().to_owned()));
                let leaves = tokio::spawn(close_when_elsewhere(self.seat.clone(), link.clone()));
                control::run(session, link, keepalive, messages).await;
                leaves.abort();
                self.open.lock().remove(&number);
            }
        }
    }
}

/// Sends a worker away where another scheduler has come to lead.
async fn close_when_elsewhere(mut seat: watch::Receiver<Seat>, link: Arc<RemoteWorker>) {
    let why = seat.wait_for(|seat| seat.elsewhere().is_some()).await.ok().and_then(|seat| seat.elsewhere());
    if let Some(why) = why {
        link.close(&why.message);
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

    async fn standing(&self, _: Request<StandingRequest>) -> Result<Response<StandingResponse>, Status> {
        Ok(Response::new(StandingResponse { leads: matches!(*self.seat.borrow(), Seat::Leads(_)) }))
    }

    async fn data(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::DataStream>, Status> {
        let text = |name| request.metadata().get(name).and_then(|value| value.to_str().ok());
        let number = text("orion-session").and_then(|number| number.parse::<u64>().ok());
        let key = text("orion-session-key").unwrap_or_default();
        let mine = |open: &&mut Open| open.key.as_bytes().ct_eq(key.as_bytes()).into() && !open.data_opened;
        let open = number.and_then(|number| {
            let mut sessions = self.open.lock();
            let open = sessions.get_mut(&number).filter(mine)?;
            open.data_opened = true;
            Some(open.clone())
        });
        let refused = "metadata 'orion-session' and 'orion-session-key' name no session that waits for its data stream";
        let open = open.ok_or_else(|| Status::failed_precondition(refused))?;
        let outgoing = FrameStream(open.link.outbox.clone()).map(Ok).boxed();
        // Now it can be given work.
        open.session.start();
        let frames = request.into_inner().map(|frame| frame.map_err(|status| status.message().to_owned()));
        tokio::spawn(take_data(open, frames));
        Ok(Response::new(outgoing))
    }
}

async fn take_data<E: std::fmt::Display>(open: Open, frames: impl Stream<Item = Result<Frame, E>> + Unpin) {
    let ended = receive(frames, &open.link.outbox, RESULT_BYTES, |transfers| {
        open.keepalive.lock().frame(Instant::now());
        let mut told: Vec<FromWorker> = Vec::with_capacity(transfers.len());
        for transfer in transfers.drain(..) {
            match decode_from_worker(transfer) {
                Ok(FromWorker::Probe(sequence)) => open.link.control(to_worker::Message::Probed(Pong { sequence })),
                Ok(other) => told.push(other),
                Err(error) => return Err(error.message),
            }
        }
        if !told.is_empty() {
            open.session.take(told);
        }
        Ok(())
    });
    let reason = match ended.await {
        Ok(()) => "data connection closed".into(),
        Err(error) => format!("data connection broke: {error}"),
    };
    open.link.close(&reason);
}
