//! What a node is sending, to whom.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use orion_proto::peer as wire;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    fetch::Fetch,
    held::Held,
    links::Links,
    window::{Seen, Window},
};
use crate::{
    LossMeter,
    artifact::{Form, Hash},
    swarm::{ArtifactId, Receiver, Upload},
};

/// A receiver that says nothing of what is on its way to it for so long is left.
const STALLED: Duration = Duration::from_secs(5);

/// What changes under a node's lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) upload: Upload,
    pub(super) artifacts: HashMap<Hash, ArtifactId>,
    pub(super) held: HashMap<Hash, Weak<Held>>,
    pub(super) receivers: HashMap<Receiver, Sending>,
    pub(super) fetches: HashMap<Hash, Arc<Fetch>>,
    pub(super) links: Links,
    pub(super) next: u64,
}

/// The way to a receiver.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) out: UnboundedSender<wire::FromSender>,
    /// Of its connection; none where that is not known.
    pub(super) loss: Option<Arc<LossMeter>>,
}

/// One receiver of one artifact.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) out: UnboundedSender<wire::FromSender>,
    pub(super) loss: Option<Arc<LossMeter>>,
    pub(super) held: Arc<Held>,
    pub(super) address: String,
    pub(super) window: Window,
    /// When it last said that bytes arrived, or nothing was on its way.
    pub(super) took: Duration,
    /// Chunks that it wants, and their bytes once they were read.
    pub(super) wanted: HashMap<usize, Option<Bytes>>,
    /// The chunk that is being sent, and how much of it was.
    pub(super) current: Option<(usize, usize)>,
    /// Bytes of chunks that are on their way, in their order.
    pub(super) on_the_way: VecDeque<(usize, u64)>,
}

impl Sending {
    /// What was seen of the link.
    pub(super) fn seen(&self) -> Seen {
        Seen { loss: self.loss.as_ref().and_then(|meter| meter.share()), ..self.window.seen() }
    }
}

impl State {
    pub(super) fn receiver_at(&self, root: &Hash, address: &str) -> Option<Receiver> {
        let artifact = self.artifacts.get(root)?;
        let is_there = |(receiver, sending): &(&Receiver, &Sending)| {
            receiver.artifact == *artifact && !address.is_empty() && sending.address == address
        };
        self.receivers.iter().find(is_there).map(|(receiver, _)| *receiver)
    }

    /// Bytes that a chunk takes in this form; none where it has no such form.
    pub(super) fn wire_bytes(&self, receiver: Receiver, chunk: usize, form: Form) -> u64 {
        let sending = self.receivers.get(&receiver);
        let piece = sending.and_then(|sending| sending.held.chunks().stored().pieces.get(chunk));
        piece.and_then(|piece| piece.wire(form)).map_or(0, |(bytes, _)| bytes.into())
    }

    /// A receiver says that bytes arrived: as fast as that is the link.
    pub(super) fn arrived(&mut self, now: Duration, receiver: Receiver, bytes: u64) {
        let Some(sending) = self.receivers.get_mut(&receiver) else { return };
        sending.window.credit(now, bytes);
        sending.took = now;
        let mut left = bytes;
        while let Some((chunk, first)) = sending.on_the_way.front_mut().filter(|_| left > 0) {
            let count = left.min(*first);
            self.upload.progress(now, receiver, *chunk, count);
            (*first, left) = (*first - count, left - count);
            if *first == 0 {
                sending.on_the_way.pop_front();
            }
        }
    }

    /// Sends of a receiver's chunk what the window lets through. It counts as sent when its end is so near that the next would
    /// be behind it at once.
    pub(super) fn advance(&mut self, now: Duration, receiver: Receiver) {
        let Some(sending) = self.receivers.get_mut(&receiver) else { return };
        let Some((chunk, mut at)) = sending.current else { return };
        let Some(Some(bytes)) = sending.wanted.get(&chunk).cloned() else { return };
        while at < bytes.len() && sending.window.room() > 0 {
            let piece = bytes.slice(at..bytes.len().min(at + sending.window.piece()));
            let (start, count) = (at as u32, piece.len());
            at += count;
            if sending.window.is_empty() {
                sending.took = now;
            }
            sending.window.send(now, count as u64, at < bytes.len() || sending.wanted.len() > 1);
            sending.on_the_way.push_back((chunk, count as u64));
            let piece = wire::Piece { chunk: chunk as u32, start, bytes: piece };
            say(&sending.out, wire::from_sender::Message::Piece(piece));
        }
        sending.current = Some((chunk, at));
        if at == bytes.len() && sending.window.is_nearly_empty() {
            sending.current = None;
            sending.wanted.remove(&chunk);
            for (_, left) in sending.on_the_way.iter().filter(|(own, _)| *own == chunk) {
                self.upload.progress(now, receiver, chunk, *left);
            }
            sending.on_the_way.retain(|(own, _)| *own != chunk);
            self.upload.sent(now, receiver, chunk);
        }
    }

    /// Those that take nothing though bytes are on their way: they would hold up all others.
    pub(super) fn stalled(&self, now: Duration) -> Vec<Receiver> {
        let stalls = |sending: &Sending| !sending.window.is_empty() && now.saturating_sub(sending.took) > STALLED;
        self.receivers.iter().filter(|(_, sending)| stalls(sending)).map(|(receiver, _)| *receiver).collect()
    }

    pub(super) fn cancel(&mut self, now: Duration, receiver: Receiver, chunk: usize) {
        let is_being_sent = self.upload.cancelled(receiver, chunk);
        if let Some(sending) = self.receivers.get_mut(&receiver) {
            sending.wanted.remove(&chunk);
            sending.current = sending.current.filter(|(current, _)| *current != chunk);
        }
        if is_being_sent {
            self.upload.sent(now, receiver, chunk);
        }
    }

    /// Tells all receivers of an artifact but the one at this address.
    pub(super) fn tell(&self, artifact: ArtifactId, message: &wire::from_sender::Message, but: &str) {
        let own = self
            .receivers
            .iter()
            .filter(|(receiver, sending)| receiver.artifact == artifact && (but.is_empty() || sending.address != but));
        own.for_each(|(_, sending)| say(&sending.out, message.clone()));
    }
}

/// Says something to a receiver; one that is gone is noticed where its messages end.
pub(super) fn say(out: &UnboundedSender<wire::FromSender>, message: wire::from_sender::Message) {
    let _ = out.send(wire::FromSender { message: Some(message) });
}
