//! Products take over what is done with each of their values alone, so that it is done while they are at hand.
//!
//! A node is looked at when those before it are known. Where it and the one that makes its input can be one, the earlier is
//! taken out and the joined one stands in the later one's place, where all that it reads is there.

use std::collections::HashMap;

use candle_core::Tensor;

use super::{
    evaluator::Evaluator,
    graph::{Block, Node, Slot},
    operators::floats_of,
};
pub(super) use convolution::Fused;
pub(super) use dense::Dense;

mod convolution;
mod dense;
mod gelu;

/// The nodes of a block that were looked at, in order; those that others took over are gone.
struct Fuser<'a> {
    evaluator: &'a mut Evaluator,
    nodes: Vec<Option<Node>>,
    /// Which node makes a value.
    makers: HashMap<Slot, usize>,
    /// How often each value is read, in all blocks together.
    readers: &'a mut HashMap<Slot, usize>,
}

impl Evaluator {
    /// Joins nodes of the whole graph.
    pub(super) fn fuse(&mut self, block: &mut Block) {
        let mut readers = HashMap::new();
        count_readers(block, &mut readers);
        self.fuse_block(block, &mut readers);
    }

    fn fuse_block(&mut self, block: &mut Block, readers: &mut HashMap<Slot, usize>) {
        for node in &mut block.nodes {
            node.bodies.iter_mut().for_each(|(_, body)| self.fuse_block(body, readers));
        }
        let mut fuser = Fuser { evaluator: self, nodes: Vec::new(), makers: HashMap::new(), readers };
        for node in std::mem::take(&mut block.nodes) {
            let node = fuser.gelu(node);
            let node = fuser.dense(node);
            let node = fuser.convolution(node);
            for slot in node.outputs.iter().flatten() {
                fuser.makers.insert(*slot, fuser.nodes.len());
            }
            fuser.nodes.push(Some(node));
        }
        block.nodes = fuser.nodes.into_iter().flatten().collect();
        block.mark_last_uses();
    }
}

/// How often each value is read, in a block and in those inside it.
fn count_readers(block: &Block, counts: &mut HashMap<Slot, usize>) {
    let of_nodes = block.nodes.iter().flat_map(|node| node.inputs.iter().flatten());
    block.outputs.iter().chain(of_nodes).for_each(|&slot| *counts.entry(slot).or_default() += 1);
    for (_, body) in block.nodes.iter().flat_map(|node| &node.bodies) {
        count_readers(body, counts);
    }
}

impl Fuser<'_> {
    /// Whether nobody else reads an input, in any block.
    fn reads_alone(&self, node: &Node, input: usize) -> bool {
        let slot = node.inputs.get(input).copied().flatten();
        slot.is_some_and(|slot| self.readers.get(&slot) == Some(&1))
    }

    /// The node that makes nothing but an input which nobody else reads, and where it stands.
    fn maker(&self, node: &Node, input: usize) -> Option<(usize, &Node)> {
        let index = *self.makers.get(&(*node.inputs.get(input)?)?)?;
        let made = self.nodes.get(index)?.as_ref()?;
        (made.outputs.len() == 1 && self.reads_alone(node, input)).then_some((index, made))
    }

    /// An input that does not depend on the graph's own.
    fn constant(&self, node: &Node, input: usize) -> Option<&Tensor> {
        self.evaluator.constants.get((*node.inputs.get(input)?)?)?.as_ref()
    }

    /// An input that is one known number.
    fn scalar(&self, node: &Node, input: usize) -> Option<f64> {
        let constant = self.constant(node, input)?;
        match floats_of(constant).ok()?.as_slice() {
            [value] if constant.rank() == 0 => Some(*value),
            _ => None,
        }
    }

    /// Takes a node out, to be joined with the one that reads what it makes.
    fn take(&mut self, index: usize) -> Option<Node> {
        self.nodes.get_mut(index)?.take()
    }
}

/// The earlier node, which now makes what the later one would.
fn renamed(mut earlier: Node, later: &Node) -> Node {
    earlier.label = format!("{} with {}", earlier.label, later.label);
    earlier.outputs.clone_from(&later.outputs);
    earlier
}
