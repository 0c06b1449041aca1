//! An artifact on its way to this node, from as many peers as have it.

mod addresses;
mod chunks;
mod progress;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use orion_proto::{Code, Error, Result, peer as wire};
use parking_lot::Mutex;
use tokio::sync::{mpsc::UnboundedSender, watch};

use self::addresses::Addresses;
pub use self::progress::Progress;
use super::{
    form::{self, Rates},
    node::{News, Node},
    relay::relayed_worker,
    trial::Trial,
};
use crate::{
    artifact::{Form, Hash},
    origin::shown,
    store::Incoming,
    swarm::{Bitmap, Command, Download, Limits, PeerId},
};

/// Bytes on their way from one peer, and from all, at most.
const WINDOW_BYTES: u64 = 64 << 20;
const MEMORY_BYTES: u64 = 256 << 20;
/// A peer that owes is set aside when it was silent for so long, at least.
const PATIENCE: Duration = Duration::from_millis(500);
/// A fetch that nothing comes to has its scheduler relay after so long, where it can, and is given up after so much.
const HUNGRY: Duration = Duration::from_secs(2);
const STARVED: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Fetch {
    incoming: Incoming,
    node: Node,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct State {
    download: Download,
    peers: HashMap<PeerId, Peer>,
    /// Chunks whose bytes are coming.
    buffers: HashMap<(PeerId, usize), Buffer>,
    addresses: Addresses,
    next: u64,
    progress: Progress,
    /// Bytes a second at which one thread decodes.
    decode: Option<f64>,
    trial: Trial,
    /// No more is taken.
    ended: bool,
    /// Chunks whose base turned out damaged: their differences are of no use.
    without_base: HashSet<usize>,
}

/// Who has chunks for this node.
#[derive(Debug)]
pub(super) struct Sender {
    /// Where it is reached.
    pub(super) address: String,
    /// Where it hears of what is wanted.
    pub(super) out: UnboundedSender<wire::FromReceiver>,
    /// Whether it has each chunk in one form only, the shortest.
    pub(super) is_bucket: bool,
}

#[derive(Debug)]
struct Peer {
    out: UnboundedSender<wire::FromReceiver>,
    address: String,
    is_bucket: bool,
    received: u64,
    since: Instant,
}

#[derive(Debug)]
struct Buffer {
    form: Form,
    bytes: Vec<u8>,
    length: usize,
}

/// What a peer did that ends its connection.
pub(super) type Wrong = String;

impl Fetch {
    pub(super) fn new(node: Node, incoming: Incoming, seed: u64) -> Self {
        let pieces = &incoming.stored().pieces;
        let shortest = |index: usize| {
            let piece = pieces.get(index)?;
            let form = form::choose(piece, incoming.has_base_of(index), Rates::default());
            piece.wire(form).map(|(bytes, _)| bytes)
        };
        let wire_bytes = (0..pieces.len()).map(|index| shortest(index).unwrap_or_default()).collect();
        let limits = Limits { window: WINDOW_BYTES, memory: MEMORY_BYTES, patience: PATIENCE };
        let have = incoming.have();
        let here = have.iter().filter_map(|index| pieces.get(index));
        let here: u64 = here.map(|piece| piece.places.len() as u64 * u64::from(piece.chunk.bytes)).sum();
        let bytes = incoming.stored().artifact.manifest.bytes();
        let progress = Progress { bytes, here, found: here, ..Progress::default() };
        let state = State {
            download: Download::new(wire_bytes, have, limits, seed),
            peers: HashMap::new(),
            buffers: HashMap::new(),
            addresses: Addresses::default(),
            next: 0,
            progress: progress.clone(),
            decode: None,
            trial: Trial::default(),
            ended: false,
            without_base: HashSet::new(),
        };
        Self { incoming, node, state: Mutex::new(state), progress: watch::Sender::new(progress) }
    }

    pub(super) fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Whether an address is new and may be tried, until [`Self::end_dial`].
    pub(super) fn begin_dial(&self, address: &str) -> bool {
        address != self.node.0.address && self.state.lock().addresses.begin(address)
    }

    /// An address is not tried any more.
    pub(super) fn end_dial(&self) {
        let mut state = self.state.lock();
        state.addresses.end();
        self.give_up_alone(&mut state);
    }

    /// Whether nodes are dialled and none is here yet.
    pub(super) fn waits_for_nodes(&self) -> bool {
        let state = self.state.lock();
        state.peers.is_empty() && state.addresses.have_nodes()
    }

    /// Whether no peer that is reached directly has, or will soon have, anything that is missing, or all give nothing.
    pub(super) fn is_alone(&self) -> bool {
        let state = self.state.lock();
        let starved = state.download.starved_since().map(|since| self.node.now().saturating_sub(since));
        starved.is_some_and(|time| time > HUNGRY) || !state.direct().any(|peer| state.download.offers(peer))
    }

    /// What is known of the addresses that it comes from.
    pub(super) fn addresses<T>(&self, ask: impl FnOnce(&mut Addresses) -> T) -> T {
        ask(&mut self.state.lock().addresses)
    }

    /// Nobody is left who could send anything.
    fn give_up_alone(&self, state: &mut State) {
        if state.addresses.are_over() && state.peers.is_empty() && !state.ended && !state.download.is_whole() {
            self.give_up(state);
        }
    }

    fn give_up(&self, state: &mut State) {
        let name = &self.incoming.stored().artifact.manifest.name;
        let missing = state.download.have().len() - state.download.have().count();
        let why = state.addresses.reasons().unwrap_or_else(|| "no peer has them".to_owned());
        let text = format!("{missing} chunks of model '{name}' did not come: {why}; pulled again it goes on from here");
        self.fail(state, Error::new(Code::Unavailable, text));
    }

    /// Whether a peer is still believed.
    pub(super) fn is_connected(&self, peer: PeerId) -> bool {
        self.state.lock().peers.contains_key(&peer)
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.lock().ended
    }

    /// What a receiver says first, and the chunks that it says it has.
    pub(super) fn begin(&self) -> (wire::FromReceiver, Bitmap) {
        let root = Bytes::copy_from_slice(self.incoming.stored().artifact.root.as_bytes());
        let said = self.incoming.have();
        let bitmap = Bytes::from(said.to_bytes());
        let address = self.node.0.address.clone();
        let begin = wire::Begin { root, bitmap, address, ..Default::default() };
        (wire::FromReceiver { message: Some(wire::from_receiver::Message::Begin(begin)) }, said)
    }

    /// A peer has chunks for this node, which said that it has these.
    pub(super) fn joined(
        &self,
        begin: &wire::Begin,
        said: &Bitmap,
        sender: Sender,
    ) -> std::result::Result<PeerId, Wrong> {
        let has = Bitmap::from_bytes(self.incoming.stored().pieces.len(), &begin.bitmap)
            .map_err(|error| error.to_string())?;
        let mut state = self.state.lock();
        state.next += 1;
        let peer = PeerId(state.next);
        state.download.joined(self.node.now(), peer, begin.origin, has);
        let Sender { address, out, is_bucket } = sender;
        let one = Peer { out, address, is_bucket, received: 0, since: Instant::now() };
        state.peers.insert(peer, one);
        // What came between is told here: from now on each chunk is.
        let since =
            state.download.have().iter().filter(|chunk| !said.contains(*chunk)).map(|chunk| chunk as u32).collect();
        state.say(peer, wire::from_receiver::Message::Have(wire::Have { chunks: since }));
        Ok(peer)
    }

    pub(super) fn left(&self, peer: PeerId) {
        let mut state = self.state.lock();
        state.download.left(peer);
        state.peers.remove(&peer);
        state.buffers.retain(|(other, _), _| *other != peer);
        if !state.ended {
            state.carry_out(self.node.now());
        }
        self.give_up_alone(&mut state);
    }

    /// A peer said something; addresses of others that it told.
    ///
    /// # Errors
    /// What it may not say.
    pub(super) fn heard(
        self: &Arc<Self>,
        peer: PeerId,
        message: wire::from_sender::Message,
    ) -> std::result::Result<Vec<String>, Wrong> {
        use wire::from_sender::Message;
        let now = self.node.now();
        match message {
            Message::Begin(_) => return Err("it began twice".into()),
            Message::Have(have) => {
                let mut state = self.state.lock();
                have.chunks.iter().for_each(|chunk| state.download.has(peer, *chunk as usize));
                let address = state.address(peer);
                drop(state);
                self.node.learned(self.root(), &address, &News::Have(&have.chunks));
            }
            Message::Coming(coming) => {
                let mut state = self.state.lock();
                state.download.coming(now, peer, coming.chunk as usize);
                let address = state.address(peer);
                drop(state);
                self.node.learned(self.root(), &address, &News::Coming(&coming));
            }
            Message::Gone(gone) => {
                let mut state = self.state.lock();
                state.buffers.remove(&(peer, gone.chunk as usize));
                state.download.gone(peer, gone.chunk as usize);
            }
            Message::Turn(turn) => self.turn(now, peer, turn.fresh.map(|chunk| chunk as usize)),
            Message::Piece(piece) => self.piece(now, peer, &piece)?,
            Message::Peers(peers) => return Ok(peers.addresses),
        }
        Ok(Vec::new())
    }

    /// Tells those that it takes chunks from, but one, and those that hear it as its receivers.
    fn tell_senders(&self, but: Option<PeerId>, message: &wire::from_receiver::Message) {
        let addresses: Vec<(PeerId, String)> = {
            let state = self.state.lock();
            state.peers.iter().map(|(peer, one)| (*peer, one.address.clone())).collect()
        };
        let hear = self.node.receivers_among(self.root(), &mut addresses.iter().map(|(_, address)| address.clone()));
        let state = self.state.lock();
        let told = addresses.iter().filter(|(peer, address)| Some(*peer) != but && !hear.contains(address));
        told.for_each(|(peer, _)| state.say(*peer, message.clone()));
    }

    fn root(&self) -> &Hash {
        &self.incoming.stored().artifact.root
    }

    /// Looks at what time brings.
    pub(super) fn tick(self: &Arc<Self>) {
        let now = self.node.now();
        let mut state = self.state.lock();
        if state.ended {
            return;
        }
        state.leave_relays();
        state.carry_out(now);
        self.tell(&mut state);
        if state.download.is_whole() {
            drop(state);
            return self.finish();
        }
        if state.download.starved_since().is_some_and(|since| now.saturating_sub(since) > STARVED) {
            self.give_up(&mut state);
        }
    }

    fn tell(&self, state: &mut State) {
        state.progress.remaining_seconds = state.download.remaining_seconds();
        state.progress.peers = state.peers.len();
        self.progress.send_replace(state.progress.clone());
    }

    fn fail(&self, state: &mut State, error: Error) {
        if !std::mem::replace(&mut state.ended, true) {
            tracing::warn!(%error, "fetch_failed");
            self.end(state, Err(error));
        }
    }

    /// Makes what is whole part of the store, once.
    fn finish(self: &Arc<Self>) {
        if std::mem::replace(&mut self.state.lock().ended, true) {
            return;
        }
        let fetch = self.clone();
        tokio::task::spawn_blocking(move || {
            let finished = fetch.incoming.finish(&fetch.node.0.store);
            fetch.end(&mut fetch.state.lock(), finished);
        });
    }

    fn end(&self, state: &mut State, outcome: Result<()>) {
        self.node.end_fetch(self.root());
        state.progress.outcome = Some(outcome);
        self.tell(state);
        // Connections end with their senders.
        state.peers.clear();
    }
}

impl State {
    /// The peers that no scheduler relays.
    fn direct(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().filter(|(_, one)| relayed_worker(&one.address).is_none()).map(|(peer, _)| *peer)
    }

    /// Where a peer that is reached directly has all, the scheduler need not relay any more.
    fn leave_relays(&mut self) {
        if self.direct().count() == self.peers.len() || !self.direct().any(|peer| self.download.offers_all(peer)) {
            return;
        }
        let direct: Vec<PeerId> = self.direct().collect();
        let relayed: Vec<PeerId> = self.peers.keys().filter(|peer| !direct.contains(peer)).copied().collect();
        for peer in relayed {
            self.download.left(peer);
            // Its connection ends with its sender.
            self.peers.remove(&peer);
            self.buffers.retain(|(other, _), _| *other != peer);
        }
    }

    fn address(&self, peer: PeerId) -> String {
        self.peers.get(&peer).map(|peer| peer.address.clone()).unwrap_or_default()
    }

    /// Does what the download wants done by now.
    fn carry_out(&mut self, now: Duration) {
        use wire::from_receiver::Message;
        for command in self.download.tick(now) {
            match command {
                Command::Interested(peer) => self.say(peer, Message::Interested(wire::Interested {})),
                Command::Cancel(peer, chunk) => {
                    self.buffers.remove(&(peer, chunk));
                    self.say(peer, Message::Cancel(wire::Cancel { chunk: chunk as u32 }));
                }
                Command::SetAside(peer) => {
                    let address = self.address(peer);
                    tracing::warn!(peer = shown(&address), "peer_stalled");
                    self.addresses.note(&address, "it stalled");
                }
            }
        }
    }

    fn say(&self, peer: PeerId, message: wire::from_receiver::Message) {
        if let Some(peer) = self.peers.get(&peer) {
            let _ = peer.out.send(wire::FromReceiver { message: Some(message) });
        }
    }
}

impl Peer {
    /// Bytes a second from it, once enough have come to tell.
    fn rate(&self) -> Option<f64> {
        let seconds = self.since.elapsed().as_secs_f64();
        (self.received > 1 << 20).then(|| self.received as f64 / seconds.max(1e-6))
    }
}
