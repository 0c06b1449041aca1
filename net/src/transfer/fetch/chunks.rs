//! A chunk's way: a turn, its pieces, and what they turn out to be.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use orion_proto::{
    Error,
    peer::{self as wire, from_receiver::Message},
};

use super::{Buffer, Fetch, Peer, Wrong};
use crate::{
    artifact::Form,
    origin::shown,
    store::Refused,
    swarm::{Answer, PeerId, Verdict},
    transfer::{
        coders::Coders,
        form::{self, Rates, form_to_wire},
    },
};

impl Fetch {
    /// A peer has a turn for this node.
    pub(super) fn turn(&self, now: Duration, peer: PeerId, fresh: Option<usize>) {
        let mut state = self.state.lock();
        let answer = if state.ended { Answer::Nothing } else { state.download.granted(now, peer, fresh) };
        let Answer::Want { chunk, more } = answer else {
            let busy = answer == Answer::Busy;
            return state.say(peer, Message::Pass(wire::Pass { busy }));
        };
        let Some(piece) = self.incoming.stored().pieces.get(chunk) else { return };
        let sender = state.peers.get(&peer);
        let rates = match sender.is_some_and(|sender| sender.is_bucket) {
            true => Rates::default(),
            false => Rates {
                link: sender.and_then(Peer::rate),
                decode: state.decode.map(|rate| rate * Coders::threads() as f64),
            },
        };
        let has_base = self.incoming.has_base_of(chunk) && !state.without_base.contains(&chunk);
        let mut form = form::choose(piece, has_base, rates);
        if form == Form::Encoded {
            form = state.trial.form(rates.link);
        }
        let length = piece.wire(form).map_or(0, |(bytes, _)| bytes as usize);
        let mut bytes = self.node.0.buffers.take();
        bytes.reserve(length);
        state.buffers.insert((peer, chunk), Buffer { form, bytes, length });
        state.say(peer, Message::Want(wire::Want { chunk: chunk as u32, form: form_to_wire(form).into() }));
        let from = state.address(peer);
        drop(state);
        let coming = wire::Coming { chunk: chunk as u32, more };
        self.tell_senders(Some(peer), &Message::Coming(coming));
        self.node.coming(self.root(), coming, &from);
    }

    /// A peer works on what it owes, though nothing of it comes yet.
    pub(in crate::transfer) fn alive(&self, peer: PeerId) {
        self.state.lock().download.alive(self.node.now(), peer);
    }

    /// Bytes of a chunk came.
    pub(super) fn piece(
        self: &Arc<Self>,
        now: Duration,
        peer: PeerId,
        piece: &wire::Piece,
    ) -> std::result::Result<(), Wrong> {
        let (chunk, count) = (piece.chunk as usize, piece.bytes.len());
        let mut state = self.state.lock();
        state.say(peer, Message::Credit(wire::Credit { bytes: count as u64 }));
        state.progress.received += count as u64;
        if let Some(one) = state.peers.get_mut(&peer) {
            one.received += count as u64;
        }
        // One that was cancelled may still be on its way.
        let Some(buffer) = state.buffers.get_mut(&(peer, chunk)) else { return Ok(()) };
        if piece.start as usize != buffer.bytes.len() || count > buffer.length - buffer.bytes.len() {
            return Err(format!("{count} bytes at {} of chunk {chunk} are out of turn", piece.start));
        }
        buffer.bytes.extend_from_slice(&piece.bytes);
        let is_whole = buffer.bytes.len() == buffer.length;
        if state.download.received(now, peer, chunk, count as u64) {
            state.carry_out(now);
        }
        if is_whole && let Some(buffer) = state.buffers.remove(&(peer, chunk)) {
            drop(state);
            self.clone().take(peer, chunk, buffer);
        }
        Ok(())
    }

    /// Checks, decodes and keeps a chunk, on a thread that may block.
    fn take(self: Arc<Self>, peer: PeerId, chunk: usize, buffer: Buffer) {
        tokio::spawn(async move {
            let (fetch, form) = (self.clone(), buffer.form);
            let put = self.node.0.coders.run(move |coder| {
                let begun = Instant::now();
                let taken = fetch.incoming.put(chunk, buffer.form, &buffer.bytes, coder);
                fetch.node.0.buffers.give(buffer.bytes);
                (begun.elapsed().as_secs_f64(), taken)
            });
            match put.await {
                Some((seconds, taken)) => self.taken(peer, chunk, form, seconds, taken),
                // It panicked: whoever waits for the chunk would wait for ever.
                None => self.state.lock().download.gone(peer, chunk),
            }
        });
    }

    fn taken(
        self: &Arc<Self>,
        peer: PeerId,
        chunk: usize,
        form: Form,
        seconds: f64,
        taken: std::result::Result<(), Refused>,
    ) {
        let now = self.node.now();
        let mut state = self.state.lock();
        match taken {
            Ok(()) => {
                let piece = self.incoming.stored().pieces.get(chunk);
                let raw = piece.map_or(0, |piece| u64::from(piece.chunk.bytes));
                state.trial.came(now, form, raw);
                if form != Form::Raw {
                    let rate = raw as f64 / seconds.max(1e-9);
                    state.decode = Some(state.decode.map_or(rate, |known| known + (rate - known) / 8.0));
                }
                let is_new = !state.download.have().contains(chunk);
                let address = state.address(peer);
                state.addresses.came(&address);
                for (other, chunk) in state.download.arrived(now, peer, chunk) {
                    state.buffers.remove(&(other, chunk));
                    state.say(other, Message::Cancel(wire::Cancel { chunk: chunk as u32 }));
                }
                if is_new {
                    state.progress.here += raw * piece.map_or(0, |piece| piece.places.len() as u64);
                }
                state.carry_out(now);
                let is_whole = state.download.is_whole();
                self.tell(&mut state);
                drop(state);
                self.tell_senders(None, &Message::Have(wire::Have { chunks: vec![chunk as u32] }));
                self.node.gained(self.root(), chunk);
                if is_whole {
                    self.finish();
                }
            }
            Err(Refused::Disk(error)) => self.fail(&mut state, error),
            // Nobody can send it better: its publisher was wrong.
            Err(refused @ Refused::Decoded(..)) => self.fail(&mut state, Error::invalid(refused.to_string())),
            Err(Refused::NoBase(_)) => {
                state.without_base.insert(chunk);
                state.download.unwanted(peer, chunk);
            }
            Err(refused @ Refused::Wire(_)) => {
                let address = state.address(peer);
                tracing::warn!(peer = shown(&address), %refused, "chunk_refused");
                let verdict = state.download.refused(peer, chunk);
                let is_banned = state.addresses.blame(&address, &refused.to_string());
                if is_banned || verdict == Verdict::Banned {
                    state.download.left(peer);
                    tracing::warn!(peer = shown(&address), "peer_banned");
                    // Its connection ends with its sender.
                    state.peers.remove(&peer);
                }
                state.carry_out(now);
            }
        }
    }
}
