//! What a member of a cohort was sent, until it is wanted.

use std::{collections::HashMap, ops::Range};

use bytes::Bytes;
use half::bf16;
use orion_proto::peer::Numbers;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

/// Why a member waits no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// There are other orders.
    Interrupted,
    /// It cannot go on with the member of this rank.
    Broken(usize, String),
}

/// Rounds of a sender that may wait here: nobody is more than one ahead.
const MOST_ROUNDS: usize = 4;
/// Sums of a sender in one round, at most: a tree of 2^32 parts has no more subtrees on its sides.
const MOST_SUMS: usize = 128;

/// What is expected of a sender in a round: subtrees of parts, or the sum of all, of so many numbers each.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) parts: Vec<Range<usize>>,
    pub(super) numbers: usize,
}

/// The sums of one sender, as far as they are here, and its seconds for a part.
#[derive(Default)]
struct Arrived {
    /// By the subtree; an end of 0: of all.
    sums: HashMap<(u32, u32), Vec<f32>>,
    seconds: f64,
}

/// What a member of one generation of a training was sent.
pub(crate) struct Inbox {
    pub(super) job: u64,
    pub(super) generation: u64,
    members: usize,
    state: Mutex<State>,
    changed: Condvar,
    /// The state that those who are behind may fetch here.
    pub(super) offered: watch::Sender<Option<Bytes>>,
}

#[derive(Default)]
struct State {
    arrived: HashMap<(u64, usize, bool), Arrived>,
    /// Bytes of numbers that wait here.
    bytes: usize,
    stopped: Option<Stopped>,
}

impl Inbox {
    pub(super) fn new(job: u64, generation: u64, members: usize) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { job, generation, members, state, changed, offered: watch::Sender::new(None) }
    }

    /// Ends all waiting. What came first is the reason.
    pub(super) fn stop(&self, why: Stopped) {
        let mut state = self.state.lock();
        match &state.stopped {
            Some(Stopped::Interrupted) => {}
            // What is new here is more than what broke.
            Some(Stopped::Broken(..)) if why != Stopped::Interrupted => {}
            _ => state.stopped = Some(why),
        }
        self.changed.notify_all();
    }

    /// Why nothing is waited for any more.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        self.state.lock().stopped.clone()
    }

    /// Waits for something else than numbers; whoever brings it calls [`Self::look`].
    pub(super) fn wait_until(&self, done: impl Fn() -> bool) -> Result<(), Stopped> {
        let mut state = self.state.lock();
        while !done() {
            if let Some(why) = &state.stopped {
                return Err(why.clone());
            }
            self.changed.wait(&mut state);
        }
        Ok(())
    }

    /// Has whoever waits look again.
    pub(super) fn look(&self) {
        // Under the lock, so that nobody is between looking and waiting.
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// Takes what a member sent; says what is wrong with it.
    pub(super) fn take(&self, from: usize, numbers: &Numbers, most_bytes: usize) -> Result<(), String> {
        if from >= self.members {
            return Err(format!("rank {from} is none of {} members", self.members));
        }
        let size = if numbers.bf16 { 2 } else { 4 };
        if !numbers.values.len().is_multiple_of(size) {
            return Err(format!("{} bytes are no numbers of {size}", numbers.values.len()));
        }
        let mut state = self.state.lock();
        // As they lie here.
        state.bytes = state.bytes.saturating_add(numbers.values.len() / size * 4);
        if state.bytes > most_bytes {
            return Err(format!("more than {most_bytes} bytes wait to be added"));
        }
        let is_whole = numbers.end == 0;
        let key = (numbers.round, from, is_whole);
        if !state.arrived.contains_key(&key) && state.arrived.len() >= 2 * MOST_ROUNDS * self.members {
            return Err("it is too many rounds ahead".into());
        }
        let arrived = state.arrived.entry(key).or_default();
        if is_whole {
            arrived.seconds = numbers.seconds_per_part;
        }
        if arrived.sums.len() >= MOST_SUMS && !arrived.sums.contains_key(&(numbers.first, numbers.end)) {
            return Err(format!("more than {MOST_SUMS} sums of a round"));
        }
        let sum = arrived.sums.entry((numbers.first, numbers.end)).or_default();
        // A stream keeps its order.
        if sum.len() as u64 != numbers.start {
            return Err(format!("numbers from {} on follow {}", numbers.start, sum.len()));
        }
        let values = numbers.values.chunks_exact(size);
        match numbers.bf16 {
            true => sum.extend(values.map(|v| bf16::from_le_bytes([v[0], v[1]]).to_f32())),
            false => sum.extend(values.map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]))),
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for all that is expected of a sender in a round; its sums in the expected order, and its seconds.
    pub(super) fn wait(
        &self,
        round: u64,
        from: usize,
        is_whole: bool,
        expected: &Expected,
    ) -> Result<(Vec<Vec<f32>>, f64), Stopped> {
        let key = (round, from, is_whole);
        let names: Vec<(u32, u32)> = match is_whole {
            true => vec![(0, 0)],
            false => expected.parts.iter().map(|parts| (parts.start as u32, parts.end as u32)).collect(),
        };
        let mut state = self.state.lock();
        loop {
            if let Some(why) = &state.stopped {
                return Err(why.clone());
            }
            let of = |name: &(u32, u32)| state.arrived.get(&key).and_then(|arrived| arrived.sums.get(name));
            if names.iter().all(|name| of(name).is_some_and(|sum| sum.len() == expected.numbers)) {
                break;
            }
            if names.iter().any(|name| of(name).is_some_and(|sum| sum.len() > expected.numbers)) {
                return Err(Stopped::Broken(from, format!("it sent more than {} numbers", expected.numbers)));
            }
            self.changed.wait(&mut state);
        }
        let mut arrived = state.arrived.remove(&key).unwrap_or_default();
        let sums: Vec<Vec<f32>> = names.iter().filter_map(|name| arrived.sums.remove(name)).collect();
        state.bytes = state.bytes.saturating_sub(sums.iter().map(|sum| sum.len() * 4).sum());
        Ok((sums, arrived.seconds))
    }
}
