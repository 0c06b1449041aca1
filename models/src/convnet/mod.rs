//! Networks of convolutions: a list of operations on feature maps, from which tensors, memory and work follow before
//! anything is loaded.

mod layers;
#[cfg(test)]
pub(crate) mod made;
mod storage;

pub(crate) use layers::Layers;

use crate::{
    Precision,
    checkpoint::Checkpoint,
    kernels::{Border, Depthwise, Layout, Limits, Linear, Window},
};
use storage::Storage;

/// A feature map of a network: its input, or what an operation makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value(usize);

/// How a convolution pads its input with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// By so many pixels on every side.
    Even(usize),
    /// So that a stride of 1 keeps the size, the odd pixel at the end, as TensorFlow's "same" does.
    Same,
}

/// A convolution as a checkpoint holds it: `NAME.weight`, perhaps `NAME.bias`, perhaps a batch normalisation behind it.
#[derive(Clone, Debug)]
pub(crate) struct Convolve {
    pub(crate) name: String,
    pub(crate) biased: bool,
    pub(crate) norm: Option<BatchNorm>,
    /// Channels that come out.
    pub(crate) outputs: usize,
    /// Pixels of the window's side.
    pub(crate) side: usize,
    pub(crate) stride: usize,
    pub(crate) padding: Padding,
    /// Whether each channel has a window of its own.
    pub(crate) depthwise: bool,
    pub(crate) limits: Limits,
}

/// `NAME.weight`, `NAME.bias`, `NAME.running_mean` and `NAME.running_var`.
#[derive(Clone, Debug)]
pub(crate) struct BatchNorm {
    pub(crate) name: String,
    pub(crate) epsilon: f64,
}

#[derive(Clone, Debug)]
enum Work {
    Convolve(Convolve, Window),
    /// The greatest value of a window; its input is not negative, so that zeros pad it.
    Greatest(Window),
}

/// One step; its output is the value of its place in the list, counted from 1.
#[derive(Clone, Debug)]
struct Operation {
    work: Work,
    from: Value,
    added: Option<Value>,
}

/// A network before it is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    operations: Vec<Operation>,
    /// Of the input, and of what each operation makes.
    layouts: Vec<Layout>,
}

impl Network {
    /// A network that takes images of this size; what it makes is its input until an operation follows.
    pub(crate) fn new(height: usize, width: usize, channels: usize) -> Self {
        let layout = Layout { height, width, channels, border: Border::default() };
        Self { operations: Vec::new(), layouts: vec![layout] }
    }

    /// What it makes: the value of its last operation.
    pub(crate) fn output(&self) -> Value {
        Value(self.operations.len())
    }

    /// Where a value's pixels lie.
    pub(crate) fn layout(&self, value: Value) -> &Layout {
        &self.layouts[value.0]
    }

    /// Appends a convolution of `from`, to which `added` is added before the limits.
    pub(crate) fn convolve(&mut self, from: Value, convolve: Convolve, added: Option<Value>) -> Result<Value, String> {
        let Layout { height, width, .. } = *self.layout(from);
        let Convolve { side, stride, outputs, .. } = convolve;
        let border = match convolve.padding {
            Padding::Even(pixels) => Border::even(pixels),
            Padding::Same => same(height, width, side, stride),
        };
        let window = Window { side, stride: (stride, stride), border };
        self.append(from, Work::Convolve(convolve, window), &window, outputs, added)
    }

    /// Appends the greatest value of a window over `from`, which must not be negative.
    pub(crate) fn greatest(&mut self, from: Value, window: Window) -> Result<Value, String> {
        let channels = self.layout(from).channels;
        self.append(from, Work::Greatest(window), &window, channels, None)
    }

    fn append(
        &mut self,
        from: Value,
        work: Work,
        window: &Window,
        channels: usize,
        added: Option<Value>,
    ) -> Result<Value, String> {
        let input = &mut self.layouts[from.0];
        let Some((height, width)) = window.moved_over(input.height, input.width) else {
            return Err(format!(
                "a window of {} pixels sees no more than {} by {}",
                window.side, input.height, input.width
            ));
        };
        input.border = input.border.union(window.border);
        let layout = Layout { height, width, channels, border: Border::default() };
        if let Some(other) = added.map(|added| self.layout(added)) {
            let size = |layout: &Layout| (layout.height, layout.width, layout.channels);
            if size(other) != size(&layout) {
                return Err(format!("a map of {:?} cannot be added to one of {:?}", size(other), size(&layout)));
            }
        }
        self.layouts.push(layout);
        self.operations.push(Operation { work, from, added });
        Ok(self.output())
    }

    /// The tensors that it reads, with their shapes.
    pub(crate) fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let convolutions = self.convolutions().flat_map(|(convolve, from, _)| {
            let Convolve { name, side, outputs, .. } = convolve;
            let inputs = if convolve.depthwise { 1 } else { from.channels };
            let mut tensors = vec![(format!("{name}.weight"), vec![*outputs, inputs, *side, *side])];
            if convolve.biased {
                tensors.push((format!("{name}.bias"), vec![*outputs]));
            }
            let norms = convolve.norm.iter().flat_map(|norm| norm.tensors());
            tensors.extend(norms.map(|tensor| (tensor, vec![*outputs])));
            tensors
        });
        convolutions.collect()
    }

    /// Floating-point operations for one image.
    pub(crate) fn flops(&self) -> f64 {
        let one = |(convolve, from, to): (&Convolve, &Layout, &Layout)| {
            let inputs = if convolve.depthwise { 1 } else { from.channels };
            2.0 * (to.height * to.width) as f64 * (convolve.outputs * inputs * convolve.side * convolve.side) as f64
        };
        self.convolutions().map(one).sum()
    }

    /// Bytes of the packed weights in a precision, and of the maps of so many images at once.
    pub(crate) fn memory_bytes(&self, images: usize, precision: Precision) -> u64 {
        let one = |(convolve, from, _): (&Convolve, &Layout, &Layout)| {
            let area = convolve.side * convolve.side;
            match convolve.depthwise {
                true => Depthwise::bytes(area, convolve.outputs),
                false => Linear::bytes(area * from.channels, convolve.outputs, precision),
            }
        };
        let weights: u64 = self.convolutions().map(one).sum();
        weights.saturating_add(Storage::of(self).bytes().saturating_mul(images as u64))
    }

    fn convolutions(&self) -> impl Iterator<Item = (&Convolve, &Layout, &Layout)> {
        self.operations.iter().enumerate().filter_map(|(index, operation)| match &operation.work {
            Work::Convolve(convolve, _) => Some((convolve, self.layout(operation.from), &self.layouts[index + 1])),
            Work::Greatest(_) => None,
        })
    }
}

impl BatchNorm {
    /// Weight, bias, mean and variance.
    fn tensors(&self) -> [String; 4] {
        ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{}.{part}", self.name))
    }
}

/// Refuses a checkpoint in which one of these tensors is missing or of another shape.
pub(crate) fn check(checkpoint: &Checkpoint, tensors: &[(String, Vec<usize>)]) -> orion_proto::Result<()> {
    tensors.iter().try_for_each(|(name, shape)| checkpoint.expect(name, shape).map(|_| ()))
}

/// TensorFlow's padding "same".
fn same(height: usize, width: usize, side: usize, stride: usize) -> Border {
    let around = |size: usize| (size.div_ceil(stride).saturating_sub(1) * stride + side).saturating_sub(size);
    let (down, across) = (around(height), around(width));
    Border { top: down / 2, bottom: down - down / 2, left: across / 2, right: across - across / 2 }
}

#[cfg(test)]
mod tests;
