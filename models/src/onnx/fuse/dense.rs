//! Products with weights that are known: packed once, with the bias and the GELU that follow.

use candle_core::DType;

use super::{
    super::{graph::Node, operators::DENSE},
    Fuser, renamed,
};
use crate::kernels::{Activation, Linear};

/// Fewer outputs would mostly fill the packed weight up.
const LEAST_OUTPUTS: usize = 16;

/// A packed weight, and what its product takes.
pub(in crate::onnx) struct Dense {
    pub(in crate::onnx) layer: Linear,
    pub(in crate::onnx) inputs: usize,
    pub(in crate::onnx) outputs: usize,
    pub(in crate::onnx) dtype: DType,
    /// Whether only a matrix is taken, no stack of them.
    pub(in crate::onnx) matrix: bool,
    /// What follows already.
    biased: bool,
    activated: bool,
}

impl Fuser<'_> {
    /// A product that is packed, or one that does what the node would; the node where there is none.
    pub(super) fn dense(&mut self, node: Node) -> Node {
        match node.operator.name {
            "MatMul" | "Gemm" => self.packed(node),
            "Add" => self.biased(node),
            "Gelu" if matches!(node.attributes.text("approximate", "none"), Ok("none")) => self.activated(node),
            _ => node,
        }
    }

    fn packed(&mut self, mut node: Node) -> Node {
        let Some(dense) = self.pack(&node) else { return node };
        // It is held packed from now on.
        if let Some(constant) = node.inputs[1].and_then(|slot| self.evaluator.constants.get_mut(slot)) {
            *constant = None;
        }
        node.operator = &DENSE;
        node.inputs.truncate(1);
        node.dense = Some(Box::new(dense));
        node
    }

    fn pack(&self, node: &Node) -> Option<Dense> {
        let gemm = node.operator.name == "Gemm";
        // What is no flag is left to the node, which refuses it.
        let flag = |name: &str| if gemm { node.attributes.flag(name, false).ok() } else { Some(false) };
        let factor = |name: &str| !gemm || node.attributes.float(name, 1.0).is_ok_and(|factor| factor == 1.0);
        if !self.evaluator.device.is_cpu() || flag("transA")? || !factor("alpha") || !factor("beta") {
            return None;
        }
        let weight = self.constant(node, 1).filter(|_| self.reads_alone(node, 1))?;
        let precision = self.evaluator.precision;
        let (dtype, transposed) = (weight.dtype(), flag("transB")?);
        let (rows, columns) = weight.dims2().ok().filter(|_| dtype == precision.dtype())?;
        let (inputs, outputs) = if transposed { (columns, rows) } else { (rows, columns) };
        if inputs == 0 || outputs < LEAST_OUTPUTS {
            return None;
        }
        let bias = match node.inputs.get(2).copied().flatten().filter(|_| gemm) {
            Some(_) => Some(self.offsets(node, 2, outputs, dtype)?),
            None => None,
        };
        let ordered = if transposed { weight.clone() } else { weight.t().ok()? };
        let flat = ordered.to_dtype(DType::F32).ok()?.flatten_all().ok()?;
        drop(ordered);
        let ordered = flat.to_vec1::<f32>().ok()?;
        // Before the packed one is made beside it.
        drop(flat);
        let biased = bias.is_some();
        let bias = bias.unwrap_or_else(|| vec![0.0; outputs]);
        let layer = Linear::held_in(precision, &ordered, bias, Activation::None);
        Some(Dense { layer, inputs, outputs, dtype, matrix: gemm, biased, activated: false })
    }

    /// A known offset for each output, in the type of the product.
    fn offsets(&self, node: &Node, input: usize, outputs: usize, dtype: DType) -> Option<Vec<f32>> {
        let offsets = self.constant(node, input)?;
        if offsets.dims() != [outputs] || offsets.dtype() != dtype {
            return None;
        }
        offsets.to_dtype(DType::F32).ok()?.to_vec1().ok()
    }

    fn biased(&mut self, node: Node) -> Node {
        let found = [0, 1].into_iter().find_map(|input| {
            let (index, made) = self.maker(&node, input)?;
            let dense = made.dense.as_ref().filter(|dense| !dense.biased && !dense.activated)?;
            Some((index, self.offsets(&node, 1 - input, dense.outputs, dense.dtype)?))
        });
        let Some((made, offsets)) = found.and_then(|(index, offsets)| Some((self.take(index)?, offsets))) else {
            return node;
        };
        let mut made = renamed(made, &node);
        if let Some(dense) = &mut made.dense {
            dense.layer.set_bias(offsets);
            dense.biased = true;
        }
        made
    }

    fn activated(&mut self, node: Node) -> Node {
        let plain = |(_, made): &(usize, &Node)| made.dense.as_ref().is_some_and(|dense| !dense.activated);
        let found = self.maker(&node, 0).filter(plain).map(|(index, _)| index);
        let Some(made) = found.and_then(|index| self.take(index)) else { return node };
        let mut made = renamed(made, &node);
        if let Some(dense) = &mut made.dense {
            dense.layer.set_activation(Activation::Gelu);
            dense.activated = true;
        }
        made
    }
}
