//! Recurrent layers: LSTM, GRU and plain, in either direction or both.

use candle_core::{D, Tensor};
use candle_nn::ops::sigmoid;

use super::{
    super::fault::{Outcome, refused},
    call::{Call, ints, wide},
};

/// A function of a gate.
#[derive(Clone, Copy)]
enum Activation {
    Sigmoid,
    Tanh,
    Relu,
    Affine(f64, f64),
    LeakyRelu(f64),
    HardSigmoid(f64, f64),
    Elu(f64),
    Softsign,
}

impl Activation {
    fn read(name: &str, alpha: Option<f32>, beta: Option<f32>) -> Result<Self, String> {
        let (alpha_or, beta_or) = (|or: f32| f64::from(alpha.unwrap_or(or)), |or: f32| f64::from(beta.unwrap_or(or)));
        Ok(match name.to_ascii_lowercase().as_str() {
            "sigmoid" => Self::Sigmoid,
            "tanh" => Self::Tanh,
            "relu" => Self::Relu,
            "affine" => Self::Affine(alpha_or(1.0), beta_or(0.0)),
            "leakyrelu" => Self::LeakyRelu(alpha_or(0.01)),
            "hardsigmoid" => Self::HardSigmoid(alpha_or(0.2), beta_or(0.5)),
            "elu" => Self::Elu(alpha_or(1.0)),
            "softsign" => Self::Softsign,
            _ => return Err(format!("activation '{name}' is not served")),
        })
    }

    fn apply(self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Relu => x.relu(),
            Self::Affine(slope, offset) => x.affine(slope, offset),
            Self::LeakyRelu(slope) => x.relu()? + (x.minimum(0.0)? * slope)?,
            Self::HardSigmoid(slope, offset) => x.affine(slope, offset)?.maximum(0.0)?.minimum(1.0),
            Self::Elu(alpha) => x.elu(alpha),
            Self::Softsign => x.div(&(x.abs()? + 1.0)?),
        }
    }
}

/// What all kinds of layer say alike.
struct Layer {
    hidden: usize,
    /// Of each direction whether it runs from the end.
    reverse: Vec<bool>,
    activations: Vec<Activation>,
    clip: Option<f64>,
    batch_first: bool,
}

impl Layer {
    /// From the attributes of a layer with these activations by default in each direction.
    fn read(node: &super::super::graph::Node, defaults: &[&str]) -> Result<Self, String> {
        let attributes = &node.attributes;
        let reverse = match attributes.text("direction", "forward")? {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => return Err(format!("direction is '{other}', it must be forward, reverse or bidirectional")),
        };
        let count = defaults.len() * reverse.len();
        let named = attributes.texts("activations")?;
        let (alphas, betas) = (attributes.floats("activation_alpha")?, attributes.floats("activation_beta")?);
        let at = |list: Option<&Vec<f32>>, index: usize| list.and_then(|list| list.get(index).copied());
        let activation = |index: usize| {
            let name =
                named.and_then(|named| named.get(index)).map_or(defaults[index % defaults.len()], String::as_str);
            Activation::read(name, at(alphas, index), at(betas, index))
        };
        if named.is_some_and(|named| named.len() != count) {
            return Err(format!("it must name {count} activations"));
        }
        let hidden = usize::try_from(attributes.int("hidden_size", 0)?).unwrap_or(0);
        if !(1..=1 << 20).contains(&hidden) {
            return Err(format!("hidden_size is {hidden}, it must be 1 to {}", 1 << 20));
        }
        Ok(Self {
            hidden,
            reverse,
            activations: (0..count).map(activation).collect::<Result<_, _>>()?,
            clip: attributes.has("clip").then(|| attributes.float("clip", 0.0)).transpose()?.map(f64::from),
            batch_first: attributes.flag("layout", false)?,
        })
    }

    fn clipped(&self, x: Tensor) -> candle_core::Result<Tensor> {
        match self.clip {
            Some(most) => x.maximum(-most)?.minimum(most),
            None => Ok(x),
        }
    }
}

/// The inputs of a layer, their shapes checked.
struct Inputs {
    layer: Layer,
    /// `[steps, rows, width]`.
    x: Tensor,
    steps: usize,
    rows: usize,
    lengths: Option<Vec<i64>>,
}

fn inputs(call: &Call<'_>, defaults: &[&str], gates: usize) -> Outcome<Inputs> {
    let layer = Layer::read(call.node, defaults)?;
    let x = wide(call.float(0)?)?;
    let x = if layer.batch_first && x.rank() == 3 { x.transpose(0, 1)? } else { x };
    let (steps, rows, width) =
        x.dims3().map_err(|_| refused!("its input has shape {:?}, it must have 3 dimensions", x.dims()))?;
    let (directions, hidden) = (layer.reverse.len(), layer.hidden);
    let expected = |index: usize, dims: [usize; 3]| match call.optional(index) {
        Some(tensor) if tensor.dims() != dims => {
            Err(refused!("its input {index} has shape {:?}, it must be {dims:?}", tensor.dims()))
        }
        _ => Ok(()),
    };
    expected(1, [directions, gates * hidden, width])?;
    expected(2, [directions, gates * hidden, hidden])?;
    let bias = call.optional(3).filter(|bias| bias.dims() != [directions, 2 * gates * hidden]);
    if let Some(bias) = bias {
        return Err(refused!(
            "its bias has shape {:?}, it must be [{directions}, {}]",
            bias.dims(),
            2 * gates * hidden
        ));
    }
    let state = if layer.batch_first { [rows, directions, hidden] } else { [directions, rows, hidden] };
    expected(5, state)?;
    if gates == 4 {
        expected(6, state)?;
    }
    let lengths = call.optional(4).map(ints).transpose()?;
    if lengths.as_ref().is_some_and(|lengths| lengths.len() != rows) {
        return Err(refused!("its sequence_lens must have {rows} values"));
    }
    if x.elem_count() == 0 {
        return Err(refused!("its input has shape {:?}, it must have elements", x.dims()));
    }
    call.fits(&[steps, rows, directions, gates * hidden], x.dtype())?;
    // Sequences of the full length need no attention.
    let lengths = lengths.filter(|lengths| lengths.iter().any(|&length| length < steps as i64));
    Ok(Inputs { layer, x, steps, rows, lengths })
}

impl Inputs {
    /// One direction's matrix, of those that come as one tensor, transposed for products with rows.
    fn matrix(&self, call: &Call<'_>, index: usize, direction: usize) -> Outcome<Tensor> {
        Ok(wide(call.float(index)?)?.get(direction)?.t()?)
    }

    /// The halves of one direction's bias.
    fn bias(&self, call: &Call<'_>, direction: usize, gates: usize) -> Outcome<[Tensor; 2]> {
        let size = gates * self.layer.hidden;
        let bias = match call.optional(3) {
            Some(bias) => wide(bias)?.get(direction)?,
            None => Tensor::zeros(2 * size, self.x.dtype(), self.x.device())?,
        };
        Ok([bias.narrow(0, 0, size)?, bias.narrow(0, size, size)?])
    }

    /// One direction's state at the beginning.
    fn state(&self, call: &Call<'_>, index: usize, direction: usize) -> Outcome<Tensor> {
        Ok(match call.optional(index) {
            Some(state) => wide(state)?
                .narrow(usize::from(self.layer.batch_first), direction, 1)?
                .reshape((self.rows, self.layer.hidden))?,
            None => Tensor::zeros((self.rows, self.layer.hidden), self.x.dtype(), self.x.device())?,
        })
    }

    /// Which rows have a step of this number: `[rows, 1]`; none where all have it.
    fn alive(&self, step: usize) -> Outcome<Option<Tensor>> {
        let Some(lengths) = &self.lengths else { return Ok(None) };
        let alive: Vec<u8> = lengths.iter().map(|&length| u8::from((step as i64) < length)).collect();
        Ok(Some(
            Tensor::from_vec(alive, (self.rows, 1), self.x.device())?.broadcast_as((self.rows, self.layer.hidden))?,
        ))
    }

    /// Runs all directions. `cell` makes of one direction, the input's part of the gates and the state the next state; a
    /// state's first tensor is what the layer gives.
    fn run(
        &self,
        call: &Call<'_>,
        begin: impl Fn(usize) -> Outcome<Vec<Tensor>>,
        gates: impl Fn(usize) -> Outcome<Tensor>,
        cell: impl Fn(usize, &Tensor, &[Tensor]) -> Outcome<Vec<Tensor>>,
    ) -> Outcome<Vec<Tensor>> {
        let (mut all, mut ends) = (Vec::new(), Vec::new());
        for (direction, &reverse) in self.layer.reverse.iter().enumerate() {
            let mut state = begin(direction)?;
            // [steps, rows, gates · hidden]: the input's part of all steps in one product.
            let gates = gates(direction)?;
            let mut given = vec![None; self.steps];
            for step in 0..self.steps {
                let step = if reverse { self.steps - 1 - step } else { step };
                let mut next = cell(direction, &gates.get(step)?, &state)?;
                let mut out = next[0].clone();
                if let Some(alive) = self.alive(step)? {
                    out = alive.where_cond(&out, &out.zeros_like()?)?;
                    let keep = |(new, old): (Tensor, &Tensor)| alive.where_cond(&new, old);
                    next = next.into_iter().zip(&state).map(keep).collect::<candle_core::Result<_>>()?;
                }
                given[step] = Some(out);
                state = next;
            }
            all.push(Tensor::stack(&given.into_iter().flatten().collect::<Vec<_>>(), 0)?);
            ends.push(state);
        }
        let dtype = call.input(0)?.dtype();
        // [steps, directions, rows, hidden], or [rows, steps, directions, hidden].
        let sequence = Tensor::stack(&all, 1)?;
        let sequence = if self.layer.batch_first { sequence.permute((2, 0, 1, 3))? } else { sequence };
        let mut outputs = vec![sequence.to_dtype(dtype)?];
        for part in 0..ends[0].len() {
            let parts: Vec<&Tensor> = ends.iter().map(|end| &end[part]).collect();
            outputs.push(Tensor::stack(&parts, usize::from(self.layer.batch_first))?.to_dtype(dtype)?);
        }
        Ok(outputs)
    }

    /// The input times one direction's weights, plus a bias.
    fn projected(&self, call: &Call<'_>, direction: usize, bias: &Tensor) -> Outcome<Tensor> {
        let weights = self.matrix(call, 1, direction)?;
        let flat = self.x.contiguous()?.reshape((self.steps * self.rows, ()))?;
        Ok(flat.matmul(&weights)?.broadcast_add(bias)?.reshape((self.steps, self.rows, ()))?)
    }
}

/// Refuses attributes that are not served.
pub(super) fn check(node: &super::super::graph::Node) -> Result<(), String> {
    Layer::read(node, &["Tanh"; 3][..activations(node.operator.name)]).map(drop)
}

/// Activations of one direction.
fn activations(name: &str) -> usize {
    match name {
        "LSTM" => 3,
        "GRU" => 2,
        _ => 1,
    }
}

/// Gates in the order input, output, forget, cell; peepholes in the order input, output, forget.
pub(super) fn lstm(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let inputs = inputs(call, &["Sigmoid", "Tanh", "Tanh"], 4)?;
    let (layer, hidden) = (&inputs.layer, inputs.layer.hidden);
    let coupled = call.attributes().flag("input_forget", false)?;
    let peepholes = call.optional(7).map(wide).transpose()?;
    if peepholes.as_ref().is_some_and(|peepholes| peepholes.dims() != [layer.reverse.len(), 3 * hidden]) {
        return Err(refused!("its peepholes must have shape [{}, {}]", layer.reverse.len(), 3 * hidden));
    }
    let recurrent = (0..layer.reverse.len()).map(|d| inputs.matrix(call, 2, d)).collect::<Outcome<Vec<_>>>()?;
    let cell = |direction: usize, gates: &Tensor, state: &[Tensor]| -> Outcome<Vec<Tensor>> {
        let [f, g, h] = [0, 1, 2].map(|at| layer.activations[3 * direction + at]);
        let gates = (gates + state[0].matmul(&recurrent[direction])?)?;
        let gate = |at: usize| gates.narrow(D::Minus1, at * hidden, hidden)?.contiguous();
        let peep = |at: usize, gate: Tensor, cell: &Tensor| -> candle_core::Result<Tensor> {
            match &peepholes {
                Some(all) => gate + cell.broadcast_mul(&all.get(direction)?.narrow(0, at * hidden, hidden)?)?,
                None => Ok(gate),
            }
        };
        let input = f.apply(&layer.clipped(peep(0, gate(0)?, &state[1])?)?)?;
        let forget = match coupled {
            true => (1.0 - &input)?,
            false => f.apply(&layer.clipped(peep(2, gate(2)?, &state[1])?)?)?,
        };
        let new = g.apply(&layer.clipped(gate(3)?)?)?;
        let kept = ((forget * &state[1])? + (input * new)?)?;
        let output = f.apply(&layer.clipped(peep(1, gate(1)?, &kept)?)?)?;
        Ok(vec![(output * h.apply(&kept)?)?, kept])
    };
    let begin = |d: usize| Ok(vec![inputs.state(call, 5, d)?, inputs.state(call, 6, d)?]);
    let gates = |d: usize| {
        let [ours, recurrent] = inputs.bias(call, d, 4)?;
        inputs.projected(call, d, &(ours + recurrent)?)
    };
    inputs.run(call, begin, gates, cell)
}

/// Gates in the order update, reset, new.
pub(super) fn gru(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let inputs = inputs(call, &["Sigmoid", "Tanh"], 3)?;
    let (layer, hidden) = (&inputs.layer, inputs.layer.hidden);
    let after = call.attributes().flag("linear_before_reset", false)?;
    let directions = 0..layer.reverse.len();
    let recurrent = directions.clone().map(|d| inputs.matrix(call, 2, d)).collect::<Outcome<Vec<_>>>()?;
    let biases = directions.map(|d| inputs.bias(call, d, 3)).collect::<Outcome<Vec<_>>>()?;
    let cell = |direction: usize, gates: &Tensor, state: &[Tensor]| -> Outcome<Vec<Tensor>> {
        let [f, g] = [0, 1].map(|at| layer.activations[2 * direction + at]);
        let (weights, [_, bias]) = (&recurrent[direction], &biases[direction]);
        let part = |tensor: &Tensor, at: usize, count: usize| tensor.narrow(D::Minus1, at * hidden, count * hidden);
        let both = state[0].matmul(&part(weights, 0, 2)?.contiguous()?)?.broadcast_add(&part(bias, 0, 2)?)?;
        let both = layer.clipped((part(gates, 0, 2)? + both)?)?;
        let (update, reset) =
            (f.apply(&part(&both, 0, 1)?.contiguous()?)?, f.apply(&part(&both, 1, 1)?.contiguous()?)?);
        let (weights, bias) = (part(weights, 2, 1)?.contiguous()?, part(bias, 2, 1)?);
        let from_state = match after {
            true => (reset * state[0].matmul(&weights)?.broadcast_add(&bias)?)?,
            false => (reset * &state[0])?.matmul(&weights)?.broadcast_add(&bias)?,
        };
        let new = g.apply(&layer.clipped((part(gates, 2, 1)? + from_state)?)?)?;
        Ok(vec![(((1.0 - &update)? * new)? + (update * &state[0])?)?])
    };
    let begin = |d: usize| Ok(vec![inputs.state(call, 5, d)?]);
    let gates = |d: usize| inputs.projected(call, d, &inputs.bias(call, d, 3)?[0]);
    inputs.run(call, begin, gates, cell)
}

pub(super) fn plain(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let inputs = inputs(call, &["Tanh"], 1)?;
    let layer = &inputs.layer;
    let recurrent = (0..layer.reverse.len()).map(|d| inputs.matrix(call, 2, d)).collect::<Outcome<Vec<_>>>()?;
    let cell = |direction: usize, gates: &Tensor, state: &[Tensor]| -> Outcome<Vec<Tensor>> {
        let sum = layer.clipped((gates + state[0].matmul(&recurrent[direction])?)?)?;
        Ok(vec![layer.activations[direction].apply(&sum)?])
    };
    let begin = |d: usize| Ok(vec![inputs.state(call, 5, d)?]);
    let gates = |d: usize| {
        let [ours, recurrent] = inputs.bias(call, d, 1)?;
        inputs.projected(call, d, &(ours + recurrent)?)
    };
    inputs.run(call, begin, gates, cell)
}
