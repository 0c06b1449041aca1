//! Shapes and arithmetic of what computes most: products, convolutions, pools and recurrent layers.

use super::{
    super::{
        fault::{Outcome, refused},
        operators::{Resize, Transposed, Window, floats_of, resized_dims},
    },
    Known,
    rules::{Rule, einsum, product, size},
};

/// The outputs and operations of a node that slides a window or multiplies matrices; none for another node.
pub(super) fn outputs(rule: &Rule<'_>) -> Outcome<Option<(Vec<Known>, f64)>> {
    let attributes = rule.attributes();
    let one = |(dims, flops): (Vec<usize>, f64)| -> Outcome<Option<(Vec<Known>, f64)>> {
        Ok(Some((vec![Known::new(rule.input(0)?.dtype, dims)], flops)))
    };
    match rule.node.operator.name {
        "MatMul" => one(product(rule.dims(0)?, rule.dims(1)?)?),
        "Gemm" => {
            let side = |index: usize, name: &str| -> Outcome<Vec<usize>> {
                let mut dims = rule.dims(index)?.to_vec();
                if attributes.flag(name, false)? {
                    dims.reverse();
                }
                Ok(dims)
            };
            one(product(&side(0, "transA")?, &side(1, "transB")?)?)
        }
        "Einsum" => one(einsum(rule)?),
        "Conv" => {
            let (input, kernel) = images(rule)?;
            let window = Window::read(attributes, &input[2..], &kernel[2..])?;
            let dims = spatial(input[0], kernel[0], &window.output);
            let flops = 2.0 * size(&dims) * size(&kernel[1..]);
            one((dims, flops))
        }
        "ConvTranspose" => {
            let (input, kernel) = images(rule)?;
            let groups = attributes.int("group", 1)?.clamp(1, 1 << 20) as usize;
            let output = Transposed::read(attributes, &input[2..], &kernel[2..])?.output;
            let flops = 2.0 * size(input) * size(&kernel[1..]);
            one((spatial(input[0], kernel[1].saturating_mul(groups), &output), flops))
        }
        "MaxPool" | "AveragePool" => {
            let input = image(rule)?;
            let sizes = attributes.ints("kernel_shape")?.ok_or_else(|| refused!("kernel_shape is missing"))?;
            let kernel: Vec<usize> = sizes.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
            let window = Window::read(attributes, &input[2..], &kernel)?;
            let dims = spatial(input[0], input[1], &window.output);
            let flops = size(&dims) * window.elements() as f64;
            one((dims, flops))
        }
        "GlobalMaxPool" | "GlobalAveragePool" => {
            let input = image(rule)?;
            one((spatial(input[0], input[1], &vec![1; input.len() - 2]), size(input)))
        }
        "DepthToSpace" | "SpaceToDepth" => one((blocks(rule)?, 0.0)),
        "LSTM" | "GRU" | "RNN" => recurrent(rule).map(Some),
        _ => Ok(None),
    }
}

fn spatial(rows: usize, channels: usize, output: &[usize]) -> Vec<usize> {
    [rows, channels].into_iter().chain(output.iter().copied()).collect()
}

fn image<'a>(rule: &Rule<'a>) -> Outcome<&'a [usize]> {
    let dims = rule.dims(0)?;
    match dims.len() {
        3.. => Ok(dims),
        _ => Err(refused!("its input has shape {dims:?}, it must have 3 dimensions or more")),
    }
}

fn images<'a>(rule: &Rule<'a>) -> Outcome<(&'a [usize], &'a [usize])> {
    let (input, kernel) = (image(rule)?, rule.dims(1)?);
    match input.len() == kernel.len() {
        true => Ok((input, kernel)),
        false => Err(refused!("input {input:?} and kernel {kernel:?} must have equally many dimensions")),
    }
}

fn blocks(rule: &Rule<'_>) -> Outcome<Vec<usize>> {
    let block =
        usize::try_from(rule.attributes().int("blocksize", 0)?).ok().filter(|block| (1..1 << 16).contains(block));
    match (rule.dims(0)?, block, rule.node.operator.name) {
        (&[rows, channels, height, width], Some(block), "DepthToSpace") => {
            Ok(vec![rows, channels / (block * block), height.saturating_mul(block), width.saturating_mul(block)])
        }
        (&[rows, channels, height, width], Some(block), _) => {
            Ok(vec![rows, channels.saturating_mul(block * block), height / block, width / block])
        }
        (dims, ..) => Err(refused!("shape {dims:?} does not divide into its blocks")),
    }
}

fn recurrent(rule: &Rule<'_>) -> Outcome<(Vec<Known>, f64)> {
    let (input, weights) = (rule.input(0)?, rule.dims(1)?);
    let first = rule.attributes().flag("layout", false)?;
    let (&[a, b, width], &[directions, gates, _]) = (input.dims.as_slice(), weights) else {
        return Err(refused!("its input has shape {:?} and its weights {weights:?}", input.dims));
    };
    let (steps, rows) = if first { (b, a) } else { (a, b) };
    let hidden = usize::try_from(rule.attributes().int("hidden_size", 0)?).unwrap_or(0);
    let (all, state) = match first {
        false => (vec![steps, directions, rows, hidden], vec![directions, rows, hidden]),
        true => (vec![rows, steps, directions, hidden], vec![rows, directions, hidden]),
    };
    let state = Known::new(input.dtype, state);
    let flops = 2.0 * size(&[steps, rows, directions, gates]) * (width + hidden) as f64;
    Ok((vec![Known::new(input.dtype, all), state.clone(), state], flops))
}

/// The shape of a resized tensor, where its scales or sizes are known.
pub(super) fn resized(rule: &Rule<'_>) -> Outcome<Option<Vec<usize>>> {
    let attributes = rule.attributes();
    let plan = Resize::read(attributes, rule.node.version)?;
    let values = |index: usize| match rule.optional(index) {
        None => Ok(Some(None)),
        Some(Known { value: Some(value), .. }) => floats_of(value).map(|values| Some(Some(values))),
        Some(_) => Ok(None),
    };
    let scales = match attributes.floats("scales")? {
        Some(listed) => Some(Some(listed.iter().map(|&scale| f64::from(scale)).collect())),
        None => values(if rule.inputs.len() == 2 { 1 } else { 2 })?,
    };
    let (Some(scales), Some(sizes)): (Option<Option<Vec<f64>>>, _) = (scales, values(3)?) else { return Ok(None) };
    let (dims, named) = (rule.dims(0)?, attributes.ints("axes")?);
    let axes = plan.axes(dims, named.map(Vec::as_slice), scales.as_deref(), sizes.as_deref())?;
    Ok(Some(resized_dims(dims, &axes)))
}
