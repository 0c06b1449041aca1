//! One session over gRPC, from connecting to its end: control and data, each on a connection of its own.

use std::{sync::Arc, time::Duration, time::Instant};

use futures::StreamExt;
use hyper_util::rt::TokioIo;
use orion_net::{FrameStream, KeepAlive, LossMeter, Outbox, WorkerLink, decode_batch, receive, root_cause};
use orion_proto::{
    PROTOCOL_MAJOR,
    session::{Frame, Hello, ToScheduler, ToWorker, Welcome, session_client::SessionClient, to_scheduler, to_worker},
};
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Streaming,
    codegen::http::Uri,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use super::{
    Ended, JoinOptions, control,
    remote::{MAILBOX, RemoteScheduler},
};
use crate::worker::{Worker, WorkerHandle};

const CONNECT: Duration = Duration::from_secs(5);
/// From connecting to the data stream: a listener that accepts and stays silent is no scheduler.
const OPEN: Duration = Duration::from_secs(8);
/// HTTP/2 windows: the session's own credit is the limit that counts.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

pub(super) async fn run(
    worker: &Arc<Worker>,
    address: &str,
    options: &JoinOptions,
    stop: watch::Receiver<bool>,
    welcomed: impl FnOnce(Duration, Arc<Mutex<KeepAlive>>),
) -> Ended {
    match converse(worker, address, options, stop, welcomed).await {
        Ok(()) => Ended::Left,
        Err(ended) => ended,
    }
}

/// A session that was opened.
struct Opened {
    hello: Hello,
    welcome: Welcome,
    scheduler: Arc<RemoteScheduler>,
    control: Streaming<ToWorker>,
    frames: Streaming<Frame>,
}

/// Connects, says hello, and opens the data stream after the welcome.
async fn open(worker: &Worker, address: &str, options: &JoinOptions) -> Result<Opened, Ended> {
    let (mailbox, messages) = mpsc::channel(MAILBOX);
    let said = worker.hello();
    let hello = ToScheduler { message: Some(to_scheduler::Message::Hello(said.clone())) };
    mailbox.send(hello).await.map_err(|_| Ended::Lost("the mailbox closed".into()))?;
    let (channel, _) = connect(address).await?;
    let mut client = SessionClient::new(channel);
    let request = authorised(Request::new(ReceiverStream::new(messages)), options)?;
    let mut control = client.control(request).await.map_err(status)?.into_inner();
    let welcome = welcome(&mut control).await?;
    let outbox: Arc<Mutex<Outbox>> = Arc::default();
    let mut request = authorised(Request::new(FrameStream(outbox.clone())), options)?;
    request.metadata_mut().insert("orion-session", MetadataValue::from(welcome.session));
    let key =
        MetadataValue::try_from(&welcome.key).map_err(|_| Ended::Lost("the welcome's key is unreadable".into()))?;
    request.metadata_mut().insert("orion-session-key", key);
    let (channel, loss) = connect(address).await?;
    let mut client = SessionClient::new(channel).max_decoding_message_size(128 * 1024);
    let frames = client.data(request).await.map_err(status)?.into_inner();
    Ok(Opened { hello: said, welcome, scheduler: Arc::new(RemoteScheduler { mailbox, outbox, loss }), control, frames })
}

async fn converse(
    worker: &Arc<Worker>,
    address: &str,
    options: &JoinOptions,
    mut stop: watch::Receiver<bool>,
    welcomed: impl FnOnce(Duration, Arc<Mutex<KeepAlive>>),
) -> Result<(), Ended> {
    let silent = |_| Ended::Lost(format!("no welcome within {} s", OPEN.as_secs()));
    let stopped = async {
        // With work in hand it goes on connecting, to deliver; the time-out ends that too.
        let _ = stop.wait_for(|stop| *stop).await;
        if !worker.is_idle() {
            std::future::pending::<()>().await;
        }
    };
    let opened = tokio::select! {
        opened = tokio::time::timeout(OPEN, open(worker, address, options)) => opened.map_err(silent)??,
        () = stopped => return Ok(()),
    };
    let Opened { hello, welcome, scheduler, control, frames } = opened;
    tracing::info!(scheduler = %address, session = welcome.session, epoch = welcome.epoch, "scheduler_joined");
    worker.joins(address);
    worker.attach(scheduler.clone(), welcome.epoch, &hello);
    let lease = Duration::from_millis(welcome.lease_ms.into());
    let keepalive = Arc::new(Mutex::new(KeepAlive::new(Instant::now(), lease)));
    welcomed(Duration::from_millis(welcome.work_lease_ms.into()), keepalive.clone());
    let handle = WorkerHandle(worker.clone());
    let frames = frames.map(|frame| frame.map_err(|status| status.message().to_owned()));
    let data = receive(frames, &scheduler.outbox, options.max_batch_bytes, |transfers| {
        keepalive.lock().frame(Instant::now());
        for transfer in transfers.drain(..) {
            handle.run(decode_batch(transfer).map_err(|error| error.message)?);
        }
        Ok(())
    });
    let ended = tokio::select! {
        ended = control::run(worker, &scheduler, &keepalive, control, stop) => ended,
        ended = data => Err(Ended::Lost(match ended {
            Ok(()) => "the data connection closed".into(),
            Err(error) => format!("the data connection broke: {error}"),
        })),
    };
    scheduler.outbox.lock().close();
    ended
}

/// A connection, and what tells its losses.
async fn connect(address: &str) -> Result<(Channel, Option<LossMeter>), Ended> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Ended::Refused(format!("address '{address}' is not HOST:PORT: {error}")))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let (told, meter) = std::sync::mpsc::channel();
    let target = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (told, target) = (told.clone(), target.clone());
        async move {
            let stream = tokio::time::timeout(CONNECT, TcpStream::connect(target)).await??;
            stream.set_nodelay(true)?;
            // Without it only the losses are not known.
            let _ = told.send(LossMeter::new(&stream));
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|error| Ended::Lost(format!("cannot connect: {}", root_cause(&error))))?;
    Ok((channel, meter.try_recv().ok().and_then(Result::ok)))
}

pub(super) fn authorised<T>(mut request: Request<T>, options: &JoinOptions) -> Result<Request<T>, Ended> {
    if let Some(token) = &options.token {
        let value = MetadataValue::try_from(format!("Bearer {token}"));
        let value =
            value.map_err(|_| Ended::Refused("the token holds characters that a header cannot carry".into()))?;
        request.metadata_mut().insert("authorization", value);
    }
    Ok(request)
}

fn status(status: tonic::Status) -> Ended {
    match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied | tonic::Code::FailedPrecondition => {
            Ended::Refused(status.message().to_owned())
        }
        _ => Ended::Lost(status.message().to_owned()),
    }
}

async fn welcome(control: &mut Streaming<ToWorker>) -> Result<Welcome, Ended> {
    let first = control.message().await.map_err(status)?;
    match first.and_then(|first| first.message) {
        Some(to_worker::Message::Welcome(welcome)) if welcome.protocol_major == PROTOCOL_MAJOR => Ok(welcome),
        Some(to_worker::Message::Welcome(welcome)) => Err(Ended::Refused(format!(
            "session protocol {}.{} of the scheduler is unknown, this worker speaks {PROTOCOL_MAJOR}",
            welcome.protocol_major, welcome.protocol_minor
        ))),
        Some(to_worker::Message::Refused(refused)) => Err(Ended::Refused(refused.reason)),
        _ => Err(Ended::Lost("the scheduler did not answer hello with a welcome".into())),
    }
}
