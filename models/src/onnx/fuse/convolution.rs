//! Convolutions, and the additions and limits that follow them.

use super::{
    super::{
        graph::{Node, Slot},
        operators::{ADDED, floats_of},
    },
    Fuser, renamed,
};
use crate::kernels::Limits;

/// What a convolution does beside, for nodes that followed it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::onnx) struct Fused {
    /// Whether it adds its input [`ADDED`].
    pub(in crate::onnx) adds: bool,
    pub(in crate::onnx) limits: Limits,
}

impl Default for Fused {
    fn default() -> Self {
        Self { adds: false, limits: Limits::NONE }
    }
}

impl Fuser<'_> {
    /// A convolution that does what the node would; the node where there is none.
    pub(super) fn convolution(&mut self, node: Node) -> Node {
        match node.operator.name {
            "Relu" => self.limited(node, Some(Limits::RELU)),
            "Clip" => {
                let limits = self.limits_of(&node);
                self.limited(node, limits)
            }
            "Add" => self.added(node),
            _ => node,
        }
    }

    /// The convolution that makes an input, which has no limits yet.
    fn convolved(&self, node: &Node, input: usize) -> Option<(usize, &Node)> {
        let found = self.maker(node, input)?;
        (found.1.operator.name == "Conv" && found.1.fused.limits == Limits::NONE).then_some(found)
    }

    fn limited(&mut self, node: Node, limits: Option<Limits>) -> Node {
        let found = limits.zip(self.convolved(&node, 0).map(|(index, _)| index));
        let Some((limits, made)) = found.and_then(|(limits, index)| Some((limits, self.take(index)?))) else {
            return node;
        };
        let mut made = renamed(made, &node);
        made.fused.limits = limits;
        made
    }

    fn added(&mut self, node: Node) -> Node {
        // The later of two, so that the other is there.
        let adds = |input| self.convolved(&node, input).filter(|(_, made)| !made.fused.adds);
        let found = [0, 1].into_iter().filter_map(|input| Some((adds(input)?.0, input))).max();
        let Some((index, input)) = found else { return node };
        let other: Option<Slot> = node.inputs.get(1 - input).copied().flatten();
        // Constants are offsets of channels, as a rule, and of another shape.
        let Some(other) = other.filter(|_| self.constant(&node, 1 - input).is_none()) else { return node };
        let Some(made) = self.take(index) else { return node };
        let mut made = renamed(made, &node);
        made.fused.adds = true;
        made.inputs.truncate(ADDED);
        made.inputs.resize(ADDED, None);
        made.inputs.push(Some(other));
        made
    }

    /// The limits of a clip that are known.
    fn limits_of(&self, node: &Node) -> Option<Limits> {
        let bound = |input: usize, name: &str, none: f32| match node.inputs.get(input).copied().flatten() {
            Some(_) => match floats_of(self.constant(node, input)?).ok()?.as_slice() {
                // Not those that f32 does not hold.
                [value] if f64::from(*value as f32) == *value => Some(*value as f32),
                _ => None,
            },
            None => node.attributes.float(name, none).ok(),
        };
        let (least, most) = (bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?);
        // Not where one is no number.
        (least <= f32::INFINITY && most >= f32::NEG_INFINITY).then_some(Limits(least, most))
    }
}
