//! A convolution over planes: each channel of a map lies by itself, as ONNX has it.
//!
//! What 32 neighbouring pixels of the output see is gathered into one panel, which the weights of all channels are multiplied
//! with while it is in the cache. Nothing is padded, and nothing else is copied.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    epilogue::Epilogue,
    output::Output,
    panels::{MOST_ROWS, MOST_WIDTH, Tile, even_pieces, multiply, tile_rows, width},
};

/// Tasks for each thread, so that the last to end is a short one.
const TASKS: usize = 4;

/// One spatial dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    /// Zeros before the first element.
    pub(crate) before: usize,
    pub(crate) output: usize,
}

/// A convolution of `[rows, inputs, height, width]` into `[rows, outputs, height, width]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaneConvolution {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Channels of each group see only each other.
    pub(crate) groups: usize,
    pub(crate) height: Axis,
    pub(crate) width: Axis,
}

impl Axis {
    /// The steps of the output, of some, at which this place of the kernel lies inside the input, and where the first is.
    #[inline(always)]
    pub(super) fn inside(&self, place: usize, first: usize, count: usize) -> (usize, usize, usize) {
        let at = first * self.stride + place * self.dilation;
        // Before it are zeros, as many steps as it takes to pass them.
        let skipped = self.before.saturating_sub(at).div_ceil(self.stride).min(count);
        let start = (at + skipped * self.stride).wrapping_sub(self.before);
        let inside = if skipped == count { 0 } else { self.input.saturating_sub(start).div_ceil(self.stride) };
        (skipped, (skipped + inside).min(count), start)
    }
}

impl PlaneConvolution {
    /// Of `x` with `weight` `[outputs, inputs / groups, height, width]`, both as long as the shapes say.
    pub(crate) fn forward(&self, x: &[f32], weight: &[f32], epilogue: &Epilogue<'_>, out: &mut [f32]) {
        let this = self.flattened();
        if this.is_depthwise() {
            return this.depthwise(x, weight, epilogue, out);
        }
        let (plane, pixels) = (this.height.input * this.width.input, this.height.output * this.width.output);
        let (inner, channels) = (this.inputs / this.groups, this.outputs / this.groups);
        let depth = inner * this.height.kernel * this.width.kernel;
        let arch = Arch::new();
        let panel_pixels = arch.dispatch(super::panels::MachineWidth);
        let (maps, panels) = (x.len() / (inner * plane), pixels.div_ceil(panel_pixels));
        let wanted = (TASKS * rayon::current_num_threads()).div_ceil(maps * panels);
        let pieces: Vec<(usize, usize)> = even_pieces(channels, channels.div_ceil(wanted).max(MOST_ROWS)).collect();
        let output = Output::new(out);
        (0..maps * panels * pieces.len()).into_par_iter().for_each_init(Vec::new, |scratch, task| {
            let (task, piece) = (task / pieces.len(), pieces[task % pieces.len()]);
            let (map, panel) = (task / panels, task % panels);
            let first = map % this.groups * channels + piece.0;
            arch.dispatch(Task {
                convolution: &this,
                x: &x[map * inner * plane..][..inner * plane],
                weight: &weight[first * depth..][..piece.1 * depth],
                epilogue,
                channel: first,
                output,
                at: (map * channels + piece.0) * pixels,
                pixel: panel * panel_pixels,
                depth,
                scratch,
            });
        });
    }

    /// Where each pixel sees itself alone, the same over one line of pixels.
    fn flattened(&self) -> Self {
        let alone = |axis: &Axis| (axis.kernel, axis.stride, axis.before, axis.input) == (1, 1, 0, axis.output);
        if !alone(&self.height) || !alone(&self.width) {
            return *self;
        }
        let pixels = self.height.input * self.width.input;
        let line = Axis { input: pixels, output: pixels, ..self.width };
        Self { height: Axis { input: 1, output: 1, ..self.height }, width: line, ..*self }
    }
}

/// A few pixels of some channels.
struct Task<'a> {
    convolution: &'a PlaneConvolution,
    /// The channels of one group of one row.
    x: &'a [f32],
    weight: &'a [f32],
    epilogue: &'a Epilogue<'a>,
    /// The first of them.
    channel: usize,
    output: Output,
    /// Where the first of the channels begins in the output.
    at: usize,
    pixel: usize,
    depth: usize,
    /// Room for the panel.
    scratch: &'a mut Vec<f32>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { convolution, x, weight, epilogue, channel, output, at, pixel, depth, scratch } = self;
        let pixels = convolution.height.output * convolution.width.output;
        let count = width::<S>().min(pixels - pixel);
        scratch.resize(depth * width::<S>(), 0.0);
        gather(convolution, x, pixel, count, width::<S>(), scratch);
        let mut tile: Tile = [0.0; MOST_ROWS * MOST_WIDTH];
        for (first, rows) in even_pieces(weight.len() / depth, tile_rows::<S>()) {
            multiply(simd, &weight[first * depth..], depth, rows, scratch, &mut tile);
            for (row, values) in tile.chunks_exact_mut(MOST_WIDTH).take(rows).enumerate() {
                let at = at + (first + row) * pixels + pixel;
                // SAFETY: `forward` holds the slice; each task has channels or pixels of its own.
                let out = unsafe { output.piece(at, count) };
                epilogue.finish(simd, channel + first + row, values, at, out);
            }
        }
    }
}

/// Fills a panel with what `count` pixels see: a row of `width` for each weight.
#[inline(always)]
fn gather(convolution: &PlaneConvolution, x: &[f32], pixel: usize, count: usize, width: usize, panel: &mut [f32]) {
    let PlaneConvolution { height, width: line, .. } = convolution;
    let plane = height.input * line.input;
    let area = height.kernel * line.kernel;
    let mut done = 0;
    // Run by run of pixels in one row of the output.
    while done < count {
        let (row, column) = ((pixel + done) / line.output, (pixel + done) % line.output);
        let run = (line.output - column).min(count - done);
        for place in 0..area {
            let (down, right) = (place / line.kernel, place % line.kernel);
            let (above, below, top) = height.inside(down, row, 1);
            let (from, to, start) = line.inside(right, column, run);
            let (from, to) = if (above, below) == (0, 1) { (from, to) } else { (run, run) };
            let rows = panel.chunks_exact_mut(area * width);
            for (values, panel) in x.chunks_exact(plane).zip(rows) {
                let out = &mut panel[place * width + done..][..run];
                if from > 0 || to < run {
                    out.fill(0.0);
                }
                if from >= to {
                    continue;
                }
                let values = &values[top * line.input + start..];
                match line.stride {
                    // Most are whole vectors, and then no call.
                    1 if to - from == 32 => copy::<32>(&mut out[from..to], values),
                    1 if to - from == 16 => copy::<16>(&mut out[from..to], values),
                    1 => out[from..to].copy_from_slice(&values[..to - from]),
                    step => {
                        out[from..to].iter_mut().zip(values.iter().step_by(step)).for_each(|(to, from)| *to = *from);
                    }
                }
            }
        }
        done += run;
    }
}

/// Copies so many values.
#[inline(always)]
fn copy<const COUNT: usize>(to: &mut [f32], from: &[f32]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<COUNT>(), from.first_chunk::<COUNT>()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::kernels::Limits;

    fn axis() -> impl Strategy<Value = Axis> {
        let sizes = (1usize..40, 1usize..6, 1usize..4, 1usize..4, 0usize..7, 0usize..7);
        sizes.prop_filter_map("the window fits", |(input, kernel, stride, dilation, before, after)| {
            let room = (input + before + after).checked_sub((kernel - 1) * dilation + 1)?;
            Some(Axis { input, kernel, stride, dilation, before, output: room / stride + 1 })
        })
    }

    /// Sum by sum, as the definition has it.
    fn plain(of: &PlaneConvolution, x: &[f32], weight: &[f32], epilogue: &Epilogue<'_>) -> Vec<f64> {
        let PlaneConvolution { inputs, outputs, groups, height, width } = *of;
        let (plane, inner) = (height.input * width.input, inputs / groups);
        let mut out = Vec::new();
        for map in x.chunks_exact(inputs * plane) {
            for channel in 0..outputs {
                for pixel in 0..height.output * width.output {
                    let (row, column) = (pixel / width.output, pixel % width.output);
                    let mut sum = epilogue.bias.map_or(0.0, |bias| f64::from(bias[channel]));
                    sum += epilogue.added.map_or(0.0, |added| f64::from(added[out.len()]));
                    for at in 0..inner * height.kernel * width.kernel {
                        let (from, place) = (at / (height.kernel * width.kernel), at % (height.kernel * width.kernel));
                        let y = row * height.stride + place / width.kernel * height.dilation;
                        let x = column * width.stride + place % width.kernel * width.dilation;
                        let seen = y.checked_sub(height.before).zip(x.checked_sub(width.before));
                        if let Some((y, x)) = seen.filter(|(y, x)| *y < height.input && *x < width.input) {
                            let from = channel / (outputs / groups) * inner + from;
                            let value = f64::from(map[from * plane + y * width.input + x]);
                            sum += value * f64::from(weight[channel * inner * height.kernel * width.kernel + at]);
                        }
                    }
                    out.push(sum.max(epilogue.limits.0.into()).min(epilogue.limits.1.into()));
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn agrees_with_the_definition(
            height in axis(),
            width in axis(),
            groups in 1usize..4,
            inner in 1usize..4,
            // One channel of each group is often all.
            channels in prop_oneof![Just(1usize), 1usize..20],
            rows in 1usize..3,
            epilogue: [bool; 3],
            seed: u64,
        ) {
            let of = PlaneConvolution { inputs: groups * inner, outputs: groups * channels, groups, height, width };
            let mut random = StdRng::seed_from_u64(seed);
            let mut floats = |n: usize| (0..n).map(|_| random.random::<f32>() - 0.5).collect::<Vec<f32>>();
            let x = floats(rows * of.inputs * height.input * width.input);
            let weight = floats(of.outputs * inner * height.kernel * width.kernel);
            let bias = floats(of.outputs);
            let added = floats(rows * of.outputs * height.output * width.output);
            let epilogue = Epilogue {
                bias: epilogue[0].then_some(&bias[..]),
                added: epilogue[1].then_some(&added[..]),
                limits: if epilogue[2] { Limits(-0.25, 0.25) } else { Limits::NONE },
            };
            let want = plain(&of, &x, &weight, &epilogue);
            let mut out = vec![f32::NAN; want.len()];
            of.forward(&x, &weight, &epilogue, &mut out);
            for (index, (got, want)) in out.iter().zip(want).enumerate() {
                prop_assert!((f64::from(*got) - want).abs() < 1e-4, "{of:?} at {index}: {got} for {want}");
            }
        }
    }
}
