//! What links do: messages wait behind what was written before them, and flows share.

use super::{Event, Run};
use crate::swarm::tests::setup::Message;

impl Run<'_> {
    pub(super) fn say(&mut self, from: usize, to: usize, message: Message) {
        if !self.nodes[from].mute && !self.nodes[from].closed.contains(&to) {
            let before = self.quiet.get(&(from, to)).copied().unwrap_or(0.0);
            let when = before.max(self.now + self.network.delay + self.queued(from));
            self.quiet.insert((from, to), when);
            self.at(when, Event::Message(from, to, message));
        }
    }

    /// Seconds that a message waits for what was written to a node's link before it.
    fn queued(&self, from: usize) -> f64 {
        let flows = self.flows.iter().filter(|flow| flow.from == from);
        let left = flows.map(|flow| (f64::from(self.sizes[flow.chunk]) - flow.done).clamp(0.0, self.network.buffer));
        left.sum::<f64>() / self.nodes[from].setup.up
    }

    /// Gives each flow its fair share: the most crowded link is filled first.
    pub(super) fn share(&mut self) {
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
}
