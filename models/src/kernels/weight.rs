//! A weight in panels, held in f32 or in half precision: half the memory, widened panel by panel where it is multiplied.

use std::ops::Range;

use half::{bf16, f16, slice::HalfFloatSliceExt};
use pulp::Arch;

use super::panels::{MOST_WIDTH, MachineWidth, Panels};
use crate::Precision;

/// `[outputs, inputs]`, transposed and packed.
pub(super) struct Weight {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    width: usize,
    values: Values,
}

enum Values {
    F32(Panels),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Weight {
    /// Packs `[outputs, inputs]`. What is beyond the range of f16 becomes its greatest value.
    pub(super) fn new(from: &[f32], outputs: usize, precision: Precision) -> Self {
        let (inputs, width) = (from.len() / outputs, Arch::new().dispatch(MachineWidth));
        let mut panels = Panels::default();
        panels.reshape(inputs, outputs, width);
        panels.pack_transposed(from, inputs);
        let (least, most) = (f16::MIN.to_f32(), f16::MAX.to_f32());
        let packed = || panels.values().iter();
        let values = match precision {
            Precision::F32 => Values::F32(panels),
            Precision::F16 => Values::F16(packed().map(|value| f16::from_f32(value.clamp(least, most))).collect()),
            Precision::Bf16 => Values::Bf16(packed().map(|value| bf16::from_f32(*value)).collect()),
        };
        Self { inputs, outputs, width, values }
    }

    /// Bytes at most, for any instruction set.
    pub(super) fn bytes(inputs: usize, outputs: usize, precision: Precision) -> u64 {
        (inputs * outputs.next_multiple_of(MOST_WIDTH) * precision.bytes()) as u64
    }

    /// A bias, filled with zeros to whole panels.
    pub(super) fn padded(&self, mut bias: Vec<f32>) -> Vec<f32> {
        bias.resize(self.outputs.next_multiple_of(self.width), 0.0);
        bias
    }

    /// How many panels there are.
    #[inline(always)]
    pub(super) fn count(&self) -> usize {
        self.outputs.div_ceil(self.width)
    }

    /// A panel with the outputs that it holds; `widened` is room for one in half precision.
    #[inline(always)]
    pub(super) fn panel<'a>(&'a self, index: usize, widened: &'a mut Vec<f32>) -> (&'a [f32], Range<usize>) {
        let (size, first) = (self.inputs * self.width, index * self.width);
        let outputs = first..(first + self.width).min(self.outputs);
        let place = index * size..(index + 1) * size;
        if !matches!(self.values, Values::F32(_)) {
            widened.resize(size, 0.0);
        }
        match &self.values {
            Values::F32(panels) => return panels.panel(index),
            Values::F16(values) => values[place].convert_to_f32_slice(widened),
            // Its bits are the upper half of those of f32.
            Values::Bf16(values) => {
                let wide = |value: &bf16| f32::from_bits(u32::from(value.to_bits()) << 16);
                widened.iter_mut().zip(&values[place]).for_each(|(to, value)| *to = wide(value));
            }
        }
        (widened, outputs)
    }
}

/// All of them, for tests.
#[cfg(test)]
pub(super) const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Bf16];

/// Values that a precision holds exactly, for tests.
#[cfg(test)]
pub(super) fn rounded(values: &[f32], precision: Precision) -> Vec<f32> {
    let round = |value: &f32| match precision {
        Precision::F32 => *value,
        Precision::F16 => f16::from_f32(*value).to_f32(),
        Precision::Bf16 => bf16::from_f32(*value).to_f32(),
    };
    values.iter().map(round).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_takes_half_the_memory_and_keeps_to_its_range() {
        let bytes = PRECISIONS.map(|precision| Weight::bytes(3, 33, precision));
        assert_eq!(bytes, [3 * 64 * 4, 3 * 64 * 2, 3 * 64 * 2]);
        let weight = Weight::new(&[1e9, -1e9, f32::NAN], 3, Precision::F16);
        let mut widened = Vec::new();
        let (values, outputs) = weight.panel(0, &mut widened);
        assert_eq!((values[0], values[1], outputs), (65504.0, -65504.0, 0..3));
        assert!(values[2].is_nan());
    }
}
