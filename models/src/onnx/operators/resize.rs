//! Resizing: dimension after dimension, each place of the result from one or more places of the input.

use candle_core::Tensor;

use super::{
    super::{
        attributes::Attributes,
        fault::{Outcome, refused},
        graph::Node,
    },
    call::{Call, axis as axis_of, floats, wide},
};

/// How a dimension is resized.
pub(in crate::onnx) struct Resize {
    mode: Mode,
    coordinates: Coordinates,
    /// Of cubic interpolation: the coefficient, and whether places outside are left out.
    cubic: (f64, bool),
    keep_aspect: Option<fn(f64, f64) -> f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nearest(Rounding),
    Linear,
    Cubic,
}

#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
    /// Of version 10 and before: up when shrinking, down when growing.
    Simple,
}

#[derive(Clone, Copy, PartialEq)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfHalfPixelForNn,
}

/// One dimension's sizes before and after, and the ratio that coordinates are computed with.
#[derive(Clone, Copy, Debug)]
pub(in crate::onnx) struct Axis {
    axis: usize,
    from: usize,
    pub(in crate::onnx) to: usize,
    scale: f64,
}

impl Resize {
    /// From a node's attributes.
    ///
    /// # Errors
    /// What is unknown or not served.
    pub(in crate::onnx) fn read(attributes: &Attributes, version: i64) -> Result<Self, String> {
        let old = version < 11;
        let rounding = match attributes.text("nearest_mode", "round_prefer_floor")? {
            _ if old => Rounding::Simple,
            "round_prefer_floor" => Rounding::PreferFloor,
            "round_prefer_ceil" => Rounding::PreferCeil,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => return Err(format!("nearest_mode is '{other}', which is unknown")),
        };
        let mode = match attributes.text("mode", "nearest")? {
            "nearest" => Mode::Nearest(rounding),
            "linear" | "bilinear" => Mode::Linear,
            "cubic" => Mode::Cubic,
            other => return Err(format!("mode is '{other}', it must be nearest, linear or cubic")),
        };
        let coordinates = match attributes.text("coordinate_transformation_mode", "half_pixel")? {
            _ if old => Coordinates::Asymmetric,
            "half_pixel" => Coordinates::HalfPixel,
            "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            "tf_half_pixel_for_nn" => Coordinates::TfHalfPixelForNn,
            other => return Err(format!("coordinate_transformation_mode '{other}' is not served")),
        };
        if attributes.flag("antialias", false)? {
            return Err("antialias is not served".into());
        }
        let cubic = (attributes.float("cubic_coeff_a", -0.75)?.into(), attributes.flag("exclude_outside", false)?);
        let keep_aspect: Option<fn(f64, f64) -> f64> = match attributes.text("keep_aspect_ratio_policy", "stretch")? {
            "stretch" => None,
            "not_larger" => Some(f64::min),
            "not_smaller" => Some(f64::max),
            other => return Err(format!("keep_aspect_ratio_policy is '{other}', which is unknown")),
        };
        Ok(Self { mode, coordinates, cubic, keep_aspect })
    }

    /// The dimensions that change, from the scales or the sizes that are asked for.
    pub(in crate::onnx) fn axes(
        &self,
        dims: &[usize],
        named: Option<&[i64]>,
        scales: Option<&[f64]>,
        sizes: Option<&[f64]>,
    ) -> Outcome<Vec<Axis>> {
        let named: Vec<usize> = match named {
            Some(named) => named.iter().map(|&axis| axis_of(axis, dims.len())).collect::<Outcome<_>>()?,
            None => (0..dims.len()).collect(),
        };
        let (values, are_sizes) = match (scales.filter(|scales| !scales.is_empty()), sizes) {
            (Some(scales), _) => (scales, false),
            (None, Some(sizes)) => (sizes, true),
            (None, None) => return Err(refused!("its scales and sizes are missing")),
        };
        if values.is_empty() || values.len() != named.len() || !values.iter().all(|value| (0.0..1e9).contains(value)) {
            return Err(refused!("{values:?} do not resize {} dimensions", named.len()));
        }
        let ratio = |index: usize| values[index] / (dims[named[index]].max(1)) as f64;
        let common = self
            .keep_aspect
            .filter(|_| are_sizes)
            .map(|pick| (1..named.len()).fold(ratio(0), |common, index| pick(common, ratio(index))));
        let axis = |(index, &axis): (usize, &usize)| {
            let from = dims[axis];
            let (to, scale) = match (are_sizes, common) {
                (true, Some(scale)) => ((from as f64 * scale).round(), scale),
                (true, None) => (values[index], ratio(index)),
                (false, _) => ((from as f64 * values[index]).floor(), values[index]),
            };
            let fits = (0.0..1e9).contains(&to) && (from > 0 || to == 0.0) && (scale > 0.0 || to == 0.0);
            let to = Some(to as usize).filter(|_| fits);
            Ok(Axis {
                axis,
                from,
                to: to.ok_or_else(|| refused!("dimension {axis} of {from} cannot be resized"))?,
                scale,
            })
        };
        let all = named.iter().enumerate().map(axis).collect::<Outcome<Vec<_>>>()?;
        Ok(all.into_iter().filter(|axis| axis.from != axis.to || axis.scale != 1.0).collect())
    }

    /// Where in the input a place of the result lies.
    fn coordinate(&self, at: usize, axis: &Axis) -> f64 {
        let (at, from, to, scale) = (at as f64, axis.from as f64, axis.to as f64, axis.scale);
        match self.coordinates {
            Coordinates::HalfPixel => (at + 0.5) / scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = to / (scale * from);
                from / 2.0 * (1.0 - adjustment) + (at + 0.5) / scale - 0.5
            }
            Coordinates::PytorchHalfPixel => {
                if axis.to > 1 {
                    (at + 0.5) / scale - 0.5
                } else {
                    0.0
                }
            }
            Coordinates::AlignCorners => {
                if axis.to > 1 {
                    at * (from - 1.0) / (to - 1.0)
                } else {
                    0.0
                }
            }
            Coordinates::Asymmetric => at / scale,
            Coordinates::TfHalfPixelForNn => (at + 0.5) / scale,
        }
    }

    /// For each place of the result the places that it is made of, with their weights; equally many each.
    fn taps(&self, axis: &Axis) -> Vec<Vec<(u32, f32)>> {
        let last = axis.from as f64 - 1.0;
        let inside = |at: f64| at.clamp(0.0, last) as u32;
        let taps = |at: usize| {
            let x = self.coordinate(at, axis);
            match self.mode {
                Mode::Nearest(rounding) => vec![(inside(rounding.apply(x, axis.scale)), 1.0)],
                Mode::Linear => {
                    let x = x.clamp(0.0, last);
                    let share = (x - x.floor()) as f32;
                    vec![(inside(x.floor()), 1.0 - share), (inside(x.floor() + 1.0), share)]
                }
                Mode::Cubic => self.cubic_taps(x, last),
            }
        };
        (0..axis.to).map(taps).collect()
    }

    fn cubic_taps(&self, x: f64, last: f64) -> Vec<(u32, f32)> {
        let (a, exclude) = self.cubic;
        let share = x - x.floor();
        let weight = |distance: f64| {
            let d = distance.abs();
            match d {
                d if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
                d if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
                _ => 0.0,
            }
        };
        let place = |offset: f64| x.floor() + offset;
        let outside = |offset: f64| exclude && !(0.0..=last).contains(&place(offset));
        let taps = [-1.0, 0.0, 1.0, 2.0].map(|offset| {
            let weight = if outside(offset) { 0.0 } else { weight(offset - share) };
            (place(offset).clamp(0.0, last) as u32, weight)
        });
        let total: f64 = if exclude { taps.iter().map(|(_, weight)| weight).sum() } else { 1.0 };
        taps.iter().map(|&(at, weight)| (at, (weight / total) as f32)).collect()
    }

    /// One dimension resized.
    fn along(&self, input: &Tensor, axis: &Axis) -> Outcome<Tensor> {
        let taps = self.taps(axis);
        let count = taps.first().map_or(1, Vec::len);
        let mut weights = vec![1; input.rank()];
        weights[axis.axis] = axis.to;
        let input = input.contiguous()?;
        let part = |tap: usize| -> Outcome<Tensor> {
            let places: Vec<u32> = taps.iter().map(|taps| taps[tap].0).collect();
            let places = Tensor::from_vec(places, axis.to, input.device())?;
            let picked = input.index_select(&places, axis.axis)?;
            if count == 1 {
                return Ok(picked);
            }
            let shares: Vec<f32> = taps.iter().map(|taps| taps[tap].1).collect();
            let shares = Tensor::from_vec(shares, weights.as_slice(), input.device())?.to_dtype(input.dtype())?;
            Ok(picked.broadcast_mul(&shares)?)
        };
        (1..count).try_fold(part(0)?, |sum, tap| Ok((sum + part(tap)?)?))
    }
}

impl Rounding {
    fn apply(self, x: f64, scale: f64) -> f64 {
        match self {
            Self::PreferFloor => (x - 0.5).ceil(),
            Self::PreferCeil => (x + 0.5).floor(),
            Self::Floor => x.floor(),
            Self::Ceil => x.ceil(),
            Self::Simple => {
                if scale < 1.0 {
                    x.ceil()
                } else {
                    x.floor()
                }
            }
        }
    }
}

/// Refuses attributes that are not served.
pub(super) fn check(node: &Node) -> Result<(), String> {
    Resize::read(&node.attributes, node.version).map(drop)
}

/// Scales come second up to version 10, third from 11 on, where sizes come fourth; `Upsample` had them as an attribute.
pub(super) fn resize(call: &Call<'_>) -> Outcome<Vec<Tensor>> {
    let input = call.input(0)?;
    let plan = Resize::read(call.attributes(), call.version())?;
    let values = |index: usize| call.optional(index).map(floats).transpose();
    let listed = call.attributes().floats("scales")?;
    let scales = match listed {
        Some(listed) => Some(listed.iter().map(|&scale| f64::from(scale)).collect()),
        None => values(if call.inputs.len() == 2 { 1 } else { 2 })?,
    };
    let (sizes, named) = (values(3)?, call.attributes().ints("axes")?);
    let axes = plan.axes(input.dims(), named.map(Vec::as_slice), scales.as_deref(), sizes.as_deref())?;
    let mut resized = if matches!(plan.mode, Mode::Nearest(_)) { input.clone() } else { wide(call.float(0)?)? };
    for axis in &axes {
        let mut dims = resized.dims().to_vec();
        dims[axis.axis] = axis.to;
        call.fits(&dims, resized.dtype())?;
        resized = plan.along(&resized, axis)?;
    }
    Ok(vec![resized.to_dtype(input.dtype())?])
}

/// The shape of what the axes leave.
pub(in crate::onnx) fn resized_dims(dims: &[usize], axes: &[Axis]) -> Vec<usize> {
    let mut dims = dims.to_vec();
    axes.iter().for_each(|axis| dims[axis.axis] = axis.to);
    dims
}
