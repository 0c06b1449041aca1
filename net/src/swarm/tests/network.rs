//! A network in virtual time whose nodes run both cores: links are shared fairly, as by TCP without its losses.

mod links;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    time::Duration,
};

use crate::swarm::{Answer, ArtifactId, Bitmap, Closed, Command, Download, PeerId, Receiver, Task, Upload, Verdict};

use super::setup::{Fault, Message, Network, Outcome, Setup};

/// The only artifact.
const ARTIFACT: ArtifactId = ArtifactId(0);
/// Frames that a chunk is sent in, at most, and bytes of one, at least.
const FRAMES: u32 = 16;
const FRAME: u32 = 8 << 10;
/// Seconds from one tick of a node to the next.
const TICK: f64 = 0.02;

#[derive(Debug)]
enum Event {
    Message(usize, usize, Message),
    Frame(usize, usize, usize, u64, bool),
    Kept(usize, usize, usize),
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

/// Bytes of a chunk that were sent with so many frames.
fn until(size: u32, frames: u32) -> u64 {
    let all = size.div_ceil(FRAME).clamp(1, FRAMES);
    u64::from(size) * u64::from(frames) / u64::from(all)
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
    sizes: Vec<u32>,
    /// When the last message from one to another comes: none overtakes.
    quiet: std::collections::HashMap<(usize, usize), f64>,
    outcome: Outcome,
}

impl Network {
    /// Runs until all that have no fault are whole, or the time is over.
    pub(super) fn run(&self, seed: u64) -> Outcome {
        let size = self.nodes.len();
        let sizes = self.sizes(seed);
        let node = |(place, setup): (usize, &Setup)| {
            let have = if setup.seed { Bitmap::full(self.chunks) } else { Bitmap::new(self.chunks) };
            let mut upload = Upload::new(seed * 1000 + place as u64);
            upload.serve(ARTIFACT, have.clone());
            let download = Download::new(sizes.clone(), have, self.limits, seed * 1000 + place as u64);
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
            sizes: sizes.clone(),
            quiet: Default::default(),
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
            let left = |flow: &Flow| (until(self.sizes[flow.chunk], flow.frames + 1) as f64 - flow.done) / flow.rate;
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

    fn whole_bytes(&self) -> f64 {
        self.sizes.iter().map(|bytes| f64::from(*bytes)).sum()
    }

    fn say_all(&mut self, from: usize, message: &Message) {
        let others: Vec<_> = (0..self.nodes.len()).filter(|to| *to != from && self.nodes[*to].here).collect();
        others.into_iter().for_each(|to| self.say(from, to, message.clone()));
    }

    /// A frame has left.
    fn frame(&mut self, place: usize) {
        let all = self.whole_bytes();
        let flow = &mut self.flows[place];
        let size = self.sizes[flow.chunk];
        let bytes = until(size, flow.frames + 1) - until(size, flow.frames);
        flow.frames += 1;
        let (from, to, chunk, last) = (flow.from, flow.to, flow.chunk, until(size, flow.frames) == u64::from(size));
        self.outcome.sent[from] += bytes as f64 / all;
        let (now, receiver) = (self.time(), receiver(to));
        self.nodes[from].upload.progress(now, receiver, chunk, bytes);
        if !self.nodes[from].mute && !self.nodes[from].closed.contains(&to) {
            self.at(self.now + self.network.delay, Event::Frame(from, to, chunk, bytes, last));
        }
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
                Task::Grant(receiver, hint) => {
                    self.outcome.grants += 1;
                    self.say(from, receiver.peer.0 as usize, Message::Grant(hint));
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
            Event::Frame(from, to, chunk, bytes, last) => {
                if self.nodes[to].here && !self.nodes[to].mute && !self.nodes[to].closed.contains(&from) {
                    self.receives(from, to, chunk, bytes, last);
                    self.pump(to);
                }
            }
            Event::Kept(from, to, chunk) => {
                self.kept(from, to, chunk);
                self.pump(to);
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
            Message::Grant(hint) => self.answer(from, to, hint),
            Message::Want(chunk) => node.upload.wanted(now, who, chunk, u64::from(self.sizes[chunk])).unwrap(),
            Message::Pass(why) => {
                self.outcome.passes += 1;
                node.upload.passed(now, who, why);
            }
            Message::Cancel(chunk) => {
                if node.upload.cancelled(who, chunk) {
                    self.stop(to, from, chunk);
                }
            }
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

    fn answer(&mut self, from: usize, to: usize, hint: Option<usize>) {
        let now = self.time();
        let answer = self.nodes[to].download.granted(now, PeerId(from as u64), hint);
        let (chunk, more) = match answer {
            Answer::Want { chunk, more } => (chunk, more),
            Answer::Busy => return self.say(to, from, Message::Pass(Closed::Busy)),
            Answer::Nothing => return self.say(to, from, Message::Pass(Closed::Nothing)),
        };
        let node = &mut self.nodes[to];
        assert!(!node.download.have().contains(chunk), "{to} wants {chunk} of {from}, which it has");
        self.outcome.hedges += usize::from(node.owed.iter().any(|(_, owed)| *owed == chunk));
        assert!(node.owed.insert((from, chunk)), "{to} wants {chunk} of {from} twice");
        let owed = |peer: Option<usize>| {
            let owed = node.owed.iter().filter(|(other, _)| peer.is_none_or(|peer| peer == *other));
            owed.map(|(_, chunk)| u64::from(self.sizes[*chunk])).sum::<u64>()
        };
        assert!(owed(None) <= self.network.limits.memory, "{to} has no memory for this");
        assert!(owed(Some(from)) <= self.network.limits.window, "{to} has no window for this");
        self.say(to, from, Message::Want(chunk));
        let others = (0..self.nodes.len()).filter(|other| ![from, to].contains(other) && self.nodes[*other].here);
        others.collect::<Vec<_>>().into_iter().for_each(|other| self.say(to, other, Message::Coming(chunk, more)));
    }

    fn receives(&mut self, from: usize, to: usize, chunk: usize, bytes: u64, last: bool) {
        let (now, peer) = (self.time(), PeerId(from as u64));
        self.outcome.received[to] += bytes as f64 / self.whole_bytes();
        let node = &mut self.nodes[to];
        if node.download.received(now, peer, chunk, bytes) {
            self.tick(to);
        }
        if last && self.nodes[to].owed.contains(&(from, chunk)) {
            self.at(self.now + self.network.work, Event::Kept(from, to, chunk));
        }
    }

    fn kept(&mut self, from: usize, to: usize, chunk: usize) {
        let (now, peer) = (self.time(), PeerId(from as u64));
        let node = &mut self.nodes[to];
        if !node.here || node.mute || !node.owed.remove(&(from, chunk)) {
            return;
        }
        if self.nodes[from].setup.fault == Fault::Lies {
            if self.nodes[to].download.refused(peer, chunk) == Verdict::Banned {
                self.outcome.bans.push((to, from));
                self.forget(from, to);
                self.say(to, from, Message::Bye);
                self.nodes[to].closed.insert(from);
            }
            return self.tick(to);
        }
        let node = &mut self.nodes[to];
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
