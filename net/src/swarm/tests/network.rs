//! A network in virtual time whose nodes run both cores: links are shared fairly, as by TCP without its losses.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    time::Duration,
};

use crate::swarm::{Answer, ArtifactId, Bitmap, Closed, Command, Download, PeerId, Receiver, Task, Upload, Verdict};

use super::setup::{Fault, Message, Network, Outcome, Setup};

/// The only artifact.
const ARTIFACT: ArtifactId = ArtifactId(0);
/// Frames that a chunk is sent in.
const FRAMES: u32 = 16;
/// Seconds from one tick of a node to the next.
const TICK: f64 = 0.02;

#[derive(Debug)]
enum Event {
    Message(usize, usize, Message),
    Join(usize),
    Tick(usize),
    Stall(usize),
    Leave(usize),
}

#[derive(Debug)]
struct Node {
    setup: Setup,
    download: Download,
    upload: Upload,
    here: bool,
    mute: bool,
    /// Who sends it what, as it sees it.
    owed: BTreeSet<(usize, usize)>,
    /// Those that it has closed the connection to.
    closed: BTreeSet<usize>,
}

#[derive(Debug)]
struct Flow {
    from: usize,
    to: usize,
    chunk: usize,
    done: f64,
    frames: u32,
    rate: f64,
}

struct Run<'a> {
    network: &'a Network,
    now: f64,
    nodes: Vec<Node>,
    flows: Vec<Flow>,
    stale: bool,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: std::collections::HashMap<u64, Event>,
    number: u64,
    outcome: Outcome,
}

impl Network {
    /// Runs until all that have no fault are whole, or the time is over.
    pub(super) fn run(&self, seed: u64) -> Outcome {
        let size = self.nodes.len();
        let node = |(place, setup): (usize, &Setup)| {
            let have = if setup.seed { Bitmap::full(self.chunks) } else { Bitmap::new(self.chunks) };
            let mut upload = Upload::new(seed * 1000 + place as u64);
            upload.serve(ARTIFACT, have.clone());
            let wire_bytes = vec![self.chunk_bytes; self.chunks];
            let download = Download::new(wire_bytes, have, self.limits, seed * 1000 + place as u64);
            let (here, mute) = (false, false);
            Node { setup: *setup, download, upload, here, mute, owed: BTreeSet::new(), closed: BTreeSet::new() }
        };
        let mut run = Run {
            network: self,
            now: 0.0,
            nodes: self.nodes.iter().enumerate().map(node).collect(),
            flows: Vec::new(),
            stale: false,
            queue: BinaryHeap::new(),
            events: Default::default(),
            number: 0,
            outcome: Outcome {
                whole: vec![None; size],
                sent: vec![0.0; size],
                received: vec![0.0; size],
                ..Outcome::default()
            },
        };
        run.go();
        run.outcome.starved = run.nodes.iter().map(|node| node.download.starved_since()).collect();
        run.outcome
    }
}

impl Run<'_> {
    fn go(&mut self) {
        for (place, setup) in self.network.nodes.iter().enumerate() {
            self.at(setup.joins, Event::Join(place));
            self.at(setup.joins + TICK * (place + 1) as f64 / 20.0, Event::Tick(place));
            match setup.fault {
                Fault::Stalls(when) => self.at(when, Event::Stall(place)),
                Fault::Leaves(when) => self.at(when, Event::Leave(place)),
                Fault::None | Fault::Lies => {}
            }
        }
        let whole = |node: &Node| node.download.is_whole() || node.setup.fault != Fault::None;
        while self.now < self.network.ends && !self.nodes.iter().all(whole) {
            self.share();
            let next_event = self.queue.peek().map_or(f64::INFINITY, |Reverse((when, _))| *when as f64 / 1e9);
            let frame = f64::from(self.network.chunk_bytes) / f64::from(FRAMES);
            let left = |flow: &Flow| (frame * f64::from(flow.frames + 1) - flow.done) / flow.rate;
            let flows = self.flows.iter().enumerate().map(|(place, flow)| (place, left(flow).max(0.0)));
            let first = flows.min_by(|one, other| one.1.total_cmp(&other.1));
            let next_frame = first.map_or(f64::INFINITY, |(_, left)| self.now + left);
            let next = next_event.min(next_frame).max(self.now);
            let passed = next - self.now;
            self.flows.iter_mut().for_each(|flow| flow.done += flow.rate * passed);
            self.now = next;
            if next_frame <= next_event {
                self.frame(first.unwrap().0);
            } else if let Some(Reverse((_, number))) = self.queue.pop() {
                let event = self.events.remove(&number).unwrap();
                self.happens(event);
            }
        }
    }

    fn at(&mut self, when: f64, event: Event) {
        self.number += 1;
        self.queue.push(Reverse(((when * 1e9) as u64, self.number)));
        self.events.insert(self.number, event);
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.now)
    }

    fn say(&mut self, from: usize, to: usize, message: Message) {
        if !self.nodes[from].mute && !self.nodes[from].closed.contains(&to) {
            self.at(self.now + self.network.delay, Event::Message(from, to, message));
        }
    }

    fn say_all(&mut self, from: usize, message: &Message) {
        let others: Vec<_> = (0..self.nodes.len()).filter(|to| *to != from && self.nodes[*to].here).collect();
        others.into_iter().for_each(|to| self.say(from, to, message.clone()));
    }

    /// Gives each flow its fair share: the most crowded link is filled first.
    fn share(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let size = self.nodes.len();
        let mut room: Vec<f64> = self.nodes.iter().map(|node| node.setup.up).collect();
        room.extend(self.nodes.iter().map(|node| node.setup.down));
        let mut open: Vec<usize> = (0..self.flows.len()).collect();
        for flow in &mut self.flows {
            flow.rate = 0.0;
        }
        open.retain(|flow| !self.nodes[self.flows[*flow].from].mute && !self.nodes[self.flows[*flow].to].mute);
        while !open.is_empty() {
            let mut crowd = vec![0u32; 2 * size];
            for flow in &open {
                crowd[self.flows[*flow].from] += 1;
                crowd[size + self.flows[*flow].to] += 1;
            }
            let shares =
                (0..2 * size).filter(|link| crowd[*link] > 0).map(|link| (link, room[link] / f64::from(crowd[link])));
            let (tight, rate) = shares.min_by(|one, other| one.1.total_cmp(&other.1)).unwrap();
            let (filled, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(|flow| {
                let flow = &self.flows[*flow];
                flow.from == tight || size + flow.to == tight
            });
            for place in filled {
                let flow = &mut self.flows[place];
                flow.rate = rate;
                room[flow.from] -= rate;
                room[size + flow.to] -= rate;
            }
            open = rest;
        }
    }

    /// A frame has left.
    fn frame(&mut self, place: usize) {
        let bytes = u64::from(self.network.chunk_bytes / FRAMES);
        let flow = &mut self.flows[place];
        flow.frames += 1;
        let (from, to, chunk, last) = (flow.from, flow.to, flow.chunk, flow.frames == FRAMES);
        self.outcome.sent[from] += bytes as f64 / (self.network.chunks as f64 * f64::from(self.network.chunk_bytes));
        let (now, receiver) = (self.time(), receiver(to));
        self.nodes[from].upload.progress(now, receiver, chunk, bytes);
        self.say(from, to, Message::Frame(chunk, bytes, last));
        if last {
            self.stop(from, to, chunk);
        }
        self.pump(from);
    }

    fn stop(&mut self, from: usize, to: usize, chunk: usize) {
        self.flows.retain(|flow| (flow.from, flow.to, flow.chunk) != (from, to, chunk));
        self.stale = true;
        let now = self.time();
        self.nodes[from].upload.sent(now, receiver(to), chunk);
    }

    fn pump(&mut self, from: usize) {
        let now = self.time();
        while let Some(task) = self.nodes[from].upload.next(now) {
            match task {
                Task::Grant(receiver) => {
                    self.outcome.grants += 1;
                    self.say(from, receiver.peer.0 as usize, Message::Grant);
                }
                Task::Send(receiver, chunk) => {
                    let to = receiver.peer.0 as usize;
                    self.flows.push(Flow { from, to, chunk, done: 0.0, frames: 0, rate: 0.0 });
                    self.stale = true;
                }
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Message(from, to, message) => {
                if self.nodes[to].here && !self.nodes[to].mute && !self.nodes[to].closed.contains(&from) {
                    self.hears(from, to, message);
                    self.pump(to);
                }
            }
            Event::Join(node) => {
                self.nodes[node].here = true;
                if self.nodes[node].setup.seed {
                    self.outcome.whole[node] = Some(self.now);
                }
                for other in (0..self.nodes.len()).filter(|other| *other != node) {
                    if self.nodes[other].here {
                        let have = self.nodes[other].download.have().clone();
                        self.say(other, node, Message::Hello(have));
                        let have = self.nodes[node].download.have().clone();
                        self.say(node, other, Message::Hello(have));
                    }
                }
            }
            Event::Tick(node) => {
                self.tick(node);
                self.at(self.now + TICK, Event::Tick(node));
            }
            Event::Stall(node) => {
                self.nodes[node].mute = true;
                self.stale = true;
            }
            Event::Leave(node) => {
                self.say_all(node, &Message::Bye);
                self.nodes[node].here = false;
                self.flows.retain(|flow| flow.from != node && flow.to != node);
                self.stale = true;
            }
        }
    }

    fn tick(&mut self, node: usize) {
        if !self.nodes[node].here || self.nodes[node].mute {
            return;
        }
        let now = self.time();
        for command in self.nodes[node].download.tick(now) {
            match command {
                Command::Interested(peer) => self.say(node, peer.0 as usize, Message::Interested),
                Command::Cancel(peer, chunk) => self.cancel(node, peer, chunk),
                Command::SetAside(_) => {}
            }
        }
        self.pump(node);
    }

    fn cancel(&mut self, node: usize, peer: PeerId, chunk: usize) {
        self.nodes[node].owed.remove(&(peer.0 as usize, chunk));
        self.say(node, peer.0 as usize, Message::Cancel(chunk));
    }

    fn hears(&mut self, from: usize, to: usize, message: Message) {
        let (now, peer, who) = (self.time(), PeerId(from as u64), receiver(from));
        let origin = self.nodes[from].setup.origin;
        let node = &mut self.nodes[to];
        match message {
            Message::Hello(have) => {
                node.download.joined(now, peer, origin, have.clone());
                node.upload.joined(now, who, have);
            }
            Message::Have(chunk) => {
                node.download.has(peer, chunk);
                node.upload.has(who, chunk);
            }
            Message::Coming(chunk, more) => {
                node.download.coming(now, peer, chunk);
                node.upload.coming(now, who, chunk, more);
            }
            Message::Interested => node.upload.interested(who),
            Message::Grant => self.answer(from, to),
            Message::Want(chunk) => node.upload.wanted(now, who, chunk, u64::from(self.network.chunk_bytes)).unwrap(),
            Message::Pass(why) => {
                self.outcome.passes += 1;
                node.upload.passed(now, who, why);
            }
            Message::Cancel(chunk) => {
                if node.upload.cancelled(who, chunk) {
                    self.stop(to, from, chunk);
                }
            }
            Message::Frame(chunk, bytes, last) => self.receives(from, to, chunk, bytes, last),
            Message::Bye => self.forget(from, to),
        }
    }

    fn forget(&mut self, from: usize, to: usize) {
        self.nodes[to].download.left(PeerId(from as u64));
        let now = self.time();
        self.nodes[to].upload.left(now, receiver(from));
        self.nodes[to].owed.retain(|(peer, _)| *peer != from);
        self.flows.retain(|flow| (flow.from, flow.to) != (to, from));
        self.stale = true;
    }

    fn answer(&mut self, from: usize, to: usize) {
        let now = self.time();
        let answer = self.nodes[to].download.granted(now, PeerId(from as u64));
        let (chunk, more) = match answer {
            Answer::Want { chunk, more } => (chunk, more),
            Answer::Busy => return self.say(to, from, Message::Pass(Closed::Busy)),
            Answer::Nothing => return self.say(to, from, Message::Pass(Closed::Nothing)),
        };
        let node = &mut self.nodes[to];
        assert!(!node.download.have().contains(chunk), "{to} wants {chunk} of {from}, which it has");
        self.outcome.hedges += usize::from(node.owed.iter().any(|(_, owed)| *owed == chunk));
        assert!(node.owed.insert((from, chunk)), "{to} wants {chunk} of {from} twice");
        let bytes = |owed: usize| owed as u64 * u64::from(self.network.chunk_bytes);
        let window = node.owed.iter().filter(|(peer, _)| *peer == from).count();
        assert!(bytes(node.owed.len()) <= self.network.limits.memory, "{to} has no memory for this");
        assert!(bytes(window) <= self.network.limits.window, "{to} has no window for this");
        self.say(to, from, Message::Want(chunk));
        let others = (0..self.nodes.len()).filter(|other| ![from, to].contains(other) && self.nodes[*other].here);
        others.collect::<Vec<_>>().into_iter().for_each(|other| self.say(to, other, Message::Coming(chunk, more)));
    }

    fn receives(&mut self, from: usize, to: usize, chunk: usize, bytes: u64, last: bool) {
        let (now, peer) = (self.time(), PeerId(from as u64));
        self.outcome.received[to] += bytes as f64 / (self.network.chunks as f64 * f64::from(self.network.chunk_bytes));
        let lies = self.nodes[from].setup.fault == Fault::Lies;
        let node = &mut self.nodes[to];
        if node.download.received(now, peer, chunk, bytes) {
            self.tick(to);
        }
        let node = &mut self.nodes[to];
        if !last || !node.owed.remove(&(from, chunk)) {
            return;
        }
        if lies {
            if self.nodes[to].download.refused(peer, chunk) == Verdict::Banned {
                self.outcome.bans.push((to, from));
                self.forget(from, to);
                self.say(to, from, Message::Bye);
                self.nodes[to].closed.insert(from);
            }
            return self.tick(to);
        }
        assert!(!node.download.have().contains(chunk), "{to} is sent {chunk} again");
        let cancels = node.download.arrived(now, peer, chunk);
        node.upload.gained(ARTIFACT, chunk);
        if node.download.is_whole() && self.outcome.whole[to].is_none() {
            self.outcome.whole[to] = Some(self.now);
        }
        cancels.into_iter().for_each(|(peer, chunk)| self.cancel(to, peer, chunk));
        self.say_all(to, &Message::Have(chunk));
        self.tick(to);
    }
}

fn receiver(node: usize) -> Receiver {
    Receiver { peer: PeerId(node as u64), artifact: ARTIFACT }
}
