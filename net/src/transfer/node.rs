//! What a process has to do with other nodes: the artifacts that it serves, to whom it sends, and what it fetches.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use blake3::Hash;
use bytes::Bytes;
use orion_proto::{Result, peer as wire};
use parking_lot::Mutex;

use super::{
    buffers::Buffers,
    coders::Coders,
    fetch::Fetch,
    form::form_from_wire,
    held::Held,
    relay::Relay,
    sending::{Sending, State, Way, say},
    sums::Trainings,
    token::PeerToken,
    window::{Seen, Window},
};
use crate::{
    artifact::{Form, Trust},
    origin::Origins,
    store::{Store, Stored},
    swarm::{ArtifactId, Bitmap, Closed, PeerId, Receiver, Task, Upload},
};

/// What time brings is looked at so often.
const TICK: Duration = Duration::from_millis(50);

/// What a node says of itself where this one takes chunks from it.
pub(super) enum News<'m> {
    /// Chunks that it has.
    Have(&'m [u32]),
    /// One that is on its way to it.
    Coming(&'m wire::Coming),
}

/// How a node deals with others.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// Whose artifacts it takes.
    pub trust: Trust,
    /// Where others can reach it; empty: nowhere.
    pub address: String,
    /// What nodes show each other.
    pub token: Option<PeerToken>,
    /// Its way to nodes that it cannot reach, and theirs to it.
    pub relay: Option<Arc<Relay>>,
    /// Whether others may bring it artifacts that it did not ask for.
    pub accepts_uploads: bool,
    /// What is known of origins that are no nodes.
    pub origins: Arc<Origins>,
}

/// A process among other nodes.
#[derive(Clone, Debug)]
pub struct Node(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Arc<Store>,
    pub(super) trust: Trust,
    /// Where others can reach it; empty: nowhere.
    pub(super) address: String,
    pub(super) token: Option<PeerToken>,
    pub(super) relay: Option<Arc<Relay>>,
    pub(super) accepts_uploads: bool,
    pub(super) origins: Arc<Origins>,
    pub(super) coders: Coders,
    pub(super) buffers: Buffers,
    pub(super) trainings: Trainings,
    started: Instant,
    state: Mutex<State>,
}

impl Node {
    /// A node with this store.
    pub fn new(store: Arc<Store>, options: NodeOptions) -> Self {
        let NodeOptions { trust, address, token, relay, accepts_uploads, origins } = options;
        let state = Mutex::new(State { upload: Upload::new(rand::random()), ..State::default() });
        let started = Instant::now();
        Self(Arc::new(Shared {
            store,
            trust,
            address,
            token,
            relay,
            accepts_uploads,
            origins,
            coders: Coders::default(),
            buffers: Buffers::default(),
            trainings: Trainings::default(),
            started,
            state,
        }))
    }

    /// The session address of the scheduler that this node has joined.
    pub fn joins(&self, scheduler: &str) {
        if let Some(relay) = &self.0.relay {
            relay.reached_at(scheduler);
        }
    }

    /// Its store.
    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    /// Time of this node's own clock.
    pub(super) fn now(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Looks at what time brings, for as long as the node lives.
    pub async fn tick(self) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let fetches: Vec<Arc<Fetch>> = self.0.state.lock().fetches.values().cloned().collect();
            fetches.iter().for_each(|fetch| fetch.tick());
            let (stalled, is_idle) = {
                let state = self.0.state.lock();
                (state.stalled(self.now()), state.receivers.is_empty() && state.fetches.is_empty())
            };
            if is_idle {
                self.0.buffers.clear();
            }
            for receiver in stalled {
                tracing::warn!("receiver_stalled");
                self.left(receiver);
            }
            self.pump();
        }
    }

    /// The artifacts that are here or on their way.
    pub(super) fn artifacts(&self) -> Vec<(Arc<Stored>, bool)> {
        let whole: Vec<_> = self.0.store.list().into_iter().map(|entry| (entry.stored, true)).collect();
        let coming: Vec<_> =
            self.0.state.lock().fetches.values().map(|fetch| (fetch.incoming().stored().clone(), false)).collect();
        let is_new = |stored: &Arc<Stored>| whole.iter().all(|(known, _)| known.artifact.root != stored.artifact.root);
        let coming: Vec<_> = coming.into_iter().filter(|(stored, _)| is_new(stored)).collect();
        whole.into_iter().chain(coming).collect()
    }

    /// An artifact to be sent.
    pub(super) fn held(&self, root: &Hash) -> Result<Arc<Held>> {
        let mut state = self.0.state.lock();
        if let Some(held) = state.held.get(root).and_then(Weak::upgrade) {
            return Ok(held);
        }
        let held = match state.fetches.get(root) {
            Some(fetch) => Held::Coming(fetch.clone()),
            None => {
                let stored = self.0.store.get(root)?;
                Held::Whole(self.0.store.chunks(&stored)?, self.0.store.pin(root)?)
            }
        };
        let held = Arc::new(held);
        state.held.insert(*root, Arc::downgrade(&held));
        Ok(held)
    }

    /// An artifact of this name that is on its way here.
    pub(super) fn coming_named(&self, name: &str, version: Option<&str>) -> Option<Arc<Fetch>> {
        let state = self.0.state.lock();
        let is_it = |fetch: &&Arc<Fetch>| {
            let manifest = &fetch.incoming().stored().artifact.manifest;
            manifest.name.as_str() == name && version.is_none_or(|version| manifest.version.as_str() == version)
        };
        state.fetches.values().find(is_it).cloned()
    }

    pub(super) fn fetch_of(&self, root: &Hash) -> Option<Arc<Fetch>> {
        self.0.state.lock().fetches.get(root).cloned()
    }

    /// Begins a fetch, unless there is one: that one.
    pub(super) fn add_fetch(&self, root: Hash, fetch: Arc<Fetch>) -> Arc<Fetch> {
        self.0.state.lock().fetches.entry(root).or_insert(fetch).clone()
    }

    pub(super) fn end_fetch(&self, root: &Hash) {
        let mut state = self.0.state.lock();
        state.fetches.remove(root);
        state.held.remove(root);
    }

    /// Somebody takes an artifact from here; tells it where others are, and them where it is.
    pub(super) fn joined(
        &self,
        held: Arc<Held>,
        has: Bitmap,
        address: String,
        Way { out, loss }: Way,
        begins: bool,
    ) -> Receiver {
        let mut state = self.0.state.lock();
        if begins {
            say(&out, wire::from_sender::Message::Begin(self.sender_begins(&held)));
        }
        state.next += 1;
        let next = ArtifactId(state.next);
        let root = held.chunks().stored().artifact.root;
        let artifact = *state.artifacts.entry(root).or_insert(next);
        let receiver = Receiver { peer: PeerId(state.next), artifact };
        let others = state.receivers.iter().filter(|(other, _)| other.artifact == artifact);
        let mut known: Vec<String> = others.clone().map(|(_, sending)| sending.address.clone()).collect();
        if !address.is_empty() {
            let news = wire::Peers { addresses: vec![address.clone()] };
            others.for_each(|(_, sending)| say(&sending.out, wire::from_sender::Message::Peers(news.clone())));
        }
        known.retain(|other| !other.is_empty() && *other != address);
        if !known.is_empty() {
            say(&out, wire::from_sender::Message::Peers(wire::Peers { addresses: known }));
        }
        state.upload.serve(artifact, held.have());
        state.upload.joined(self.now(), receiver, has);
        let window = Window::new(self.now());
        let took = self.now();
        let sending = Sending {
            out,
            loss,
            held,
            address,
            window,
            took,
            wanted: HashMap::new(),
            current: None,
            on_the_way: VecDeque::new(),
        };
        state.receivers.insert(receiver, sending);
        drop(state);
        self.pump();
        receiver
    }

    /// What was seen of the links to other nodes that chunks were sent to, by their addresses, the newest first.
    pub fn links(&self) -> Vec<(String, Seen)> {
        self.0.state.lock().links.all()
    }

    /// What was seen of the link to a receiver, which is gone.
    pub(super) fn left(&self, receiver: Receiver) -> Seen {
        let mut state = self.0.state.lock();
        state.upload.left(self.now(), receiver);
        let sending = state.receivers.remove(&receiver);
        let (address, seen) = sending.map(|sending| (sending.address.clone(), sending.seen())).unwrap_or_default();
        state.links.saw(&address, seen);
        drop(state);
        self.pump();
        seen
    }

    /// A chunk is here that can be sent on.
    pub(super) fn gained(&self, root: &Hash, chunk: usize) {
        let mut state = self.0.state.lock();
        let Some(artifact) = state.artifacts.get(root).copied() else { return };
        state.upload.gained(artifact, chunk);
        let have = wire::Have { chunks: vec![chunk as u32] };
        state.tell(artifact, &wire::from_sender::Message::Have(have), "");
        drop(state);
        self.pump();
    }

    /// A chunk is on its way here, from the node at this address, which knows.
    pub(super) fn coming(&self, root: &Hash, coming: wire::Coming, from: &str) {
        let state = self.0.state.lock();
        let Some(artifact) = state.artifacts.get(root).copied() else { return };
        state.tell(artifact, &wire::from_sender::Message::Coming(coming), from);
    }

    /// A node at this address that takes the artifact from here has, or will soon have, these chunks: it said so where this
    /// node takes it from there, and says it once.
    pub(super) fn learned(&self, root: &Hash, address: &str, news: &News<'_>) {
        let mut state = self.0.state.lock();
        let Some(receiver) = state.receiver_at(root, address) else { return };
        match news {
            News::Have(chunks) => chunks.iter().for_each(|chunk| state.upload.has(receiver, *chunk as usize)),
            News::Coming(coming) => state.upload.coming(self.now(), receiver, coming.chunk as usize, coming.more),
        }
        drop(state);
        self.pump();
    }

    /// Those of these addresses whose nodes take the artifact from here: what it has they hear as its receivers.
    pub(super) fn receivers_among(&self, root: &Hash, addresses: &mut dyn Iterator<Item = String>) -> HashSet<String> {
        let state = self.0.state.lock();
        addresses.filter(|address| state.receiver_at(root, address).is_some()).collect()
    }

    /// A receiver said something.
    ///
    /// # Errors
    /// What it may not say; its connection is to be closed.
    pub(super) fn heard(
        &self,
        receiver: Receiver,
        message: wire::from_receiver::Message,
    ) -> std::result::Result<(), String> {
        use wire::from_receiver::Message;
        let now = self.now();
        {
            let mut state = self.0.state.lock();
            let state = &mut *state;
            match message {
                Message::Begin(_) => return Err("it began twice".into()),
                Message::Have(have) => {
                    have.chunks.iter().for_each(|chunk| state.upload.has(receiver, *chunk as usize));
                }
                Message::Interested(_) => state.upload.interested(receiver),
                Message::Pass(pass) => {
                    let why = if pass.busy { Closed::Busy } else { Closed::Nothing };
                    state.upload.passed(now, receiver, why);
                }
                Message::Coming(coming) => {
                    state.upload.coming(now, receiver, coming.chunk as usize, coming.more);
                }
                Message::Want(want) => {
                    let chunk = want.chunk as usize;
                    let form = form_from_wire(want.form).ok_or("it wants a chunk in a form that is not known here")?;
                    let bytes = state.wire_bytes(receiver, chunk, form);
                    state.upload.wanted(now, receiver, chunk, bytes).map_err(|error| error.to_string())?;
                    self.read(state, receiver, chunk, form);
                }
                Message::Cancel(cancel) => state.cancel(now, receiver, cancel.chunk as usize),
                Message::Credit(credit) => {
                    state.arrived(now, receiver, credit.bytes);
                    state.advance(now, receiver);
                }
            }
        }
        self.pump();
        Ok(())
    }

    /// Reads a chunk before its turn comes, off the threads that serve connections.
    fn read(&self, state: &mut State, receiver: Receiver, chunk: usize, form: Form) {
        let Some(sending) = state.receivers.get_mut(&receiver) else { return };
        sending.wanted.insert(chunk, None);
        let (node, held) = (self.clone(), sending.held.clone());
        tokio::spawn(async move {
            let room = node.0.buffers.take();
            let read = node.0.coders.run(move |coder| held.chunks().read(chunk, form, coder, room));
            let bytes = read.await.flatten().map(|bytes| node.0.buffers.lend(bytes));
            node.was_read(receiver, chunk, bytes);
        });
    }

    fn was_read(&self, receiver: Receiver, chunk: usize, bytes: Option<Bytes>) {
        {
            let mut state = self.0.state.lock();
            let now = self.now();
            let Some(sending) = state.receivers.get_mut(&receiver) else { return };
            let is_wanted = sending.wanted.contains_key(&chunk);
            match bytes {
                Some(bytes) if is_wanted => {
                    sending.wanted.insert(chunk, Some(bytes));
                    state.advance(now, receiver);
                }
                Some(_) => {}
                None => {
                    tracing::warn!(chunk, "chunk_unreadable");
                    say(&sending.out, wire::from_sender::Message::Gone(wire::Gone { chunk: chunk as u32 }));
                    state.cancel(now, receiver, chunk);
                }
            }
        }
        self.pump();
    }

    /// Does what is to be done next.
    fn pump(&self) {
        let mut state = self.0.state.lock();
        let now = self.now();
        while let Some(task) = state.upload.next(now) {
            match task {
                Task::Grant(receiver, fresh) => {
                    if let Some(sending) = state.receivers.get(&receiver) {
                        let turn = wire::Turn { fresh: fresh.map(|chunk| chunk as u32) };
                        say(&sending.out, wire::from_sender::Message::Turn(turn));
                    }
                }
                Task::Send(receiver, chunk) => {
                    if let Some(sending) = state.receivers.get_mut(&receiver) {
                        sending.current = Some((chunk, 0));
                    }
                    state.advance(now, receiver);
                }
            }
        }
    }
}
