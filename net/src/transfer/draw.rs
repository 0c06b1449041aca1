//! A bucket's part in a fetch: it is taken for a peer that has all chunks and serves many at once.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use orion_proto::{
    Error,
    peer::{self as wire, from_receiver, from_sender},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::AbortHandle,
};

use super::{
    fetch::{Fetch, Sender},
    form::form_from_wire,
    node::Node,
};
use crate::{
    Backoff,
    artifact::Form,
    origin::{Bucket, Location, packed_form, shown, starts},
    store::Stored,
    swarm::{Bitmap, PeerId},
};

/// Chunks that are read at once, and turns that are on offer.
const AT_ONCE: usize = 32;
/// While chunks are read a bucket gives signs of life so often: it is not stalled, only far away.
const ALIVE: Duration = Duration::from_millis(200);
/// Nodes are given so long to come first, since a bucket has what nobody else has.
const NODES_FIRST: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(10);
/// A bucket that failed is asked again after so long at first, and at most, and so often.
const RETRY: Duration = Duration::from_millis(200);
const MOST_RETRY: Duration = Duration::from_secs(3);
const TRIES: usize = 3;

/// What happens to a chunk that is read.
enum Read {
    Came(usize, Bytes),
    Failed(usize, Error),
}

/// A bucket while chunks are taken from it.
struct Draw {
    bucket: Bucket,
    stored: Arc<Stored>,
    starts: Arc<Vec<u64>>,
    fetch: Arc<Fetch>,
    peer: PeerId,
    reads: HashMap<usize, AbortHandle>,
    turns: usize,
    /// A receiver that passed says when it can use a turn.
    closed: bool,
    done: UnboundedSender<Read>,
}

impl Node {
    /// Takes chunks from a bucket for as long as the fetch goes on.
    pub(super) fn draw(&self, fetch: &Arc<Fetch>, address: &str) {
        let bucket = Location::parse(address).and_then(|location| self.0.origins.bucket(&location));
        let (fetch, address) = (fetch.clone(), address.to_owned());
        tokio::spawn(async move {
            let bucket = match bucket {
                Ok(bucket) => bucket,
                Err(error) => {
                    // Others are dialled by now.
                    tokio::time::sleep(POLL).await;
                    fetch.addresses(|all| all.note(&address, &error.message));
                    return fetch.end_dial();
                }
            };
            let mut backoff = Backoff::new(RETRY, MOST_RETRY, rand::random());
            let (mut taken, mut tries) = (0, 0);
            let begun = Instant::now();
            while begun.elapsed() < NODES_FIRST && fetch.waits_for_nodes() {
                tokio::time::sleep(POLL).await;
            }
            while !fetch.is_over() && !fetch.addresses(|all| all.is_banned(&address)) {
                let Err(why) = draw(&fetch, &address, bucket.clone()).await else { break };
                tracing::debug!(origin = shown(&address), why, "origin_failed");
                fetch.addresses(|all| all.note(&address, &why));
                let now = fetch.addresses(|all| all.chunks_from(&address));
                (taken, tries) = if now > taken { (now, 1) } else { (taken, tries + 1) };
                if tries >= TRIES || fetch.is_over() {
                    break;
                }
                tokio::time::sleep(backoff.wait()).await;
            }
            fetch.end_dial();
        });
    }
}

/// One connection's worth of it, to its end; an error where it failed.
async fn draw(fetch: &Arc<Fetch>, address: &str, bucket: Bucket) -> Result<(), String> {
    let stored = fetch.incoming().stored().clone();
    let (out, mut messages) = unbounded_channel();
    let (_, said) = fetch.begin();
    let bitmap = Bitmap::full(stored.pieces.len()).to_bytes().into();
    let begin = wire::Begin { bitmap, origin: true, ..Default::default() };
    let peer = fetch.joined(&begin, &said, Sender { address: address.to_owned(), out, is_bucket: true })?;
    let (done, mut came) = unbounded_channel();
    let starts = Arc::new(starts(&stored));
    let mut draw = Draw {
        bucket,
        stored,
        starts,
        fetch: fetch.clone(),
        peer,
        reads: HashMap::new(),
        turns: 0,
        closed: false,
        done,
    };
    let ended = draw.run(&mut messages, &mut came).await;
    draw.reads.values().for_each(AbortHandle::abort);
    fetch.left(peer);
    ended
}

impl Draw {
    async fn run(
        &mut self,
        messages: &mut UnboundedReceiver<wire::FromReceiver>,
        came: &mut UnboundedReceiver<Read>,
    ) -> Result<(), String> {
        let mut alive = tokio::time::interval(ALIVE);
        loop {
            self.offer()?;
            tokio::select! {
                message = messages.recv() => match message.and_then(|message| message.message) {
                    Some(message) => self.hear(message),
                    // The fetch is over, or this peer is banned.
                    None => return Ok(()),
                },
                Some(read) = came.recv() => self.give(read)?,
                _ = alive.tick() => self.fetch.alive(self.peer),
            }
        }
    }

    /// Offers turns, as long as so few chunks are read.
    fn offer(&mut self) -> Result<(), String> {
        while !self.closed && self.turns + self.reads.len() < AT_ONCE {
            self.turns += 1;
            self.say(from_sender::Message::Turn(wire::Turn::default()))?;
        }
        Ok(())
    }

    fn hear(&mut self, message: from_receiver::Message) {
        use from_receiver::Message;
        match message {
            Message::Want(want) => {
                self.turns = self.turns.saturating_sub(1);
                // Whoever wants takes turns again; a pass that came before is over.
                self.closed = false;
                self.read(want.chunk as usize, form_from_wire(want.form));
            }
            Message::Pass(_) => {
                self.turns = self.turns.saturating_sub(1);
                self.closed = true;
            }
            Message::Interested(_) => self.closed = false,
            Message::Cancel(cancel) => {
                if let Some(read) = self.reads.remove(&(cancel.chunk as usize)) {
                    read.abort();
                }
            }
            // What else it has, and that bytes arrived, is nothing to a bucket.
            Message::Begin(_) | Message::Have(_) | Message::Coming(_) | Message::Credit(_) => {}
        }
    }

    fn read(&mut self, chunk: usize, form: Option<Form>) {
        let form = match (form, self.stored.pieces.get(chunk)) {
            (Some(Form::Difference), _) | (_, None) => Form::Difference,
            (_, Some(piece)) => packed_form(piece),
        };
        let (bucket, stored, starts, done) =
            (self.bucket.clone(), self.stored.clone(), self.starts.clone(), self.done.clone());
        let task = tokio::spawn(async move {
            let read = match bucket.read(&stored, &starts, chunk, form).await {
                Ok(bytes) => Read::Came(chunk, bytes),
                Err(error) => Read::Failed(chunk, error),
            };
            let _ = done.send(read);
        });
        self.reads.insert(chunk, task.abort_handle());
    }

    fn give(&mut self, read: Read) -> Result<(), String> {
        match read {
            // One that was cancelled may have come.
            Read::Came(chunk, bytes) => match self.reads.remove(&chunk) {
                Some(_) => self.say_piece(chunk, bytes),
                None => Ok(()),
            },
            Read::Failed(chunk, error) => match self.reads.remove(&chunk) {
                Some(_) => Err(error.message),
                None => Ok(()),
            },
        }
    }

    fn say_piece(&self, chunk: usize, bytes: Bytes) -> Result<(), String> {
        self.say(from_sender::Message::Piece(wire::Piece { chunk: chunk as u32, start: 0, bytes }))
    }

    fn say(&self, message: from_sender::Message) -> Result<(), String> {
        self.fetch.heard(self.peer, message).map(drop)
    }
}
