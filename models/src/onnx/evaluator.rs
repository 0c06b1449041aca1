//! Runs a graph: node after node, each value dropped when nobody needs it any more.

use candle_core::{DType, Device, Tensor};
use orion_proto::{Code, Error, Result};

use super::{
    fault::{Fault, refused},
    graph::{Block, Graph, Node, Slot},
    operators::{Call, Kernel, holds},
};
use crate::Precision;

/// Rounds of one loop; a graph that needs more does not end.
const MOST_ROUNDS: i64 = 1 << 16;

/// What one run may take of memory, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// One tensor.
    pub(super) tensor: usize,
    /// All tensors that are needed at one time.
    pub(super) together: usize,
}

/// A graph in memory.
pub(super) struct Evaluator {
    pub(super) graph: Graph,
    /// Values that do not depend on the inputs, by slot.
    pub(super) constants: Vec<Option<Tensor>>,
    pub(super) device: Device,
    pub(super) precision: Precision,
    pub(super) limits: Limits,
}

/// Values while a graph runs.
struct Values {
    slots: Vec<Option<Tensor>>,
    bytes: usize,
    peak: usize,
}

/// What a tensor takes.
pub(super) fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count().saturating_mul(tensor.dtype().size_in_bytes())
}

impl Values {
    fn set(&mut self, slot: Slot, tensor: Option<Tensor>) {
        self.bytes = self.bytes.saturating_add(tensor.as_ref().map_or(0, bytes));
        self.peak = self.peak.max(self.bytes);
        let before = self.slots.get_mut(slot).and_then(|place| std::mem::replace(place, tensor));
        self.bytes = self.bytes.saturating_sub(before.as_ref().map_or(0, bytes));
    }
}

impl Evaluator {
    /// The outputs of these inputs, which come in the graph's order, in the types that it declares.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the node that cannot take what it is given, RESOURCE_EXHAUSTED for a run that takes more
    /// memory than it may, INTERNAL where the tensor library fails.
    pub(super) fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        self.run_counted(inputs).map(|(outputs, _)| outputs)
    }

    /// The same, and the bytes that values took together at most.
    ///
    /// # Errors
    /// Those of `run`.
    pub(super) fn run_counted(&self, inputs: Vec<Tensor>) -> Result<(Vec<Tensor>, usize)> {
        let mut values = Values { slots: vec![None; self.graph.slots], bytes: 0, peak: 0 };
        for (&slot, input) in self.graph.block.inputs.iter().zip(inputs) {
            values.set(slot, Some(input));
        }
        let outputs = self.run_block(&self.graph.block, &mut values)?;
        Ok((outputs, values.peak))
    }

    fn value(&self, values: &Values, slot: Slot) -> Option<Tensor> {
        let computed = values.slots.get(slot).and_then(Option::as_ref);
        computed.or_else(|| self.constants.get(slot).and_then(Option::as_ref)).cloned()
    }

    fn run_block(&self, block: &Block, values: &mut Values) -> Result<Vec<Tensor>> {
        for node in &block.nodes {
            let outputs = self.run_node(node, values)?;
            let wanted = node.outputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            if outputs.len() < wanted {
                return Err(Error::invalid(format!(
                    "{}: it gives {} outputs, {wanted} are used",
                    node.label,
                    outputs.len()
                )));
            }
            for (slot, output) in node.outputs.iter().zip(outputs) {
                if let Some(slot) = slot {
                    values.set(*slot, Some(output));
                }
            }
            if values.bytes > self.limits.together {
                let most = self.limits.together;
                let message =
                    format!("{}: the request takes more than the {most} bytes that a run may have", node.label);
                return Err(Error::new(Code::ResourceExhausted, message));
            }
            node.last_uses.iter().for_each(|&slot| values.set(slot, None));
        }
        let output =
            |&slot: &Slot| self.value(values, slot).ok_or_else(|| Error::invalid("an output was not computed"));
        let outputs = block.outputs.iter().map(output).collect();
        block.own_outputs.iter().for_each(|&slot| values.set(slot, None));
        outputs
    }

    fn run_node(&self, node: &Node, values: &mut Values) -> Result<Vec<Tensor>> {
        let inputs: Vec<Option<Tensor>> =
            node.inputs.iter().map(|slot| slot.and_then(|slot| self.value(values, slot))).collect();
        match node.operator.kernel {
            Kernel::Compute(compute) => {
                compute(&self.call(node, &inputs, self.limits.tensor)).map_err(|fault| fault.at(&node.label))
            }
            Kernel::If => self.run_if(node, &inputs, values),
            Kernel::Loop => self.run_loop(node, &inputs, values),
        }
    }

    /// What a node is called with.
    pub(super) fn call<'a>(&'a self, node: &'a Node, inputs: &'a [Option<Tensor>], most_bytes: usize) -> Call<'a> {
        Call { node, inputs, device: &self.device, precision: self.precision, most_bytes }
    }

    fn run_if(&self, node: &Node, inputs: &[Option<Tensor>], values: &mut Values) -> Result<Vec<Tensor>> {
        let at = |fault: Fault| fault.at(&node.label);
        let condition =
            inputs.first().and_then(Option::as_ref).ok_or_else(|| at(refused!("its condition is missing")))?;
        let name = if holds(condition).map_err(at)? { "then_branch" } else { "else_branch" };
        self.run_block(body(node, name)?, values)
    }

    fn run_loop(&self, node: &Node, inputs: &[Option<Tensor>], values: &mut Values) -> Result<Vec<Tensor>> {
        let at = |fault: Fault| fault.at(&node.label);
        let condition = |tensor: &Tensor| holds(tensor).map_err(at);
        let body = body(node, "body")?;
        let mut state: Vec<Tensor> = inputs.iter().skip(2).flatten().cloned().collect();
        let carried = state.len();
        if body.inputs.len() != carried + 2 || body.outputs.len() < carried + 1 {
            return Err(at(refused!("its body takes {} values and gives {}", body.inputs.len(), body.outputs.len())));
        }
        let rounds = match inputs.first().and_then(Option::as_ref) {
            Some(rounds) => super::operators::ints_of(rounds).map_err(at)?.first().copied().unwrap_or(0),
            None => i64::MAX,
        };
        let mut goes_on = inputs.get(1).and_then(Option::as_ref).map_or(Ok(true), condition)?;
        let mut given: Vec<Vec<Tensor>> = vec![Vec::new(); body.outputs.len() - 1 - carried];
        let mut round = 0;
        while goes_on && round < rounds {
            if round == MOST_ROUNDS {
                return Err(at(refused!("it does not end within {MOST_ROUNDS} rounds")));
            }
            let number = Tensor::from_vec(vec![round], (), &Device::Cpu).map_err(|error| at(error.into()))?;
            let flag = Tensor::from_vec(vec![1u8], (), &Device::Cpu).map_err(|error| at(error.into()))?;
            for (&slot, value) in body.inputs.iter().zip([number, flag].into_iter().chain(state)) {
                values.set(slot, Some(value));
            }
            let mut outputs = self.run_block(body, values)?.into_iter();
            goes_on = outputs.next().as_ref().map_or(Ok(false), condition)?;
            state = outputs.by_ref().take(carried).collect();
            given.iter_mut().zip(outputs).for_each(|(all, output)| all.push(output));
            self.check_collected(node, &given)?;
            round += 1;
        }
        for all in given {
            // Without a round nobody knows the shape of what it would have given.
            let stacked =
                if all.is_empty() { Tensor::zeros(0, DType::F32, &Device::Cpu) } else { Tensor::stack(&all, 0) };
            state.push(stacked.map_err(|error| at(error.into()))?);
        }
        Ok(state)
    }

    /// Refuses a loop whose collected values take more than one tensor may.
    fn check_collected(&self, node: &Node, given: &[Vec<Tensor>]) -> Result<()> {
        let most = self.limits.tensor;
        let large = |all: &Vec<Tensor>| all.last().map_or(0, bytes).saturating_mul(all.len()) > most;
        match given.iter().any(large) {
            true => {
                Err(refused!("what it collects takes more than the {most} bytes that one tensor may have")
                    .at(&node.label))
            }
            false => Ok(()),
        }
    }
}

fn body<'a>(node: &'a Node, name: &str) -> Result<&'a Block> {
    let found = node.bodies.iter().find(|(known, _)| known == name).map(|(_, body)| body);
    found.ok_or_else(|| refused!("its graph '{name}' is missing").at(&node.label))
}
