//! Who holds which block of the cache: sequences, and the tree of prompts that began alike.
//!
//! A full block of tokens is published in a radix tree, a node a block: its keys and values depend on the tokens from the
//! sequence's begin to its own end, which are the path to it. A node that no sequence uses is kept until its block is needed;
//! the one that was used longest ago goes first, leaves before what they hang on.

use std::collections::{BTreeSet, HashMap};

use super::kernels::BLOCK_TOKENS;

/// The tokens of a full block.
pub(crate) type BlockTokens = [u32; BLOCK_TOKENS];

/// A node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(usize);

struct Node {
    parent: Option<NodeId>,
    tokens: BlockTokens,
    block: u32,
    children: usize,
    /// Sequences that use it.
    users: usize,
    /// When the last of them let go.
    released: u64,
}

/// All blocks of a cache.
pub(crate) struct Blocks {
    free: Vec<u32>,
    nodes: Vec<Option<Node>>,
    vacant: Vec<usize>,
    /// By what stands before it and its tokens.
    by_tokens: HashMap<(Option<NodeId>, BlockTokens), NodeId>,
    /// Leaves that nobody uses, the longest unused first.
    evictable: BTreeSet<(u64, NodeId)>,
    /// Nodes that nobody uses.
    kept: usize,
    releases: u64,
    total: usize,
}

impl Blocks {
    /// So many, all free.
    pub(crate) fn new(total: usize) -> Self {
        let count = u32::try_from(total).unwrap_or(u32::MAX);
        Self {
            free: (0..count).rev().collect(),
            nodes: Vec::new(),
            vacant: Vec::new(),
            by_tokens: HashMap::new(),
            evictable: BTreeSet::new(),
            kept: 0,
            releases: 0,
            total: count as usize,
        }
    }

    /// Blocks in all.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Blocks that could be taken now.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.kept
    }

    /// Blocks that are kept for prompts to come.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0).and_then(Option::as_ref)
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(id.0).and_then(Option::as_mut)
    }

    /// Takes a block for a sequence alone, dropping what was kept longest if there is no other; none if all are in use.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| self.evict())
    }

    /// Gives a block that was taken back.
    pub(crate) fn give_back(&mut self, block: u32) {
        self.free.push(block);
    }

    fn evict(&mut self) -> Option<u32> {
        let (_, id) = self.evictable.pop_first()?;
        let node = self.nodes.get_mut(id.0).and_then(Option::take)?;
        self.vacant.push(id.0);
        self.by_tokens.remove(&(node.parent, node.tokens));
        self.kept -= 1;
        if let Some(parent) = node.parent
            && let Some(above) = self.node_mut(parent)
        {
            above.children -= 1;
            if above.children == 0 && above.users == 0 {
                let released = above.released;
                self.evictable.insert((released, parent));
            }
        }
        Some(node.block)
    }

    /// The longest path of full blocks that these tokens begin with, and its blocks; each is used from now on.
    pub(crate) fn begin(&mut self, tokens: &[u32]) -> Vec<(NodeId, u32)> {
        let mut path = Vec::new();
        let mut parent = None;
        for tokens in tokens.as_chunks::<BLOCK_TOKENS>().0 {
            let Some(&id) = self.by_tokens.get(&(parent, *tokens)) else { break };
            let Some(block) = self.node(id).map(|node| node.block) else { break };
            self.hold(id);
            path.push((id, block));
            parent = Some(id);
        }
        path
    }

    /// How many blocks [`begin`](Self::begin) would find, and how many of them nobody uses yet.
    pub(crate) fn found(&self, tokens: &[u32]) -> (usize, usize) {
        let (mut blocks, mut unused, mut parent) = (0, 0, None);
        for tokens in tokens.as_chunks::<BLOCK_TOKENS>().0 {
            let Some(&id) = self.by_tokens.get(&(parent, *tokens)) else { break };
            blocks += 1;
            unused += usize::from(self.node(id).is_some_and(|node| node.users == 0));
            parent = Some(id);
        }
        (blocks, unused)
    }

    fn hold(&mut self, id: NodeId) {
        let Some(node) = self.node_mut(id) else { return };
        node.users += 1;
        if node.users == 1 {
            let released = node.released;
            self.evictable.remove(&(released, id));
            self.kept -= 1;
        }
    }

    /// Publishes a full block that a sequence took, after the node that stands before it; the sequence uses the node.
    /// Where these tokens stand there already, that node's block is the sequence's from now on and its own is free: both
    /// hold the same bits.
    pub(crate) fn publish(&mut self, parent: Option<NodeId>, tokens: BlockTokens, block: u32) -> (NodeId, u32) {
        if let Some(&id) = self.by_tokens.get(&(parent, tokens))
            && let Some(there) = self.node(id).map(|node| node.block)
        {
            self.hold(id);
            self.give_back(block);
            return (id, there);
        }
        let node = Node { parent, tokens, block, children: 0, users: 1, released: 0 };
        let index = self.vacant.pop().unwrap_or(self.nodes.len());
        if index == self.nodes.len() {
            self.nodes.push(Some(node));
        } else {
            self.nodes[index] = Some(node);
        }
        if let Some(above) = parent.and_then(|parent| self.node_mut(parent)) {
            above.children += 1;
        }
        self.by_tokens.insert((parent, tokens), NodeId(index));
        (NodeId(index), block)
    }

    /// A sequence uses a node no longer.
    pub(crate) fn release(&mut self, id: NodeId) {
        self.releases += 1;
        let released = self.releases;
        let Some(node) = self.node_mut(id) else { return };
        node.users = node.users.saturating_sub(1);
        if node.users == 0 {
            node.released = released;
            let leaf = node.children == 0;
            self.kept += 1;
            if leaf {
                self.evictable.insert((released, id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(from: u32, blocks: usize) -> Vec<u32> {
        (from..).take(blocks * BLOCK_TOKENS).collect()
    }

    fn publish_all(blocks: &mut Blocks, tokens: &[u32]) -> Vec<NodeId> {
        let mut path: Vec<NodeId> = Vec::new();
        for tokens in tokens.as_chunks::<BLOCK_TOKENS>().0 {
            let block = blocks.take().unwrap();
            path.push(blocks.publish(path.last().copied(), *tokens, block).0);
        }
        path
    }

    #[test]
    fn what_begins_alike_shares_blocks_and_the_longest_unused_leaf_goes_first() {
        let mut blocks = Blocks::new(6);
        let (first, second) = (tokens(0, 3), [tokens(0, 1), tokens(500, 1)].concat());
        let path = publish_all(&mut blocks, &first);
        assert_eq!((blocks.available(), blocks.kept()), (3, 0));
        path.iter().rev().for_each(|id| blocks.release(*id));
        assert_eq!((blocks.available(), blocks.kept()), (6, 3));

        // The first block is shared, and used again.
        assert_eq!(blocks.found(&second), (1, 1));
        let shared = blocks.begin(&second);
        assert_eq!((shared.len(), shared[0].0, blocks.available()), (1, path[0], 5));
        let own = blocks.take().unwrap();
        let (node, _) = blocks.publish(Some(path[0]), *second.as_chunks().0.last().unwrap(), own);

        // Two are free, then the deepest leaf goes, then what it hung on; what is in use stays.
        let taken: Vec<u32> = std::iter::from_fn(|| blocks.take()).collect();
        assert_eq!(taken.len(), 4);
        assert_eq!(blocks.found(&first).0, 1);
        blocks.release(node);
        blocks.release(path[0]);
        assert_eq!((blocks.take(), blocks.take(), blocks.take()), (Some(own), Some(shared[0].1), None));
    }

    #[test]
    fn tokens_that_are_there_already_free_the_second_block() {
        let mut blocks = Blocks::new(2);
        let tokens = tokens(7, 1);
        let path = publish_all(&mut blocks, &tokens);
        let again = publish_all(&mut blocks, &tokens);
        assert_eq!((path.clone(), blocks.available()), (again, 1));
        blocks.release(path[0]);
        assert_eq!(blocks.kept(), 0);
        blocks.release(path[0]);
        assert_eq!((blocks.kept(), blocks.available()), (1, 2));
    }
}
