//! A bidirectional LSTM of one layer (Hochreiter and Schmidhuber, 1997), as PyTorch computes it.

use orion_proto::Result;
use rayon::prelude::*;

use crate::{
    Precision,
    checkpoint::Checkpoint,
    kernels::{Activation, Border, Convolution, Layout, Limits, Linear, Map, Threads, Window, lstm_cell},
};

/// Sequences that one thread takes at once: the recurrent weights are read once for all of them.
const FEWEST_SEQUENCES: usize = 4;
const MOST_SEQUENCES: usize = 16;

/// Tensors `rnn.weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0` and `bias_hh_l0`, and the same with `_reverse`; gates lie in the
/// order input, forget, cell, output.
pub(super) struct Lstm {
    /// What the inputs add to the gates, of both directions side by side.
    input: Linear,
    /// What the last hidden state adds to them.
    recurrent: [Convolution; 2],
    inputs: usize,
    hidden: usize,
}

impl Lstm {
    /// Reads the tensors, to be held in a precision. `hidden` is a multiple of 16.
    pub(super) fn load(checkpoint: &Checkpoint, inputs: usize, hidden: usize, precision: Precision) -> Result<Self> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for direction in ["", "_reverse"] {
            let tensor = |name: &str, shape: &[usize]| checkpoint.floats(&format!("rnn.{name}_l0{direction}"), shape);
            weight.extend(tensor("weight_ih", &[4 * hidden, inputs])?);
            let (of_input, of_hidden) = (tensor("bias_ih", &[4 * hidden])?, tensor("bias_hh", &[4 * hidden])?);
            bias.extend(of_input.iter().zip(of_hidden).map(|(a, b)| a + b));
        }
        let recurrent = |name: &str| -> Result<Convolution> {
            let weight = checkpoint.floats(name, &[4 * hidden, hidden])?;
            Ok(Convolution::new(&weight, vec![0.0; 4 * hidden], Window::PIXEL, Limits::NONE, precision))
        };
        let recurrent = [recurrent("rnn.weight_hh_l0")?, recurrent("rnn.weight_hh_l0_reverse")?];
        Ok(Self { input: Linear::held_in(precision, &weight, bias, Activation::None), recurrent, inputs, hidden })
    }

    /// The tensors that it reads, with their shapes.
    pub(super) fn tensors(inputs: usize, hidden: usize) -> Vec<(String, Vec<usize>)> {
        let gates = 4 * hidden;
        let direction = |direction: &'static str| {
            [
                ("weight_ih", vec![gates, inputs]),
                ("weight_hh", vec![gates, hidden]),
                ("bias_ih", vec![gates]),
                ("bias_hh", vec![gates]),
            ]
            .map(move |(part, shape)| (format!("rnn.{part}_l0{direction}"), shape))
        };
        ["", "_reverse"].into_iter().flat_map(direction).collect()
    }

    /// Bytes of the packed weights, and of what so many steps need.
    pub(super) fn bytes(inputs: usize, hidden: usize, steps: usize, precision: Precision) -> u64 {
        let a_step = inputs + 8 * hidden + 4 * hidden;
        Linear::bytes(inputs, 8 * hidden, precision)
            + 2 * Linear::bytes(hidden, 4 * hidden, precision)
            + (steps * a_step * size_of::<f32>()) as u64
    }

    /// Of `x` `[sequences, steps, inputs]`; `[sequences, steps, 2 · hidden]`, the forward direction first.
    pub(super) fn forward(&self, x: &[f32], sequences: usize) -> Vec<f32> {
        let hidden = self.hidden;
        let steps = x.len() / self.inputs / sequences.max(1);
        let mut gates = vec![0.0; sequences * steps * 8 * hidden];
        self.input.forward(x, &mut gates);

        let group = (2 * sequences / rayon::current_num_threads()).clamp(FEWEST_SEQUENCES, MOST_SEQUENCES);
        let groups: Vec<&[f32]> = gates.chunks(group * steps.max(1) * 8 * hidden).collect();
        let one = |task: usize| self.direction(task % 2, groups[task / 2], steps);
        let directions: Vec<Vec<f32>> = (0..2 * groups.len()).into_par_iter().map(one).collect();

        let mut out = Vec::with_capacity(sequences * steps * 2 * hidden);
        for both in directions.chunks_exact(2) {
            for (forward, backward) in both[0].chunks_exact(hidden).zip(both[1].chunks_exact(hidden)) {
                out.extend_from_slice(forward);
                out.extend_from_slice(backward);
            }
        }
        out
    }

    /// One direction over some sequences, whose gates hold what the inputs add: `[sequences, steps, hidden]`.
    fn direction(&self, direction: usize, gates: &[f32], steps: usize) -> Vec<f32> {
        let hidden = self.hidden;
        let sequences = gates.len() / (steps.max(1) * 8 * hidden);
        let layout = |channels| Layout { height: 1, width: sequences, channels, border: Border::default() };
        let [mut state, mut added] = [hidden, 4 * hidden].map(|channels| {
            let mut map = Map::default();
            map.reshape(layout(channels));
            map
        });
        let mut cell = vec![0.0; sequences * hidden];
        let mut out = vec![0.0; sequences * steps * hidden];
        for index in 0..steps {
            let step = if direction == 0 { index } else { steps - 1 - index };
            self.recurrent[direction].forward(Threads::One, &state, &mut added, None);
            let rows = state.pixels_mut(0).chunks_exact_mut(hidden).zip(cell.chunks_exact_mut(hidden));
            for (sequence, ((state, cell), added)) in rows.zip(added.pixels(0).chunks_exact(4 * hidden)).enumerate() {
                let row = sequence * steps + step;
                lstm_cell(&gates[row * 8 * hidden + direction * 4 * hidden..][..4 * hidden], added, cell, state);
                out[row * hidden..][..hidden].copy_from_slice(state);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convnet::made;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    fn sigmoid(x: f32) -> f32 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn agrees_with_the_plain_recurrence_whatever_the_batch() {
        let (inputs, hidden, steps, sequences) = (5, 16, 7, 9);
        let mut random = StdRng::seed_from_u64(4);
        let mut floats = |count: usize| (0..count).map(|_| random.random::<f32>() * 2.0 - 1.0).collect::<Vec<f32>>();
        let folder = tempfile::tempdir().unwrap();
        made::write(folder.path(), &Lstm::tensors(inputs, hidden));
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let shape = |name: &str| checkpoint.get(name).unwrap().shape.clone();
        let x = floats(sequences * steps * inputs);
        let lstm = Lstm::load(&checkpoint, inputs, hidden, Precision::F32).unwrap();
        let got = lstm.forward(&x, sequences);
        for (sequence, x) in x.chunks_exact(steps * inputs).enumerate() {
            let alone = lstm.forward(x, 1);
            assert_eq!(alone, got[sequence * steps * 2 * hidden..][..steps * 2 * hidden]);
            for (place, direction) in ["", "_reverse"].into_iter().enumerate() {
                let [weight_ih, weight_hh, bias_ih, bias_hh] =
                    ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|part| {
                        let name = format!("rnn.{part}_l0{direction}");
                        checkpoint.floats(&name, &shape(&name)).unwrap()
                    });
                let (mut state, mut cell) = (vec![0.0; hidden], vec![0.0; hidden]);
                for index in 0..steps {
                    let step = if place == 0 { index } else { steps - 1 - index };
                    let gate = |row: usize| {
                        let dot = |weight: &[f32], x: &[f32]| -> f32 { weight.iter().zip(x).map(|(w, x)| w * x).sum() };
                        let input = dot(&weight_ih[row * inputs..][..inputs], &x[step * inputs..]);
                        let last = dot(&weight_hh[row * hidden..][..hidden], &state);
                        input + last + bias_ih[row] + bias_hh[row]
                    };
                    let gates: Vec<f32> = (0..4 * hidden).map(gate).collect();
                    for unit in 0..hidden {
                        let of = |gate: usize| gates[gate * hidden + unit];
                        cell[unit] = sigmoid(of(1)) * cell[unit] + sigmoid(of(0)) * of(2).tanh();
                        state[unit] = sigmoid(of(3)) * f32::tanh(cell[unit]);
                        let found = alone[step * 2 * hidden + place * hidden + unit];
                        assert!((found - state[unit]).abs() < 1e-5, "{direction} {step},{unit}: {found}");
                    }
                }
            }
        }
        assert!(lstm.forward(&[], 0).is_empty());
    }
}
