//! The network: magnitudes of a short-time Fourier transform, four convolutions, an LSTM cell, one output.
//!
//! Weights stand on the left of every product, and a batch is a stack of products of one window each: the same arithmetic in
//! the same order whatever is beside it, so a window's result does not depend on its batch.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::ops::sigmoid;
use orion_proto::Result as Served;

use super::{CONTEXT, HIDDEN, Source, WINDOW, failed, source::TENSORS};
use crate::checkpoint::Checkpoint;

/// Samples of one frame of the transform, and from one frame to the next.
const FRAME: usize = 256;
const HOP: usize = 128;
/// Samples that are reflected at a window's end.
const REFLECTED: usize = 64;
/// Windows that are computed at once.
const AT_ONCE: usize = 256;

/// A convolution of three places, padded by one.
struct Convolution {
    /// `[outputs, inputs · 3]`
    weight: Tensor,
    /// `[outputs, 1]`
    bias: Tensor,
    stride: usize,
}

/// The weights in the type in which they compute.
pub(super) struct Network {
    /// `[2 · magnitudes, samples of a frame]`
    transform: Tensor,
    convolutions: Vec<Convolution>,
    input: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    output: Tensor,
    output_bias: Tensor,
    dtype: DType,
    pub(super) device: Device,
}

/// The states of an LSTM cell, one row each, `[rows, HIDDEN]`.
#[derive(Clone)]
pub(super) struct Cell {
    pub(super) hidden: Tensor,
    pub(super) cell: Tensor,
}

/// A stack of products of one matrix with each of several.
fn product(weight: &Tensor, stack: &Tensor) -> Result<Tensor> {
    let (rows, columns) = weight.dims2()?;
    weight.broadcast_as((stack.dim(0)?, rows, columns))?.matmul(&stack.contiguous()?)
}

impl Convolution {
    /// Of `[rows, inputs, places]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, inputs, places) = x.dims3()?;
        let padded = x.pad_with_zeros(2, 1, 1)?;
        let outputs = (places - 1) / self.stride + 1;
        let starts = (0..3u32).flat_map(|at| (0..outputs as u32).map(move |step| step * self.stride as u32 + at));
        let starts = Tensor::from_vec(starts.collect::<Vec<u32>>(), 3 * outputs, x.device())?;
        let columns = padded.index_select(&starts, 2)?.reshape((rows, inputs * 3, outputs))?;
        product(&self.weight, &columns)?.broadcast_add(&self.bias)?.relu()
    }
}

impl Network {
    /// Reads the weights, memory-mapped.
    ///
    /// # Errors
    /// FAILED_PRECONDITION naming the tensor that is not what it should be.
    pub(super) fn load(source: &Source, device: &Device) -> Served<Self> {
        let dtype = source.precision.dtype();
        let checkpoint = Checkpoint::open(&source.folder)?;
        let weight = |name: &str| -> Served<Tensor> {
            let shape = TENSORS.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, shape)| *shape);
            checkpoint.tensor(name, shape, dtype, device)
        };
        let matrix = |name: &str, rows: usize| -> Served<Tensor> { weight(name)?.reshape((rows, ())).map_err(failed) };
        let column = |name: &str, rows: usize| -> Served<Tensor> { weight(name)?.reshape((rows, 1)).map_err(failed) };
        let strides = [1, 2, 2, 1];
        let convolution = |(index, &stride): (usize, &usize)| {
            let name = |part: &str| format!("conv{}.{part}", index + 1);
            let outputs = TENSORS[1 + 2 * index].1[0];
            Ok(Convolution { weight: matrix(&name("weight"), outputs)?, bias: column(&name("bias"), outputs)?, stride })
        };
        Ok(Self {
            transform: matrix("stft_conv.weight", TENSORS[0].1[0])?,
            convolutions: strides.iter().enumerate().map(convolution).collect::<Served<_>>()?,
            input: matrix("lstm_cell.weight_ih", 4 * HIDDEN)?,
            recurrent: matrix("lstm_cell.weight_hh", 4 * HIDDEN)?,
            bias: (column("lstm_cell.bias_ih", 4 * HIDDEN)? + column("lstm_cell.bias_hh", 4 * HIDDEN)?)
                .map_err(failed)?,
            output: matrix("final_conv.weight", 1)?,
            output_bias: column("final_conv.bias", 1)?,
            dtype,
            device: device.clone(),
        })
    }

    /// What windows say to the cell, `[rows, 4 · HIDDEN]`; each window is its context and then its own samples.
    pub(super) fn gates(&self, windows: Vec<f32>) -> Result<Tensor> {
        let samples = CONTEXT + WINDOW;
        let rows = windows.len() / samples;
        let windows = Tensor::from_vec(windows, (rows, samples), &self.device)?;
        let part = |from: usize| self.gates_of(&windows.narrow(0, from, AT_ONCE.min(rows - from))?);
        Tensor::cat(&(0..rows).step_by(AT_ONCE).map(part).collect::<Result<Vec<_>>>()?, 0)
    }

    fn gates_of(&self, windows: &Tensor) -> Result<Tensor> {
        let (rows, samples) = windows.dims2()?;
        let frames = (samples + REFLECTED - FRAME) / HOP + 1;
        // Where the samples of all frames are, those beyond the end mirrored at it.
        let mirrored = |at: usize| if at < samples { at } else { 2 * (samples - 1) - at };
        let places = (0..FRAME).flat_map(|at| (0..frames).map(move |frame| mirrored(frame * HOP + at) as u32));
        let places = Tensor::from_vec(places.collect::<Vec<u32>>(), FRAME * frames, &self.device)?;
        let framed = windows.to_dtype(self.dtype)?.index_select(&places, 1)?.reshape((rows, FRAME, frames))?;
        let transformed = product(&self.transform, &framed)?;
        let bins = transformed.dim(1)? / 2;
        let power = (transformed.narrow(1, 0, bins)?.sqr()? + transformed.narrow(1, bins, bins)?.sqr()?)?;
        let features = self.convolutions.iter().try_fold(power.sqrt()?, |x, convolution| convolution.forward(&x))?;
        product(&self.input, &features)?.broadcast_add(&self.bias)?.squeeze(2)?.to_dtype(DType::F32)
    }

    /// The next states, from those of so many rows and what their windows say.
    pub(super) fn step(&self, gates: &Tensor, state: &Cell) -> Result<Cell> {
        let recurrent = product(&self.recurrent, &state.hidden.to_dtype(self.dtype)?.unsqueeze(2)?)?;
        let gates = (gates + recurrent.squeeze(2)?.to_dtype(DType::F32)?)?;
        let gate = |at: usize| gates.narrow(1, at * HIDDEN, HIDDEN)?.contiguous();
        let (input, forget, new, output) =
            (sigmoid(&gate(0)?)?, sigmoid(&gate(1)?)?, gate(2)?.tanh()?, sigmoid(&gate(3)?)?);
        let cell = ((forget * &state.cell)? + (input * new)?)?;
        Ok(Cell { hidden: (output * cell.tanh()?)?, cell })
    }

    /// The probability of speech for each state, `[rows]`.
    pub(super) fn speech(&self, hidden: &Tensor) -> Result<Vec<f32>> {
        let active = hidden.relu()?.to_dtype(self.dtype)?.unsqueeze(2)?;
        let score = product(&self.output, &active)?.broadcast_add(&self.output_bias)?;
        sigmoid(&score.to_dtype(DType::F32)?)?.flatten_all()?.to_vec1()
    }
}
