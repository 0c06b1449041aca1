//! What other nodes may ask of this one.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::Stream;
use orion_proto::{
    Code, Error, Result,
    peer::{
        self as wire, FindRequest, ListRequest, ListResponse, Part,
        peer_server::{Peer, PeerServer},
    },
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Server, server::Router},
};

use super::{
    accepted::{Caller, accepted},
    fetch::Fetch,
    held::Held,
    limits::{KEEP_ALIVE, MESSAGE_BYTES, STREAM_BYTES, parts},
    node::Node,
    pull::Begun,
    sending::Way,
};
use crate::{
    artifact::{Artifact, Hash, MOST_MANIFEST_BYTES},
    swarm::Bitmap,
};

type Answer<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;

impl Node {
    /// Answers other nodes until the listener fails or `stop` is done.
    ///
    /// # Errors
    /// INTERNAL where the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<()> {
        let served = self.router().serve_with_incoming_shutdown(accepted(listener), stop).await;
        served.map_err(|error| Error::new(Code::Internal, format!("the peer listener failed: {error}")))
    }

    /// Answers a node that cannot reach this one and asked for it at the scheduler, where it holds this ticket; its requests are
    /// answered until it ends, after this has returned.
    ///
    /// # Errors
    /// What the scheduler says; UNAVAILABLE where it cannot be reached.
    pub async fn serve_relayed(self, ticket: &str) -> Result<()> {
        let relay = self.0.relay.clone();
        let relay = relay.ok_or_else(|| Error::new(Code::Unavailable, "this node is reached through no scheduler"))?;
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(relay.accept(ticket).await?));
        let served = self.router().serve_with_incoming(incoming).await;
        served.map_err(|error| Error::new(Code::Internal, format!("a relayed connection failed: {error}")))
    }

    pub(super) fn router(self) -> Router {
        let token = self.0.token.clone();
        let check = move |request: Request<()>| match &token {
            Some(token) => token.check(&request).map(|()| request),
            None => Ok(request),
        };
        let service = PeerServer::new(self).max_decoding_message_size(MESSAGE_BYTES);
        Server::builder()
            .initial_stream_window_size(STREAM_BYTES)
            .initial_connection_window_size(STREAM_BYTES)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .add_service(InterceptedService::new(service, check))
    }

    /// The sending end of a connection: what this node has of an artifact, as the receiver asks for it, until it ends.
    /// Whether the receiver had all of it then; an error where it did what it may not. `has_begun` where this node has said already what it has.
    pub(super) async fn send(
        &self,
        held: Arc<Held>,
        way: Way,
        begin: wire::Begin,
        mut messages: Streaming<wire::FromReceiver>,
        has_begun: bool,
    ) -> Result<bool> {
        let count = held.chunks().stored().pieces.len();
        let mut has = Bitmap::from_bytes(count, &begin.bitmap).map_err(|error| Error::invalid(error.to_string()))?;
        let mut ended = Ok(());
        let receiver = self.joined(held, has.clone(), begin.address.clone(), way, !has_begun);
        // An end that is no clean one is an end too.
        while let Ok(Some(wire::FromReceiver { message: Some(message) })) = messages.message().await {
            if let wire::from_receiver::Message::Have(have) = &message {
                have.chunks.iter().for_each(|chunk| _ = has.insert(*chunk as usize));
            }
            if let Err(wrong) = self.heard(receiver, message) {
                tracing::warn!(peer = begin.address, wrong, "receiver_refused");
                ended = Err(Error::invalid(wrong));
                break;
            }
        }
        let seen = self.left(receiver);
        tracing::debug!(peer = begin.address, ?seen, "receiver_left");
        ended.map(|()| has.is_full())
    }

    /// What a sender says first; under its lock, so that the receiver hears of each chunk that comes later.
    pub(super) fn sender_begins(&self, held: &Held) -> wire::Begin {
        wire::Begin {
            root: Bytes::copy_from_slice(held.chunks().stored().artifact.root.as_bytes()),
            bitmap: held.have().to_bytes().into(),
            address: self.0.address.clone(),
            // Whoever had all of it before anybody asked is spared.
            origin: matches!(held, Held::Whole(..)),
            ..Default::default()
        }
    }

    fn find_held(&self, request: &FindRequest) -> Result<Arc<Held>> {
        if !request.root.is_empty() {
            let root = Hash::from_slice(&request.root).map_err(|_| Error::invalid("a root has 32 bytes"))?;
            return self.held(&root);
        }
        let version = (!request.version.is_empty()).then_some(request.version.as_str());
        match self.0.store.find(&request.name, version) {
            Ok(root) => self.held(&root),
            // It may be on its way here.
            Err(error) => {
                let coming = self.coming_named(&request.name, version);
                coming.map_or(Err(error), |fetch| Ok(Arc::new(Held::Coming(fetch))))
            }
        }
    }
}

#[tonic::async_trait]
impl Peer for Node {
    async fn list(&self, _request: Request<ListRequest>) -> std::result::Result<Response<ListResponse>, Status> {
        let node = self.clone();
        let listed = tokio::task::spawn_blocking(move || node.artifacts()).await;
        let listed = listed.map_err(|_| Status::internal("the store failed unexpectedly"))?;
        let entry = |(stored, whole): (Arc<crate::store::Stored>, bool)| wire::Entry {
            name: stored.artifact.manifest.name.to_string(),
            version: stored.artifact.manifest.version.to_string(),
            root: Bytes::copy_from_slice(stored.artifact.root.as_bytes()),
            bytes: stored.artifact.manifest.bytes(),
            whole,
        };
        Ok(Response::new(ListResponse { artifacts: listed.into_iter().map(entry).collect() }))
    }

    type FindStream = Answer<Part>;

    async fn find(&self, request: Request<FindRequest>) -> std::result::Result<Response<Self::FindStream>, Status> {
        let held = self.find_held(&request.into_inner())?;
        let bytes = Bytes::from(held.chunks().stored().artifact.encode());
        let parts: Vec<_> = parts(&bytes).map(|bytes| Ok(Part { bytes })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    type DownloadStream = Answer<wire::FromSender>;

    async fn download(
        &self,
        request: Request<Streaming<wire::FromReceiver>>,
    ) -> std::result::Result<Response<Self::DownloadStream>, Status> {
        let loss = request.extensions().get::<Caller>().and_then(|from| from.loss.clone());
        let mut messages = request.into_inner();
        let Some(wire::FromReceiver { message: Some(wire::from_receiver::Message::Begin(begin)) }) =
            messages.message().await?
        else {
            return Err(Error::invalid("a receiver must begin with what it has").into());
        };
        let held = self.find_held(&FindRequest { root: begin.root.clone(), ..Default::default() })?;
        let (out, answers) = mpsc::unbounded_channel();
        let node = self.clone();
        let (refuse, refused) = oneshot::channel::<std::result::Result<wire::FromSender, Status>>();
        tokio::spawn(async move {
            if let Err(error) = node.send(held, Way { out, loss }, begin, messages, false).await {
                // Whoever has gone hears nothing more.
                let _ = refuse.send(Err(Status::from(error)));
            }
        });
        // After all that was said, what was wrong, if anything.
        let refused = futures::stream::once(refused).filter_map(|refused| refused.ok());
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(answers).map(Ok).chain(refused))))
    }

    async fn exchange(
        &self,
        request: Request<Streaming<wire::Numbers>>,
    ) -> std::result::Result<Response<wire::ExchangeEnd>, Status> {
        self.take_numbers(request.into_inner()).await?;
        Ok(Response::new(wire::ExchangeEnd {}))
    }

    type TrainingStateStream = Answer<Part>;

    async fn training_state(
        &self,
        request: Request<wire::TrainingStateRequest>,
    ) -> std::result::Result<Response<Self::TrainingStateStream>, Status> {
        let state = self.offered_state(&request.into_inner()).await?;
        let parts: Vec<_> = parts(&state).map(|bytes| Ok(Part { bytes })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    type UploadStream = Answer<wire::FromReceiver>;

    async fn upload(
        &self,
        request: Request<Streaming<wire::FromSender>>,
    ) -> std::result::Result<Response<Self::UploadStream>, Status> {
        if !self.0.accepts_uploads {
            return Err(Error::new(Code::PermissionDenied, "this node takes no uploads").into());
        }
        // Through the scheduler nodes are asked for what they have, and no more: they opened no port.
        let Some(from) = request.extensions().get::<Caller>() else {
            return Err(Error::new(Code::PermissionDenied, "this node takes no uploads through a relay").into());
        };
        let from = from.address.map(|address| address.to_string()).unwrap_or_default();
        let mut messages = request.into_inner();
        let (artifact, begin) = offered(&mut messages).await?;
        let root = artifact.root;
        let (out, answers) = mpsc::unbounded_channel();
        match self.begin(artifact).await? {
            Begun::Fetch(fetch) => {
                let (first, said) = fetch.begin();
                let _ = out.send(first);
                self.take_upload(fetch, from, out, (begin, said), messages);
            }
            Begun::Done(_) => {
                // Nothing is missing: it says so, and ends.
                let stored = self.0.store.get(&root)?;
                let bitmap = Bitmap::full(stored.pieces.len()).to_bytes().into();
                let begin = wire::Begin { root: begin.root, bitmap, ..Default::default() };
                let message = wire::from_receiver::Message::Begin(begin);
                let _ = out.send(wire::FromReceiver { message: Some(message) });
            }
        }
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(answers).map(Ok))))
    }
}

impl Node {
    fn take_upload(
        &self,
        fetch: Arc<Fetch>,
        from: String,
        out: mpsc::UnboundedSender<wire::FromReceiver>,
        (begin, said): (wire::Begin, Bitmap),
        messages: Streaming<wire::FromSender>,
    ) {
        let node = self.clone();
        // Who offers it may be reached by others too.
        self.dial_told(&fetch, &begin.address);
        tokio::spawn(async move {
            fetch.tick();
            if let Err(why) = node.receive_begun(&fetch, &from, out, (&begin, &said), messages).await {
                tracing::debug!(peer = from, why, "sender_left");
            }
        });
    }
}

/// What a sender offers: the artifact itself comes in parts before anything else.
async fn offered(messages: &mut Streaming<wire::FromSender>) -> std::result::Result<(Artifact, wire::Begin), Status> {
    let mut bytes = Vec::new();
    loop {
        let Some(wire::FromSender { message: Some(wire::from_sender::Message::Begin(begin)) }) =
            messages.message().await?
        else {
            return Err(Error::invalid("a sender must begin with what it has").into());
        };
        bytes.extend_from_slice(&begin.artifact);
        let total = usize::try_from(begin.artifact_bytes).unwrap_or(usize::MAX);
        if total > MOST_MANIFEST_BYTES || bytes.len() > total || (begin.artifact.is_empty() && bytes.len() < total) {
            return Err(Error::invalid(format!("a manifest of {total} bytes is not taken, or is not whole")).into());
        }
        if bytes.len() == total {
            return Ok((Artifact::decode(&bytes)?, begin));
        }
    }
}
