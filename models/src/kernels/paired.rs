//! A weight in bf16 whose inputs lie in pairs, for products that take two of them at once.

use half::bf16;
use pulp::Arch;

use super::{
    bf16_dot::Bf16Dot,
    panels::{MOST_WIDTH, MachineWidth},
};

/// `[outputs, inputs]` in panels of [`MOST_WIDTH`] outputs: pair after pair of inputs, of each the outputs' two values.
pub(super) struct PairedWeight {
    pub(super) dot: Bf16Dot,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    values: Vec<bf16>,
}

impl PairedWeight {
    /// Packs `[outputs, inputs]`; `None` where the machine has no such products, or an input would have no other.
    pub(super) fn new(from: &[f32], outputs: usize) -> Option<Self> {
        let (dot, inputs) = (Bf16Dot::detect()?, from.len() / outputs);
        if !inputs.is_multiple_of(2) || Arch::new().dispatch(MachineWidth) != MOST_WIDTH {
            return None;
        }
        let mut values = vec![bf16::ZERO; outputs.next_multiple_of(MOST_WIDTH) * inputs];
        for (panel, rows) in values.chunks_exact_mut(MOST_WIDTH * inputs).zip(from.chunks(MOST_WIDTH * inputs)) {
            for (column, row) in rows.chunks_exact(inputs).enumerate() {
                for (pair, values) in panel.chunks_exact_mut(2 * MOST_WIDTH).zip(row.chunks_exact(2)) {
                    pair[2 * column] = bf16::from_f32(values[0]);
                    pair[2 * column + 1] = bf16::from_f32(values[1]);
                }
            }
        }
        Some(Self { dot, inputs, outputs, values })
    }

    /// A panel with the outputs that it holds.
    #[inline(always)]
    pub(super) fn panel(&self, index: usize) -> (&[bf16], std::ops::Range<usize>) {
        let (size, first) = (MOST_WIDTH * self.inputs, index * MOST_WIDTH);
        (&self.values[index * size..][..size], first..(first + MOST_WIDTH).min(self.outputs))
    }
}
