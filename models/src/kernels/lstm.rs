//! One step of an LSTM's units.

use pulp::{Arch, Simd, WithSimd};

use super::math::{sigmoid, tanh};

/// Adds two parts of the gates (input, forget, cell, output, each as long as the state) and moves one sequence's cell and
/// hidden state on. The state's length is a multiple of 16.
pub(crate) fn lstm_cell(gates: &[f32], added: &[f32], cell: &mut [f32], state: &mut [f32]) {
    Arch::new().dispatch(Step { gates, added, cell, state });
}

struct Step<'a> {
    gates: &'a [f32],
    added: &'a [f32],
    cell: &'a mut [f32],
    state: &'a mut [f32],
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (gates, added) = (S::as_simd_f32s(self.gates).0, S::as_simd_f32s(self.added).0);
        let (cell, state) = (S::as_mut_simd_f32s(self.cell).0, S::as_mut_simd_f32s(self.state).0);
        let units = state.len();
        for (unit, (cell, state)) in cell.iter_mut().zip(state).enumerate() {
            let gate = |gate: usize| simd.add_f32s(gates[gate * units + unit], added[gate * units + unit]);
            let new = simd.mul_f32s(sigmoid(simd, gate(0)), tanh(simd, gate(2)));
            *cell = simd.mul_add_e_f32s(sigmoid(simd, gate(1)), *cell, new);
            *state = simd.mul_f32s(sigmoid(simd, gate(3)), tanh(simd, *cell));
        }
    }
}
