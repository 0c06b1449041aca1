//! Fetching an artifact from the nodes that have it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use orion_proto::{Code, Error, Result, peer as wire};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{
    fetch::{Fetch, Progress, Sender},
    node::Node,
    relay::relayed_worker,
};
use crate::{Backoff, artifact::Artifact, origin::Location, swarm::Bitmap};

/// Whether another process has finished is looked at so often.
const POLL: Duration = Duration::from_millis(200);

/// A peer that cannot be reached is tried again after so long at first, and at most.
const RETRY: Duration = Duration::from_millis(200);
const MOST_RETRY: Duration = Duration::from_secs(3);

/// Nodes that are reached directly are given so long to come and to have something before a scheduler must relay.
const ALONE: Duration = Duration::from_secs(1);
/// Why a connection ends that the scheduler relayed: another node has all.
const NOT_NEEDED: &str = "it is not needed any more";
/// Whether it must is looked at so often.
const LOOK: Duration = Duration::from_millis(50);

/// A peer that gave nothing for so long, whatever it did, is given up.
const PATIENCE: Duration = Duration::from_secs(12);

impl Node {
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

    /// The same of an address that another node told: buckets are named by this node's user alone, nodes that are relayed by the
    /// scheduler, which has an eye on how many.
    pub(super) fn dial_told(&self, fetch: &Arc<Fetch>, address: &str) {
        if !Location::is_one(address) && relayed_worker(address).is_none() {
            self.dial(fetch, address);
        }
    }

    /// Takes chunks from a node for as long as the fetch goes on, unless it does already.
    pub(super) fn dial(&self, fetch: &Arc<Fetch>, address: &str) {
        // Another node's scheduler may be one that this node has not joined.
        if (relayed_worker(address).is_some() && self.0.relay.is_none()) || !fetch.begin_dial(address) {
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
                if relayed_worker(&address).is_some() {
                    let waited = Instant::now();
                    wait_for_need(&fetch).await;
                    since += waited.elapsed();
                }
                let Err(why) = node.download(&fetch, &address).await else { break };
                if fetch.is_over() || fetch.addresses(|all| all.is_banned(&address)) {
                    break;
                }
                tracing::debug!(peer = address, why, "peer_left");
                if why == NOT_NEEDED {
                    since = Instant::now();
                    continue;
                }
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
        let mut client = self.connect(address).await.map_err(|error| error.message)?;
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
                break Err(match relayed_worker(address) {
                    Some(_) => NOT_NEEDED.to_owned(),
                    None => "it sent chunks that are wrong".to_owned(),
                });
            }
        };
        fetch.left(peer);
        ended
    }
}

/// A scheduler's relay is for when nobody else has what is missing: waits until that is so, or the fetch is over.
async fn wait_for_need(fetch: &Fetch) {
    let mut alone = Instant::now();
    while !fetch.is_over() {
        match fetch.is_alone() {
            true if alone.elapsed() >= ALONE || !fetch.addresses(|all| all.have_nodes()) => return,
            true => {}
            false => alone = Instant::now(),
        }
        tokio::time::sleep(LOOK).await;
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
