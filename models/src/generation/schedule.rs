//! Which sequences a step computes, and how many tokens of each: iteration-level batching (Yu et al. 2022) with prompts in
//! pieces between the tokens of those that answer (Agrawal et al. 2023), over blocks of cache (Kwon et al. 2023).
//!
//! The more urgent goes first, then the older. One that finds no block takes those of the least urgent that runs, whose
//! tokens are then computed again.

use super::{blocks::Blocks, kernels::BLOCK_TOKENS, sequence::Sequence};

/// Steps for which one waits behind more urgent ones, until it goes before them.
const PATIENCE: u64 = 1000;
/// One in so many sequences at most is of those.
const AGED_SHARE: usize = 10;

/// What one generator holds at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Sequences in a step.
    pub(crate) sequences: usize,
    /// Tokens in a step.
    pub(crate) step_tokens: usize,
    /// Whether full blocks are kept for prompts that begin alike.
    pub(crate) prefix_cache: bool,
}

/// Tokens of one sequence to compute in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Among those that run.
    pub(crate) sequence: usize,
    pub(crate) tokens: usize,
}

/// All sequences, and their blocks.
pub(crate) struct Schedule {
    pub(crate) limits: Limits,
    pub(crate) blocks: Blocks,
    /// In order.
    pub(crate) running: Vec<Sequence>,
    /// In order.
    pub(crate) waiting: Vec<Sequence>,
    /// Steps that were planned.
    steps: u64,
}

impl Schedule {
    pub(crate) fn new(limits: Limits, blocks: usize) -> Self {
        Self { limits, blocks: Blocks::new(blocks), running: Vec::new(), waiting: Vec::new(), steps: 0 }
    }

    /// Takes a sequence in, to begin when there is room.
    pub(crate) fn add(&mut self, mut sequence: Sequence) {
        sequence.since = self.steps;
        insert(&mut self.waiting, sequence);
    }

    /// Gives up the sequence of this number, if it is there.
    pub(crate) fn cancel(&mut self, id: u64) {
        self.waiting.retain(|sequence| sequence.id != id);
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            self.remove(index);
        }
    }

    /// Takes a sequence that has ended out.
    pub(crate) fn remove(&mut self, index: usize) -> Sequence {
        let mut sequence = self.running.remove(index);
        sequence.release(&mut self.blocks);
        sequence
    }

    /// Chooses what the next step computes, and makes room for it.
    pub(crate) fn plan(&mut self) -> Vec<Chunk> {
        self.steps += 1;
        self.age();
        self.admit();
        let mut plan: Vec<Chunk> = Vec::new();
        let mut left = self.limits.step_tokens;
        // Those that answer take one token each; what is left of the step goes to prompts.
        for answering in [true, false] {
            let mut index = 0;
            while index < self.running.len() && left > 0 {
                let pending = self.running[index].pending();
                if (pending == 1) == answering {
                    let tokens = pending.min(left);
                    if !self.make_room(index, tokens, &mut plan) {
                        break;
                    }
                    plan.push(Chunk { sequence: index, tokens });
                    left -= tokens;
                }
                index += 1;
            }
        }
        plan
    }

    /// The oldest that has waited for long behind more urgent ones goes before them: few at a time, so that a flood of those
    /// loses a tenth of the sequences, and nothing waits without end.
    fn age(&mut self) {
        let aged = self.running.iter().chain(&self.waiting).filter(|sequence| sequence.aged).count();
        if aged >= self.limits.sequences.div_ceil(AGED_SHARE) {
            return;
        }
        let passed = |sequence: &Sequence| {
            let long = self.steps.saturating_sub(sequence.since) > PATIENCE;
            long && self.running.iter().any(|other| other.priority < sequence.priority)
        };
        let waiting = self.waiting.iter().enumerate().filter(|(_, sequence)| passed(sequence));
        if let Some((at, _)) = waiting.min_by_key(|(_, sequence)| sequence.arrival) {
            let mut sequence = self.waiting.remove(at);
            sequence.aged = true;
            insert(&mut self.waiting, sequence);
        }
    }

    /// Lets waiting sequences begin, in order.
    fn admit(&mut self) {
        while let Some(first) = self.waiting.first() {
            let (found, unused) = self.blocks.found(first.reusable());
            let needed = (first.tokens.len() + 1).div_ceil(BLOCK_TOKENS).min(self.blocks.total()) - found;
            // One block more for each that runs, lest it lose what it has been given in the next step.
            let room = self.blocks.available() - unused >= needed + self.running.len();
            if room && self.running.len() < self.limits.sequences {
                let mut sequence = self.waiting.remove(0);
                sequence.begin(&mut self.blocks);
                insert(&mut self.running, sequence);
            } else if self.running.last().is_some_and(|last| first.outranks(last)) {
                self.preempt_last();
            } else {
                break;
            }
        }
    }

    /// Gives a sequence the blocks for so many tokens more, those of the last ones if need be; false if it was the last.
    fn make_room(&mut self, index: usize, tokens: usize, plan: &mut Vec<Chunk>) -> bool {
        loop {
            let sequence = &mut self.running[index];
            let wanted = (sequence.computed + tokens).div_ceil(BLOCK_TOKENS);
            while sequence.blocks.len() < wanted && sequence.grow(&mut self.blocks) {}
            if sequence.blocks.len() >= wanted {
                return true;
            }
            self.preempt_last();
            plan.retain(|chunk| chunk.sequence < self.running.len());
            if index == self.running.len() {
                return false;
            }
        }
    }

    /// The last of those that run waits again.
    fn preempt_last(&mut self) {
        if let Some(mut sequence) = self.running.pop() {
            sequence.release(&mut self.blocks);
            sequence.since = self.steps;
            insert(&mut self.waiting, sequence);
        }
    }

    /// Takes note of a chunk that was computed.
    pub(crate) fn computed(&mut self, chunk: Chunk) {
        let sequence = &mut self.running[chunk.sequence];
        sequence.computed += chunk.tokens;
        if self.limits.prefix_cache {
            sequence.publish(&mut self.blocks);
        }
    }
}

fn insert(list: &mut Vec<Sequence>, sequence: Sequence) {
    let at = list.partition_point(|other| other.order() < sequence.order());
    list.insert(at, sequence);
}
