//! The shapes of a graph's values, found without computing them: what a run will take of memory and of arithmetic.
//!
//! Small whole numbers, from which graphs compute shapes, are computed for real. What depends on other values stays unknown.

use candle_core::{DType, Device, Tensor};

use super::{
    fault::{Fault, Outcome, refused},
    graph::{Block, Graph, Node, Slot},
    operators::{Call, Kernel, holds, is_float},
    weight::{Weight, elements},
};
use crate::Precision;

mod rules;
mod windows;

/// Elements of a value that is worth knowing by number.
const SMALL: usize = 1 << 12;
/// Bytes that the real computation of small values may take.
const SMALL_BYTES: usize = 1 << 16;

/// What is known of a value.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) dtype: DType,
    pub(super) dims: Vec<usize>,
    /// The value itself, where it is small and depends on no input.
    pub(super) value: Option<Tensor>,
}

impl Known {
    pub(super) fn new(dtype: DType, dims: Vec<usize>) -> Self {
        Self { dtype, dims, value: None }
    }

    fn bytes(&self) -> f64 {
        self.dims.iter().map(|&dim| dim as f64).product::<f64>() * self.dtype.size_in_bytes() as f64
    }
}

/// What a run will take.
#[derive(Clone, Debug, Default)]
pub(super) struct Inferred {
    /// The shapes of the graph's outputs, where they are known.
    pub(super) outputs: Vec<Option<Vec<usize>>>,
    /// Floating-point operations.
    pub(super) flops: f64,
    /// Bytes of the values that are needed at one time, weights left out.
    pub(super) peak_bytes: f64,
    /// Bytes of the largest value.
    pub(super) largest_bytes: f64,
}

struct Inference<'a> {
    precision: Precision,
    values: Vec<Option<Known>>,
    live: f64,
    inferred: Inferred,
    weights: &'a [(Slot, Weight)],
}

/// Follows a graph whose inputs have these shapes.
///
/// # Errors
/// The first node that cannot take what it would be given, with its name.
pub(super) fn infer(graph: &Graph, inputs: &[Vec<usize>], precision: Precision) -> Result<Inferred, String> {
    let mut inference = Inference {
        precision,
        values: vec![None; graph.slots],
        live: 0.0,
        inferred: Inferred::default(),
        weights: &graph.weights,
    };
    inference.place_weights();
    for ((&slot, declared), dims) in graph.block.inputs.iter().zip(&graph.inputs).zip(inputs) {
        inference.set(slot, Some(Known::new(declared.element.dtype(precision), dims.clone())));
    }
    inference.follow(&graph.block)?;
    let dims = |slot: &Slot| inference.values.get(*slot)?.as_ref().map(|known| known.dims.clone());
    let outputs = graph.block.outputs.iter().map(dims).collect();
    Ok(Inferred { outputs, ..inference.inferred })
}

impl Inference<'_> {
    fn place_weights(&mut self) {
        for (slot, weight) in self.weights {
            let small = elements(&weight.dims).is_some_and(|count| count <= SMALL);
            let value = if small { weight.tensor(self.precision).ok() } else { None };
            let dtype = weight.element.dtype(self.precision);
            self.values[*slot] = Some(Known { dtype, dims: weight.dims.clone(), value });
        }
    }

    fn set(&mut self, slot: Slot, known: Option<Known>) {
        let bytes = |known: &Option<Known>| known.as_ref().map_or(0.0, Known::bytes);
        self.live += bytes(&known) - bytes(&self.values[slot]);
        self.inferred.largest_bytes = self.inferred.largest_bytes.max(bytes(&known));
        self.inferred.peak_bytes = self.inferred.peak_bytes.max(self.live);
        self.values[slot] = known;
    }

    fn follow(&mut self, block: &Block) -> Result<(), String> {
        for node in &block.nodes {
            let outputs = self.node(node).map_err(|fault| fault.at(&node.label).message)?;
            for (index, slot) in node.outputs.iter().enumerate() {
                if let Some(slot) = slot {
                    self.set(*slot, outputs.get(index).cloned().flatten());
                }
            }
            node.last_uses.iter().for_each(|&slot| self.set(slot, None));
        }
        Ok(())
    }

    fn node(&mut self, node: &Node) -> Outcome<Vec<Option<Known>>> {
        let inputs: Vec<Option<&Known>> =
            node.inputs.iter().map(|slot| slot.and_then(|slot| self.values[slot].as_ref())).collect();
        let missing = node.inputs.iter().zip(&inputs).any(|(slot, known)| slot.is_some() && known.is_none());
        match node.operator.kernel {
            Kernel::If => {
                let condition = inputs.first().copied().flatten().and_then(|known| known.value.clone());
                self.branch(node, condition)
            }
            Kernel::Loop => Ok(Vec::new()),
            Kernel::Compute(_) if missing => Ok(Vec::new()),
            Kernel::Compute(_) => match self.computed(node, &inputs) {
                Some(outputs) => Ok(outputs.into_iter().map(Some).collect()),
                None => {
                    let inputs: Vec<Option<Known>> = inputs.into_iter().map(|known| known.cloned()).collect();
                    let (outputs, flops) = rules::outputs(node, &inputs, self.precision)?;
                    self.inferred.flops += flops;
                    Ok(outputs)
                }
            },
        }
    }

    /// The outputs of small values that are known, computed for real.
    fn computed(&self, node: &Node, inputs: &[Option<&Known>]) -> Option<Vec<Known>> {
        let Kernel::Compute(compute) = node.operator.kernel else { return None };
        let value = |known: &Option<&Known>| match known {
            None => Some(None),
            Some(known) => known.value.clone().map(Some),
        };
        let values: Vec<Option<Tensor>> = inputs.iter().map(value).collect::<Option<_>>()?;
        let large = node.attributes.tensors().any(|weight| elements(&weight.dims).is_none_or(|count| count > SMALL));
        if large {
            return None;
        }
        let call =
            Call { node, inputs: &values, device: &Device::Cpu, precision: self.precision, most_bytes: SMALL_BYTES };
        let outputs = compute(&call).ok()?;
        let known = |tensor: Tensor| {
            let value = (tensor.elem_count() <= SMALL).then(|| tensor.clone());
            Known { dtype: tensor.dtype(), dims: tensor.dims().to_vec(), value }
        };
        Some(outputs.into_iter().map(known).collect())
    }

    /// The branch that is taken where that is known, the first otherwise.
    fn branch(&mut self, node: &Node, condition: Option<Tensor>) -> Outcome<Vec<Option<Known>>> {
        let certain = condition.map(|condition| holds(&condition)).transpose()?;
        let name = if certain.unwrap_or(true) { "then_branch" } else { "else_branch" };
        let Some((_, body)) = node.bodies.iter().find(|(known, _)| known == name) else {
            return Err(refused!("its graph '{name}' is missing"));
        };
        match self.follow(body) {
            Ok(()) => Ok(body.outputs.iter().map(|&slot| self.values[slot].clone()).collect()),
            Err(problem) if certain.is_some() => Err(Fault::Refused(problem)),
            // A branch that would not be taken may be wrong.
            Err(_) => Ok(Vec::new()),
        }
    }
}

/// Whether a value's type is one that arithmetic counts for.
pub(super) fn counts(known: &Known) -> bool {
    is_float(known.dtype)
}
