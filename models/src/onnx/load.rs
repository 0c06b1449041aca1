//! Brings a graph into memory: weights are converted, and what they alone decide is computed once.

use std::collections::HashSet;

use candle_core::{Device, Result, Tensor};

use super::{
    evaluator::{Evaluator, Limits, bytes},
    graph::{Block, Graph, Node, Slot},
    operators::{Kernel, is_float},
};
use crate::Precision;

/// Bytes that folded values may have however small the values are that they are made of.
const FOLDED_AT_LEAST: usize = 1 << 20;
/// Or so many times the bytes of those.
const FOLDED_TIMES: usize = 4;

impl Evaluator {
    /// Converts a graph's weights, which are dropped one by one. `progress` is told the share that is done, from 0 to 1.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub(super) fn load(
        mut graph: Graph,
        device: &Device,
        precision: Precision,
        limits: Limits,
        progress: &dyn Fn(f32),
    ) -> Result<Self> {
        let mut constants: Vec<Option<Tensor>> = vec![None; graph.slots];
        let weights = std::mem::take(&mut graph.weights);
        let count = weights.len().max(1) as f32;
        for (index, (slot, weight)) in weights.into_iter().enumerate() {
            let tensor = weight.tensor(precision)?;
            constants[slot] = Some(if is_float(tensor.dtype()) { tensor.to_device(device)? } else { tensor });
            progress((index + 1) as f32 / count);
        }
        let mut block = std::mem::take(&mut graph.block);
        let listed: usize = constants.iter().flatten().map(bytes).fold(0, usize::saturating_add);
        let mut evaluator = Self { graph, constants, device: device.clone(), precision, limits };
        let mut left = listed.saturating_mul(FOLDED_TIMES).saturating_add(FOLDED_AT_LEAST);
        evaluator.fold(&mut block, &mut left);
        evaluator.fuse(&mut block);
        evaluator.drop_unread(&block);
        evaluator.graph.block = block;
        Ok(evaluator)
    }

    /// Computes the nodes whose inputs are all known, and takes them out. What fails is left for the run, which may never
    /// come to it. All together may take the bytes that are left.
    fn fold(&mut self, block: &mut Block, left: &mut usize) {
        for mut node in std::mem::take(&mut block.nodes) {
            node.bodies.iter_mut().for_each(|(_, body)| self.fold(body, left));
            let folded = self.folded(&node);
            let mut taken = folded.iter().flatten().map(|(_, value)| bytes(value)).fold(0, usize::saturating_add);
            if node.inputs.is_empty() {
                // A constant, which the file holds.
                *left = left.saturating_add(taken.saturating_mul(FOLDED_TIMES));
                taken = 0;
            }
            match (folded, left.checked_sub(taken)) {
                (Some(values), Some(rest)) => {
                    *left = rest;
                    values.into_iter().for_each(|(slot, value)| self.constants[slot] = Some(value));
                }
                _ => block.nodes.push(node),
            }
        }
    }

    fn folded(&self, node: &Node) -> Option<Vec<(Slot, Tensor)>> {
        let Kernel::Compute(compute) = node.operator.kernel else { return None };
        if !node.operator.is_function() {
            return None;
        }
        let known = |slot: &Option<Slot>| match slot {
            None => Some(None),
            Some(slot) => self.constants.get(*slot)?.clone().map(Some),
        };
        let inputs: Vec<Option<Tensor>> = node.inputs.iter().map(known).collect::<Option<_>>()?;
        let given = inputs.iter().flatten().map(bytes).fold(0, usize::saturating_add);
        let most = given.saturating_mul(FOLDED_TIMES).max(FOLDED_AT_LEAST).min(self.limits.tensor);
        let outputs = compute(&self.call(node, &inputs, most)).ok()?;
        let named = node.outputs.iter().zip(outputs).filter_map(|(slot, output)| slot.map(|slot| (slot, output)));
        let named: Vec<(Slot, Tensor)> = named.collect();
        (named.len() == node.outputs.iter().flatten().count()).then_some(named)
    }

    /// Frees the values that only folded nodes needed.
    fn drop_unread(&mut self, block: &Block) {
        let mut read = HashSet::new();
        block.reads(&mut read);
        let unread = self.constants.iter_mut().enumerate().filter(|(slot, _)| !read.contains(slot));
        unread.for_each(|(_, constant)| *constant = None);
    }
}
