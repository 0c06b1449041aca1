//! Fetching an artifact from the nodes that have it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use orion_proto::{
    Code, Error, Result,
    peer::{self as wire, FindRequest, peer_client::PeerClient},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use super::{
    fetch::{Fetch, Progress, Sender},
    limits::{KEEP_ALIVE, MESSAGE_BYTES, STREAM_BYTES},
    node::Node,
    token::{PeerToken, Show},
};
use crate::{
    Backoff,
    artifact::{Artifact, Hash, MOST_MANIFEST_BYTES},
    origin::{Location, shown},
    root_cause,
    swarm::Bitmap,
};

const CONNECT: Duration = Duration::from_secs(5);
/// Whether another process has finished is looked at so often.
const POLL: Duration = Duration::from_millis(200);

/// A peer that cannot be reached is tried again after so long at first, and at most.
const RETRY: Duration = Duration::from_millis(200);
const MOST_RETRY: Duration = Duration::from_secs(3);

/// A peer that gave nothing for so long, whatever it did, is given up.
const PATIENCE: Duration = Duration::from_secs(12);

/// Which artifact.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// A name, and a version or the last.
    Named(String, Option<String>),
    /// Exactly this one.
    Root(Hash),
}

pub(super) type Client = PeerClient<InterceptedService<Channel, Show>>;

/// A client of another node.
///
/// # Errors
/// INVALID_ARGUMENT where the address is none, UNAVAILABLE where nobody answers.
pub(super) async fn connect(address: &str, token: Option<&PeerToken>) -> Result<Client> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| Error::invalid(format!("peer address '{address}' is not valid, it must be HOST:PORT")))?;
    let channel = endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_BYTES)
        .initial_connection_window_size(STREAM_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .connect()
        .await
        .map_err(|error| {
            Error::new(Code::Unavailable, format!("peer {address} cannot be reached: {}", root_cause(&error)))
        })?;
    Ok(PeerClient::with_interceptor(channel, Show(token.cloned())).max_decoding_message_size(MESSAGE_BYTES))
}

/// The artifact that a node has under a name or root.
async fn find(address: &str, token: Option<&PeerToken>, wanted: &Wanted) -> Result<Artifact> {
    let request = match wanted {
        Wanted::Named(name, version) => {
            FindRequest { name: name.clone(), version: version.clone().unwrap_or_default(), ..Default::default() }
        }
        Wanted::Root(root) => {
            FindRequest { root: prost::bytes::Bytes::copy_from_slice(root.as_bytes()), ..Default::default() }
        }
    };
    let said = |status: tonic::Status| {
        let error = Error::of_status(&status);
        Error::new(error.code, format!("peer {address}: {}", error.message))
    };
    let mut parts = connect(address, token).await?.find(request).await.map_err(said)?.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.next().await {
        bytes.extend_from_slice(&part.map_err(said)?.bytes);
        if bytes.len() > MOST_MANIFEST_BYTES {
            return Err(Error::invalid(format!(
                "peer {address}: its manifest is larger than {MOST_MANIFEST_BYTES} bytes"
            )));
        }
    }
    let artifact =
        Artifact::decode(&bytes).map_err(|error| Error::new(error.code, format!("peer {address}: {error}")))?;
    let (name, version) = (artifact.manifest.name.as_str(), artifact.manifest.version.as_str());
    let is_it = match wanted {
        Wanted::Named(own, None) => name == own,
        Wanted::Named(own, Some(wanted)) => name == own && version == wanted,
        Wanted::Root(root) => artifact.root == *root,
    };
    match is_it {
        true => Ok(artifact),
        false => Err(Error::new(
            Code::PermissionDenied,
            format!("peer {address} answered with another model, {name}@{version}"),
        )),
    }
}

impl Node {
    /// Finds an artifact: what the first of these nodes that has it says, in their order.
    ///
    /// # Errors
    /// What each of them said.
    pub async fn find(&self, wanted: &Wanted, addresses: &[String]) -> Result<Artifact> {
        let mut reasons = Vec::new();
        let mut code = Code::Unavailable;
        for address in addresses {
            let found = match (Location::is_one(address), wanted) {
                (true, Wanted::Named(name, version)) => self.find_in_bucket(address, name, version.as_deref()).await,
                (true, Wanted::Root(_)) => continue,
                (false, _) => find(address, self.0.token.as_ref(), wanted).await,
            };
            match found {
                Ok(artifact) => match self.0.trust.accepts(&artifact.root, artifact.signed.as_ref()) {
                    Ok(()) => return Ok(artifact),
                    Err(error) => {
                        code = error.code;
                        reasons.push(format!("peer {}: {}", shown(address), error.message));
                    }
                },
                Err(error) => {
                    code = error.code;
                    reasons.push(error.message);
                }
            }
        }
        match reasons.is_empty() {
            true => Err(Error::invalid("no peer was named to fetch from")),
            false => Err(Error::new(code, reasons.join("; "))),
        }
    }

    async fn find_in_bucket(&self, address: &str, name: &str, version: Option<&str>) -> Result<Artifact> {
        self.0.origins.bucket(&Location::parse(address)?)?.find(name, version).await
    }

    /// Begins to fetch an artifact from these nodes and buckets, and from the nodes that they name; how far it is. A fetch that is under way
    /// here is joined; one of another process is waited for.
    ///
    /// # Errors
    /// PERMISSION_DENIED where it is not trusted, RESOURCE_EXHAUSTED where it has no room, others where the disk fails.
    pub async fn fetch(&self, artifact: Artifact, addresses: &[String]) -> Result<watch::Receiver<Progress>> {
        let fetch = match self.begin(artifact).await? {
            Begun::Fetch(fetch) => fetch,
            Begun::Done(progress) => return Ok(progress),
        };
        let progress = fetch.progress();
        addresses.iter().for_each(|address| self.dial(&fetch, address));
        fetch.tick();
        Ok(progress)
    }

    pub(super) async fn begin(&self, artifact: Artifact) -> Result<Begun> {
        let root = artifact.root;
        self.0.trust.accepts(&root, artifact.signed.as_ref())?;
        loop {
            if let Some(fetch) = self.fetch_of(&root) {
                return Ok(Begun::Fetch(fetch));
            }
            let (store, artifact) = (self.0.store.clone(), artifact.clone());
            let is_here = move || {
                // What is damaged is fetched anew.
                let here = store.get(&artifact.root).ok().filter(|stored| store.verify(stored, &|_| {}).is_none());
                match here {
                    Some(stored) => store.used(&stored.artifact.root).map(|()| Err(stored.artifact.manifest.bytes())),
                    None => store.begin(artifact).map(Ok),
                }
            };
            let begun = tokio::task::spawn_blocking(is_here).await;
            match begun.map_err(|_| Error::new(Code::Internal, "the store failed unexpectedly"))?? {
                Err(bytes) => {
                    let progress =
                        Progress { bytes, here: bytes, found: bytes, outcome: Some(Ok(())), ..Progress::default() };
                    return Ok(Begun::Done(watch::channel(progress).1));
                }
                Ok(Some(incoming)) => {
                    let fetch = Arc::new(Fetch::new(self.clone(), incoming, rand::random()));
                    return Ok(Begun::Fetch(self.add_fetch(root, fetch)));
                }
                Ok(None) => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// The same of an address that another node told: buckets are named by this node's user alone.
    pub(super) fn dial_told(&self, fetch: &Arc<Fetch>, address: &str) {
        if !Location::is_one(address) {
            self.dial(fetch, address);
        }
    }

    /// Takes chunks from a node for as long as the fetch goes on, unless it does already.
    pub(super) fn dial(&self, fetch: &Arc<Fetch>, address: &str) {
        if !fetch.begin_dial(address) {
            return;
        }
        if Location::is_one(address) {
            return self.draw(fetch, address);
        }
        let (node, fetch, address) = (self.clone(), fetch.clone(), address.to_owned());
        tokio::spawn(async move {
            let mut backoff = Backoff::new(RETRY, MOST_RETRY, rand::random());
            let (mut taken, mut since) = (0, Instant::now());
            while !fetch.is_over() && !fetch.addresses(|all| all.is_banned(&address)) {
                let Err(why) = node.download(&fetch, &address).await else { break };
                if fetch.is_over() || fetch.addresses(|all| all.is_banned(&address)) {
                    break;
                }
                tracing::debug!(peer = address, why, "peer_left");
                fetch.addresses(|all| all.note(&address, &why));
                let now = fetch.addresses(|all| all.chunks_from(&address));
                if now > taken {
                    (taken, since) = (now, Instant::now());
                    backoff.reset();
                } else if since.elapsed() > PATIENCE {
                    break;
                }
                tokio::time::sleep(backoff.wait()).await;
            }
            fetch.end_dial();
        });
    }

    async fn download(&self, fetch: &Arc<Fetch>, address: &str) -> std::result::Result<(), String> {
        let mut client = connect(address, self.0.token.as_ref()).await.map_err(|error| error.message)?;
        let (out, messages) = mpsc::unbounded_channel();
        let (begin, said) = fetch.begin();
        let _ = out.send(begin);
        let answer = client.download(UnboundedReceiverStream::new(messages)).await;
        let stream = answer.map_err(|status| status.message().to_owned())?.into_inner();
        self.receive(fetch, address, out, stream, &said).await
    }

    /// The receiving end of a connection, until it ends.
    pub(super) async fn receive(
        &self,
        fetch: &Arc<Fetch>,
        address: &str,
        out: mpsc::UnboundedSender<wire::FromReceiver>,
        mut stream: tonic::Streaming<wire::FromSender>,
        said: &Bitmap,
    ) -> std::result::Result<(), String> {
        let Some(wire::from_sender::Message::Begin(begin)) = next(&mut stream).await? else {
            return Err("it did not begin".into());
        };
        self.receive_begun(fetch, address, out, (&begin, said), stream).await
    }

    /// The same once the sender has said what it has; before, this node said what it has.
    pub(super) async fn receive_begun(
        &self,
        fetch: &Arc<Fetch>,
        address: &str,
        out: mpsc::UnboundedSender<wire::FromReceiver>,
        (begin, said): (&wire::Begin, &Bitmap),
        mut stream: tonic::Streaming<wire::FromSender>,
    ) -> std::result::Result<(), String> {
        let sender = Sender { address: address.to_owned(), out, is_bucket: false };
        let peer = fetch.joined(begin, said, sender)?;
        let mut progress = fetch.progress();
        let ended = loop {
            let message = tokio::select! {
                message = next(&mut stream) => message,
                _ = progress.wait_for(|progress| progress.outcome.is_some()) => break Ok(()),
            };
            match message {
                Ok(Some(message)) => match fetch.heard(peer, message) {
                    Ok(addresses) => addresses.iter().for_each(|address| self.dial_told(fetch, address)),
                    Err(wrong) => {
                        fetch.addresses(|all| all.blame(address, &wrong));
                        break Err(wrong);
                    }
                },
                Ok(None) => break Err("it ended".to_owned()),
                Err(why) => break Err(why),
            }
            if !fetch.is_connected(peer) {
                break Err("it sent chunks that are wrong".to_owned());
            }
        };
        fetch.left(peer);
        ended
    }
}

/// The next message of a sender; nothing at its end.
async fn next(
    stream: &mut tonic::Streaming<wire::FromSender>,
) -> std::result::Result<Option<wire::from_sender::Message>, String> {
    match stream.message().await {
        Ok(Some(message)) => message.message.ok_or_else(|| "it said what is not known here".to_owned()).map(Some),
        Ok(None) => Ok(None),
        Err(status) => Err(status.message().to_owned()),
    }
}

/// How a fetch begins.
pub(super) enum Begun {
    /// It is under way.
    Fetch(Arc<Fetch>),
    /// There is nothing to do.
    Done(watch::Receiver<Progress>),
}
