//! A generation that has been taken in.

use orion_proto::Priority;

use super::{
    answer::Answer,
    blocks::{Blocks, NodeId},
    kernels::BLOCK_TOKENS,
};

/// Its tokens and what it holds.
pub(crate) struct Sequence {
    pub(crate) id: u64,
    pub(crate) priority: Priority,
    /// Grows with each that is taken in.
    pub(crate) arrival: u64,
    /// The step from which on it waits.
    pub(crate) since: u64,
    /// It has waited for so long that it goes before what is more urgent.
    pub(crate) aged: bool,
    /// The prompt, then the answer.
    pub(crate) tokens: Vec<u32>,
    pub(crate) prompt: usize,
    /// Tokens whose keys and values are in its blocks.
    pub(crate) computed: usize,
    /// Tokens that were there when it first began.
    pub(crate) cached: Option<usize>,
    /// Its blocks; the first are those of the nodes in `path`, the others its own.
    pub(crate) blocks: Vec<u32>,
    path: Vec<NodeId>,
    pub(crate) answer: Answer,
}

impl Sequence {
    pub(crate) fn new(
        id: u64,
        (priority, arrival): (Priority, u64),
        tokens: Vec<u32>,
        prompt: usize,
        answer: Answer,
    ) -> Self {
        let (blocks, path) = (Vec::new(), Vec::new());
        Self {
            id,
            priority,
            arrival,
            since: 0,
            aged: false,
            tokens,
            prompt,
            computed: 0,
            cached: None,
            blocks,
            path,
            answer,
        }
    }

    /// The more urgent first, then the older.
    pub(crate) fn order(&self) -> (bool, Priority, u64) {
        (!self.aged, self.priority, self.arrival)
    }

    /// Whether it takes another's place.
    pub(crate) fn outranks(&self, other: &Self) -> bool {
        (!self.aged, self.priority) < (!other.aged, other.priority)
    }

    /// Tokens that are to be computed before the next can be drawn.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// The tokens that may be found in the cache: at least one must be computed, for its logits.
    pub(crate) fn reusable(&self) -> &[u32] {
        &self.tokens[..self.tokens.len().saturating_sub(1)]
    }

    /// Takes what the cache has of its tokens.
    pub(crate) fn begin(&mut self, blocks: &mut Blocks) {
        let found = blocks.begin(self.reusable());
        (self.path, self.blocks) = found.into_iter().unzip();
        self.computed = self.path.len() * BLOCK_TOKENS;
        self.cached.get_or_insert(self.computed.min(self.prompt));
    }

    /// Takes a block more, if there is one.
    pub(crate) fn grow(&mut self, blocks: &mut Blocks) -> bool {
        let block = blocks.take();
        self.blocks.extend(block);
        block.is_some()
    }

    /// Publishes the blocks that have become full.
    pub(crate) fn publish(&mut self, blocks: &mut Blocks) {
        while let Some(tokens) = self.tokens[..self.computed].as_chunks::<BLOCK_TOKENS>().0.get(self.path.len()) {
            let Some(block) = self.blocks.get_mut(self.path.len()) else { break };
            let (node, there) = blocks.publish(self.path.last().copied(), *tokens, *block);
            *block = there;
            self.path.push(node);
        }
    }

    /// Lets go of all that it holds; its tokens stay, to be computed again.
    pub(crate) fn release(&mut self, blocks: &mut Blocks) {
        for block in self.blocks.drain(..).skip(self.path.len()) {
            blocks.give_back(block);
        }
        // The deepest first: what others may share is used longest ago last.
        self.path.drain(..).rev().for_each(|node| blocks.release(node));
        self.computed = 0;
    }
}
