//! The windows that convolutions and pools slide over their input.

use candle_core::Tensor;

use super::{
    super::{
        attributes::Attributes,
        fault::{Outcome, refused},
    },
    pad::constant_pad,
};

/// Larger sizes, steps and pads are mistakes; their products cannot overflow.
const MOST: i64 = 1 << 20;

/// A window over each of the spatial dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::onnx) struct Window {
    pub(in crate::onnx) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    /// Elements before and after each dimension.
    pub(super) pads: Vec<(usize, usize)>,
    /// Of the pads after, those that are there only so that the last window is whole.
    pub(super) ceiling: Vec<usize>,
    /// Positions along each dimension.
    pub(in crate::onnx) output: Vec<usize>,
}

/// A list with one entry, 1 or more, for each of `count` dimensions; ones where it is left out.
pub(super) fn positive(attributes: &Attributes, name: &str, count: usize) -> Outcome<Vec<usize>> {
    listed(attributes, name, count, 1)
}

fn listed(attributes: &Attributes, name: &str, count: usize, least: i64) -> Outcome<Vec<usize>> {
    let Some(values) = attributes.ints(name)? else { return Ok(vec![least as usize; count]) };
    if values.len() != count || !values.iter().all(|value| (least..=MOST).contains(value)) {
        return Err(refused!("{name} is {values:?}, it must hold {count} numbers of {least} to {MOST}"));
    }
    Ok(values.iter().map(|&value| value as usize).collect())
}

/// The attribute `pads`: all before, then all after.
pub(super) fn pads(attributes: &Attributes, count: usize) -> Outcome<Vec<(usize, usize)>> {
    let values = listed(attributes, "pads", 2 * count, 0)?;
    Ok(values[..count].iter().copied().zip(values[count..].iter().copied()).collect())
}

impl Window {
    /// From a node's attributes, over an input of these spatial dimensions.
    ///
    /// # Errors
    /// What does not fit; a window that is larger than the padded input.
    pub(in crate::onnx) fn read(attributes: &Attributes, input: &[usize], kernel: &[usize]) -> Outcome<Self> {
        let count = input.len();
        if kernel.len() != count || !kernel.iter().all(|size| (1..=MOST as usize).contains(size)) {
            return Err(refused!("a window of shape {kernel:?} does not fit {count} spatial dimensions"));
        }
        let (strides, dilations) = (positive(attributes, "strides", count)?, positive(attributes, "dilations", count)?);
        let ceil = attributes.flag("ceil_mode", false)?;
        let automatic = attributes.text("auto_pad", "NOTSET")?;
        let given = pads(attributes, count)?;
        let mut window = Self {
            kernel: kernel.to_vec(),
            strides,
            dilations,
            pads: Vec::new(),
            ceiling: vec![0; count],
            output: Vec::new(),
        };
        for (axis, &size) in input.iter().enumerate() {
            let (stride, reach) = (window.strides[axis], window.reach(axis));
            if size > MOST as usize * MOST as usize {
                return Err(refused!("dimension {size} is larger than a window slides over"));
            }
            let (before, after, output) = match automatic {
                "SAME_UPPER" | "SAME_LOWER" => {
                    let output = size.div_ceil(stride);
                    let total = (output.saturating_sub(1) * stride + reach).saturating_sub(size);
                    let less = total / 2;
                    let upper = automatic == "SAME_UPPER";
                    let (before, after) = if upper { (less, total - less) } else { (total - less, less) };
                    (before, after, output)
                }
                "VALID" => (0, 0, (size.checked_sub(reach)).map_or(0, |room| room / stride + 1)),
                "NOTSET" => {
                    let (before, after) = given[axis];
                    let room = (size + before + after).checked_sub(reach);
                    let steps = room.map(|room| if ceil { room.div_ceil(stride) } else { room / stride });
                    // A last window that would start in the padding is left out.
                    let beyond = |steps: &usize| ceil && *steps > 0 && steps * stride >= size + before;
                    let output = steps.map_or(0, |steps| steps + 1 - usize::from(beyond(&steps)));
                    (before, after, output)
                }
                other => {
                    return Err(refused!("auto_pad is '{other}', it must be NOTSET, SAME_UPPER, SAME_LOWER or VALID"));
                }
            };
            if output == 0 && size > 0 {
                return Err(refused!(
                    "a window of {reach} is larger than its padded input of {}",
                    size + before + after
                ));
            }
            let needed = output.saturating_sub(1) * stride + reach;
            window.ceiling[axis] = needed.saturating_sub(size + before + after);
            window.pads.push((before, after + window.ceiling[axis]));
            window.output.push(output);
        }
        Ok(window)
    }

    /// Elements from the first to the last that one window covers.
    pub(super) fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// Elements of one window.
    pub(in crate::onnx) fn elements(&self) -> usize {
        self.kernel.iter().product()
    }

    /// The shape of the input once it is padded.
    pub(super) fn padded(&self, dims: &[usize]) -> Vec<usize> {
        let spatial = dims[2..].iter().zip(&self.pads).map(|(size, (before, after))| size + before + after);
        dims[..2].iter().copied().chain(spatial).collect()
    }

    /// The input `[rows, channels, spatial…]` with `value` around it.
    pub(super) fn pad(&self, input: &Tensor, value: f64) -> Outcome<Tensor> {
        let spatial = self.pads.iter().enumerate();
        spatial.filter(|(_, pads)| **pads != (0, 0)).try_fold(input.clone(), |input, (axis, &(before, after))| {
            constant_pad(&input, axis + 2, before as i64, after as i64, value)
        })
    }

    /// The windows of a padded input, side by side: `[rows, channels, window's elements, positions]`.
    pub(super) fn columns(&self, padded: &Tensor) -> Outcome<Tensor> {
        let (rows, channels) = (padded.dims()[0], padded.dims()[1]);
        let mut columns = padded.contiguous()?;
        for (axis, (&kernel, &output)) in self.kernel.iter().zip(&self.output).enumerate() {
            let (stride, dilation) = (self.strides[axis], self.dilations[axis]);
            let starts = (0..kernel).flat_map(|at| (0..output).map(move |step| (step * stride + at * dilation) as u32));
            let starts = Tensor::from_vec(starts.collect::<Vec<u32>>(), kernel * output, padded.device())?;
            // [rows, channels, kernel · output of each axis so far, the axes to come]
            columns = columns.index_select(&starts, axis + 2)?;
        }
        let mut split = vec![rows, channels];
        split.extend(self.kernel.iter().zip(&self.output).flat_map(|(&kernel, &output)| [kernel, output]));
        let count = self.kernel.len();
        let kernels = (0..count).map(|axis| 2 + 2 * axis);
        let order: Vec<usize> = [0, 1].into_iter().chain(kernels.clone()).chain(kernels.map(|axis| axis + 1)).collect();
        let positions: usize = self.output.iter().product();
        Ok(columns.reshape(split)?.permute(order)?.reshape((rows, channels, self.elements(), positions))?)
    }
}
