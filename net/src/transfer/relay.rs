//! Connections between nodes that cannot reach each other, byte by byte through the scheduler that both have joined.

use bytes::Bytes;
use orion_proto::{
    Code, Error, Result,
    session::{Relayed, relay_client::RelayClient},
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, metadata::MetadataValue, transport::Endpoint};

use super::{
    limits::tuned,
    token::{PeerToken, Show},
};
use crate::root_cause;

/// What stands before a worker's name where a node is named by its address.
const SCHEME: &str = "relay:";
/// Bytes that one message carries, and that wait at an end.
const MESSAGE_BYTES: usize = 32 * 1024;
const WAITING_BYTES: usize = 256 * 1024;
/// Messages that wait to be sent.
const WAITING: usize = 4;
/// As much may be on the way to this end.
const WINDOW_BYTES: u32 = 4 << 20;

/// The address of a worker that is reached through its scheduler.
pub fn relayed(worker: &str) -> String {
    format!("{SCHEME}{worker}")
}

/// The worker that such an address names; nothing for another address.
pub fn relayed_worker(address: &str) -> Option<&str> {
    address.strip_prefix(SCHEME)
}

/// A node's way to others through its scheduler.
#[derive(Debug, Default)]
pub struct Relay {
    scheduler: Mutex<Option<String>>,
    token: Option<PeerToken>,
}

/// What a relayed connection is opened for.
enum End<'a> {
    Dial(&'a str),
    Accept(&'a str),
}

impl Relay {
    /// A way that is shut until a scheduler is known; it is shown this token.
    pub fn new(token: Option<PeerToken>) -> Self {
        Self { scheduler: Mutex::default(), token }
    }

    /// The session address of the scheduler that the node has joined.
    pub fn reached_at(&self, address: &str) {
        *self.scheduler.lock() = Some(address.to_owned());
    }

    /// A connection to a worker's peer service.
    ///
    /// # Errors
    /// UNAVAILABLE without a scheduler; what the scheduler says, such as NOT_FOUND for an unknown worker. That the worker does
    /// not answer is told by the connection's end.
    pub(super) async fn dial(&self, worker: &str) -> Result<DuplexStream> {
        self.open(End::Dial(worker)).await
    }

    /// The other end of a connection that somebody asked for.
    ///
    /// # Errors
    /// As for [`Self::dial`]; NOT_FOUND where nobody waits any more.
    pub(super) async fn accept(&self, ticket: &str) -> Result<DuplexStream> {
        self.open(End::Accept(ticket)).await
    }

    async fn open(&self, end: End<'_>) -> Result<DuplexStream> {
        let scheduler = self.scheduler.lock().clone();
        let scheduler =
            scheduler.ok_or_else(|| Error::new(Code::Unavailable, "no scheduler is joined that could relay"))?;
        let endpoint = Endpoint::from_shared(format!("http://{scheduler}"))
            .map_err(|_| Error::invalid(format!("scheduler address '{scheduler}' is not valid")))?;
        let channel = tuned(endpoint, WINDOW_BYTES).connect().await.map_err(|error| {
            let why = root_cause(&error);
            Error::new(Code::Unavailable, format!("the scheduler at {scheduler} cannot be reached: {why}"))
        })?;
        let mut client = RelayClient::with_interceptor(channel, Show(self.token.clone()));
        let (out, messages) = mpsc::channel(WAITING);
        let mut request = Request::new(ReceiverStream::new(messages));
        let (key, value) = match end {
            End::Dial(worker) => ("orion-relay-worker", worker),
            End::Accept(ticket) => ("orion-relay-ticket", ticket),
        };
        let value = MetadataValue::try_from(value).map_err(|_| Error::invalid("a worker's name is plain ASCII"))?;
        request.metadata_mut().insert(key, value);
        let opened = match end {
            End::Dial(_) => client.dial(request).await,
            End::Accept(_) => client.accept(request).await,
        };
        let incoming = opened.map_err(|status| Error::of_status(&status))?.into_inner();
        let (near, far) = tokio::io::duplex(WAITING_BYTES);
        let (read, write) = tokio::io::split(far);
        // Each end of either direction ends both: a peer's connection needs the two.
        tokio::spawn(async move {
            tokio::select! {
                () = send(read, out) => {}
                () = take(incoming, write) => {}
            }
        });
        Ok(near)
    }
}

/// Sends what the near end writes, until it is dropped.
async fn send(mut from: ReadHalf<DuplexStream>, out: mpsc::Sender<Relayed>) {
    let mut buffer = vec![0; MESSAGE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = Bytes::copy_from_slice(&buffer[..count]);
        if out.send(Relayed { bytes }).await.is_err() {
            return;
        }
    }
}

/// Hands over what comes, until it ends.
async fn take(mut incoming: Streaming<Relayed>, mut to: WriteHalf<DuplexStream>) {
    loop {
        match incoming.message().await {
            Ok(Some(message)) => {
                if to.write_all(&message.bytes).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(why = status.message(), "relayed_connection_ended");
                return;
            }
        }
    }
}
