//! The shapes that each operator gives, and the arithmetic that it takes.

use candle_core::DType;

use super::{
    super::{
        attributes::Attributes,
        element::Element,
        fault::{Outcome, refused},
        graph::Node,
        operators::{
            Equation, axis, broadcast_dims, cut_dims, cuts, flattened, floats_of, gathered, ints_of, joined, pad_dims,
            padded_sides, parts, permutation, product_dims, reduced_axes, reduced_dims, reshaped, sizes, squeezed,
            tiled, told, unsqueezed,
        },
    },
    Known, windows,
};
use crate::Precision;

/// A node whose inputs are known.
pub(super) struct Rule<'a> {
    pub(super) node: &'a Node,
    pub(super) inputs: &'a [Option<Known>],
}

impl<'a> Rule<'a> {
    pub(super) fn attributes(&self) -> &'a Attributes {
        &self.node.attributes
    }

    pub(super) fn optional(&self, index: usize) -> Option<&'a Known> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    pub(super) fn input(&self, index: usize) -> Outcome<&'a Known> {
        self.optional(index).ok_or_else(|| refused!("its input {index} is missing"))
    }

    pub(super) fn dims(&self, index: usize) -> Outcome<&'a [usize]> {
        Ok(&self.input(index)?.dims)
    }

    /// Whole numbers from an input, or from an attribute; the outer option is none where the input is not known.
    fn numbers(&self, index: usize, attribute: &str) -> Outcome<Option<Option<Vec<i64>>>> {
        Ok(match self.optional(index) {
            None => Some(self.attributes().ints(attribute)?.cloned()),
            Some(Known { value: Some(value), .. }) => Some(Some(ints_of(value)?)),
            Some(_) => None,
        })
    }
}

/// What a node's outputs are; none for those that depend on values that are not known. Beside them the floating-point
/// operations that it takes.
pub(super) fn outputs(
    node: &Node,
    inputs: &[Option<Known>],
    precision: Precision,
) -> Outcome<(Vec<Option<Known>>, f64)> {
    let rule = Rule { node, inputs };
    if let Some((outputs, flops)) = windows::outputs(&rule)? {
        return Ok((outputs.into_iter().map(Some).collect(), flops));
    }
    let outputs = single(&rule, precision)?;
    let elements: f64 =
        outputs.iter().flatten().filter(|known| super::counts(known)).map(|known| size(&known.dims)).sum();
    Ok((outputs, elements))
}

pub(super) fn size(dims: &[usize]) -> f64 {
    dims.iter().map(|&dim| dim as f64).product()
}

fn single(rule: &Rule<'_>, precision: Precision) -> Outcome<Vec<Option<Known>>> {
    let name = rule.node.operator.name;
    let one = |dtype: DType, dims: Vec<usize>| Ok(vec![Some(Known::new(dtype, dims))]);
    match name {
        "Add" | "And" | "Div" | "Max" | "Mean" | "Min" | "Mod" | "Mul" | "Or" | "Pow" | "Sub" | "Sum" | "Xor" => {
            one(rule.input(0)?.dtype, common(rule, 0)?)
        }
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" => one(DType::U8, common(rule, 0)?),
        "Where" => one(rule.input(1)?.dtype, common(rule, 0)?),
        "IsInf" | "IsNaN" | "Not" => one(DType::U8, rule.dims(0)?.to_vec()),
        "Cast" => {
            let element = Element::from_number(rule.attributes().int("to", 0)?)?;
            one(element.dtype(precision), rule.dims(0)?.to_vec())
        }
        "CastLike" => one(rule.input(1)?.dtype, rule.dims(0)?.to_vec()),
        "Constant" => match rule.attributes().tensor("value")? {
            Some(weight) => one(weight.element.dtype(precision), weight.dims.clone()),
            None => Ok(Vec::new()),
        },
        "RandomNormal" | "RandomUniform" => {
            let shape = rule.attributes().ints("shape")?.ok_or_else(|| refused!("its shape is missing"))?;
            let element = Element::from_number(rule.attributes().int("dtype", 1)?)?;
            one(element.dtype(precision), sizes(shape)?)
        }
        "Dropout" => Ok(vec![rule.optional(0).cloned(), Some(Known::new(DType::U8, rule.dims(0)?.to_vec()))]),
        "LayerNormalization" => {
            let input = rule.input(0)?;
            let from = axis(rule.attributes().int("axis", -1)?, input.dims.len())?;
            let statistics: Vec<usize> =
                (0..input.dims.len()).map(|at| if at < from { input.dims[at] } else { 1 }).collect();
            let statistics = Known::new(DType::F32, statistics);
            Ok(vec![Some(like(input)), Some(statistics.clone()), Some(statistics)])
        }
        _ if moves(name) => moved(rule),
        _ if name.starts_with("Reduce") || name.starts_with("Arg") => reduction(rule),
        "NonZero" | "Range" => Ok(Vec::new()),
        // All the rest give a tensor of their first input's shape and type.
        _ => Ok(vec![Some(like(rule.input(0)?))]),
    }
}

fn like(known: &Known) -> Known {
    Known::new(known.dtype, known.dims.clone())
}

/// The shape that the inputs from one on have together.
fn common(rule: &Rule<'_>, from: usize) -> Outcome<Vec<usize>> {
    let first = rule.dims(from)?.to_vec();
    (from + 1..rule.inputs.len()).try_fold(first, |dims, index| broadcast_dims(&dims, rule.dims(index)?))
}

fn reduction(rule: &Rule<'_>) -> Outcome<Vec<Option<Known>>> {
    let input = rule.input(0)?;
    let keep = rule.attributes().flag("keepdims", true)?;
    if rule.node.operator.name.starts_with("Arg") {
        let axis = axis(rule.attributes().int("axis", 0)?, input.dims.len())?;
        return Ok(vec![Some(Known::new(DType::I64, reduced_dims(&input.dims, &[axis], keep)))]);
    }
    let Some(listed) = rule.numbers(1, "axes")? else { return Ok(Vec::new()) };
    let noop = rule.attributes().flag("noop_with_empty_axes", false)?;
    let dims = match reduced_axes(input.dims.len(), listed, noop)? {
        Some(axes) => reduced_dims(&input.dims, &axes, keep),
        None => input.dims.clone(),
    };
    Ok(vec![Some(Known::new(input.dtype, dims))])
}

/// Operators that only move values.
fn moves(name: &str) -> bool {
    const MOVES: [&str; 22] = [
        "Concat",
        "ConstantOfShape",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "OneHot",
        "Pad",
        "Reshape",
        "Resize",
        "Shape",
        "Size",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "TopK",
        "Transpose",
        "Unsqueeze",
        "Upsample",
        "EyeLike",
    ];
    MOVES.contains(&name)
}

fn moved(rule: &Rule<'_>) -> Outcome<Vec<Option<Known>>> {
    let name = rule.node.operator.name;
    let (input, attributes) = (rule.input(0)?, rule.attributes());
    let one = |dims: Vec<usize>| Ok(vec![Some(Known::new(input.dtype, dims))]);
    // Lists that the shape depends on, from an input or an attribute.
    let listed = |index: usize, attribute: &str| rule.numbers(index, attribute);
    macro_rules! known {
        ($numbers:expr) => {
            match $numbers {
                Some(numbers) => numbers,
                None => return Ok(Vec::new()),
            }
        };
    }
    match name {
        "Concat" => {
            let shapes = (0..rule.inputs.len()).map(|index| rule.dims(index)).collect::<Outcome<Vec<_>>>()?;
            one(joined(&shapes, attributes.int("axis", 0)?)?.1)
        }
        "Flatten" => one(flattened(&input.dims, attributes.int("axis", 1)?)?),
        "Transpose" => one(permutation(input.dims.len(), attributes.ints("perm")?)?
            .into_iter()
            .map(|axis| input.dims[axis])
            .collect()),
        "Gather" => one(gathered(&input.dims, rule.dims(1)?, axis(attributes.int("axis", 0)?, input.dims.len())?)),
        "GatherElements" => one(rule.dims(1)?.to_vec()),
        "GatherND" => {
            let (tuples, batch) = (rule.dims(1)?, attributes.int("batch_dims", 0)?.clamp(0, 64) as usize);
            let (width, outer) = tuples.split_last().ok_or_else(|| refused!("its positions have no dimension"))?;
            let block =
                input.dims.get(batch.saturating_add(*width)..).ok_or_else(|| refused!("its positions do not fit"))?;
            one([outer, block].concat())
        }
        "Reshape" => {
            let wanted = known!(listed(1, "shape")?).ok_or_else(|| refused!("its shape is missing"))?;
            one(reshaped(&input.dims, &wanted, attributes.flag("allowzero", false)?)?)
        }
        "Squeeze" => one(squeezed(&input.dims, known!(listed(1, "axes")?).as_deref())?),
        "Unsqueeze" => one(unsqueezed(&input.dims, &known!(listed(1, "axes")?).unwrap_or_default())?),
        "Expand" => one(broadcast_dims(&input.dims, &sizes(&known!(listed(1, "shape")?).unwrap_or_default())?)?),
        "Tile" => one(tiled(&input.dims, &known!(listed(1, "repeats")?).unwrap_or_default())?),
        "ConstantOfShape" => {
            let dims = sizes(&known!(listed(0, "shape")?).unwrap_or_default())?;
            let dtype = attributes.tensor("value")?.map_or(DType::F32, |weight| weight.element.dtype(Precision::F32));
            Ok(vec![Some(Known::new(dtype, dims))])
        }
        "Slice" => {
            let (starts, ends) = (known!(listed(1, "starts")?), known!(listed(2, "ends")?));
            let (axes, steps) = (known!(listed(3, "axes")?), known!(listed(4, "steps")?));
            let cuts = cuts(
                &input.dims,
                &starts.unwrap_or_default(),
                &ends.unwrap_or_default(),
                axes.as_deref(),
                steps.as_deref(),
            )?;
            one(cut_dims(&input.dims, &cuts))
        }
        "Split" => {
            let axis = axis(attributes.int("axis", 0)?, input.dims.len())?;
            let parts = parts(input.dims[axis], known!(listed(1, "split")?).as_deref(), rule.node.outputs.len())?;
            let part = |size: usize| {
                let mut dims = input.dims.clone();
                dims[axis] = size;
                Some(Known::new(input.dtype, dims))
            };
            Ok(parts.into_iter().map(part).collect())
        }
        "Pad" => {
            let pads = known!(listed(1, "pads")?).ok_or_else(|| refused!("its pads are missing"))?;
            let axes = known!(listed(3, "axes")?);
            one(pad_dims(&input.dims, &padded_sides(input.dims.len(), &pads, axes.as_deref())?)?)
        }
        "OneHot" => {
            let Some(depth) = rule.optional(1).and_then(|depth| depth.value.as_ref()) else { return Ok(Vec::new()) };
            let mut dims = input.dims.clone();
            let at = axis(attributes.int("axis", -1)?, dims.len() + 1)?;
            dims.insert(at, floats_of(depth)?.first().map_or(0, |depth| *depth as usize));
            Ok(vec![Some(Known::new(rule.input(2)?.dtype, dims))])
        }
        "TopK" => {
            // An attribute up to version 9.
            let count = known!(rule.numbers(1, "")?).and_then(|values| values.first().copied());
            let count = count.map_or_else(|| attributes.int("k", 0), Ok)?;
            let mut dims = input.dims.clone();
            let at = axis(attributes.int("axis", -1)?, dims.len())?;
            dims[at] = sizes(&[count])?.first().copied().unwrap_or(0);
            Ok(vec![Some(Known::new(input.dtype, dims.clone())), Some(Known::new(DType::I64, dims))])
        }
        "Shape" => numbers(told(&input.dims, attributes.int("start", 0)?, attributes.int("end", i64::MAX)?)),
        "Size" => {
            let count = input.dims.iter().fold(1i64, |count, &dim| count.saturating_mul(dim as i64));
            let mut size = numbers(vec![count])?;
            size.iter_mut().flatten().for_each(|known| known.dims.clear());
            size.iter_mut()
                .flatten()
                .for_each(|known| known.value = known.value.take().and_then(|v| v.reshape(()).ok()));
            Ok(size)
        }
        "Resize" | "Upsample" => {
            windows::resized(rule).map(|dims| vec![dims.map(|dims| Known::new(input.dtype, dims))])
        }
        _ => one(input.dims.clone()),
    }
}

/// Numbers that are known.
fn numbers(values: Vec<i64>) -> Outcome<Vec<Option<Known>>> {
    let dims = vec![values.len()];
    let value = candle_core::Tensor::from_vec(values, dims.as_slice(), &candle_core::Device::Cpu)?;
    Ok(vec![Some(Known { dtype: DType::I64, dims, value: Some(value) })])
}

/// The shape of a product, and the operations for it.
pub(super) fn product(left: &[usize], right: &[usize]) -> Outcome<(Vec<usize>, f64)> {
    let dims = product_dims(left, right)?;
    let depth = left.last().copied().unwrap_or(1) as f64;
    let flops = 2.0 * size(&dims) * depth;
    Ok((dims, flops))
}

/// The shape of a sum of products over named dimensions, and the operations for it: a product of all dimensions' sizes.
pub(super) fn einsum(rule: &Rule<'_>) -> Outcome<(Vec<usize>, f64)> {
    let equation = Equation::read(rule.attributes().text("equation", "")?)?;
    let mut sizes: Vec<(char, usize)> = Vec::new();
    for (index, letters) in equation.inputs.iter().enumerate() {
        let dims = rule.dims(index)?;
        if dims.len() != letters.len() {
            return Err(refused!("its input {index} has shape {dims:?} for {} letters", letters.len()));
        }
        for (&letter, &size) in letters.iter().zip(dims) {
            match sizes.iter().find(|(known, _)| *known == letter) {
                Some(&(_, known)) if known != size => {
                    return Err(refused!("dimension '{letter}' has {known} elements here and {size} there"));
                }
                Some(_) => {}
                None => sizes.push((letter, size)),
            }
        }
    }
    let of = |letter: &char| sizes.iter().find(|(known, _)| known == letter).map_or(1, |(_, size)| *size);
    let all: f64 = sizes.iter().map(|(_, size)| *size as f64).product();
    Ok((equation.output.iter().map(of).collect(), 2.0 * all))
}
