//! A convolution over all channels, as products of pixels and panels: what a window sees of one row lies side by side.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::{
    map::{Layout, Map, Window},
    output::Output,
    panels::{MachineRows, tile_rows, width},
    threads::Threads,
    tile::{Seen, Target, Walk, compute},
    weight::Weight,
};
use crate::Precision;

/// Values of the panels of one task, and of the pixels that it reads and writes: together they stay in a core's second
/// cache.
const PANEL_VALUES: usize = 48 << 10;
const PIXEL_VALUES: usize = 32 << 10;
/// Tasks for each thread, so that the last to end is a short one.
const TASKS: usize = 4;

/// The least and the greatest value that come out of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits(pub(crate) f32, pub(crate) f32);

impl Limits {
    pub(crate) const NONE: Self = Self(f32::NEG_INFINITY, f32::INFINITY);
    pub(crate) const RELU: Self = Self(0.0, f32::INFINITY);
    pub(crate) const RELU6: Self = Self(0.0, 6.0);
}

/// `limits(x ∗ weight + bias + added)`.
pub(crate) struct Convolution {
    weight: Weight,
    /// Filled with zeros to whole panels.
    bias: Vec<f32>,
    window: Window,
    limits: Limits,
}

impl Convolution {
    /// Packs a weight `[outputs, inputs, side, side]` as checkpoints hold it, to be held in a precision; it computes in f32.
    pub(crate) fn new(weight: &[f32], bias: Vec<f32>, window: Window, limits: Limits, precision: Precision) -> Self {
        let (outputs, area) = (bias.len(), window.side * window.side);
        let (depth, inputs) = (weight.len() / outputs, weight.len() / outputs / area);
        // As maps hold it: the channels of a pixel side by side.
        let mut ordered = vec![0.0; weight.len()];
        for (from, to) in weight.chunks_exact(depth).zip(ordered.chunks_exact_mut(depth)) {
            for (channel, taps) in from.chunks_exact(area).enumerate() {
                taps.iter().enumerate().for_each(|(tap, value)| to[tap * inputs + channel] = *value);
            }
        }
        let weight = Weight::new(&ordered, outputs, precision);
        Self { bias: weight.padded(bias), weight, window, limits }
    }

    /// Of `x` into `out`, whose layout says what comes out; `added` has its height, width and channels.
    pub(crate) fn forward(&self, threads: Threads, x: &Map, out: &mut Map, added: Option<&Map>) {
        let layout = *out.layout();
        let cut = self.cut(threads, x.layout(), &layout);
        let (output, arch) = (Output::new(out.values_mut()), Arch::new());
        threads.each(cut.groups * cut.pieces, |task| {
            // What is larger is read once.
            let (group, piece) = match cut.by_groups {
                true => (task / cut.pieces, task % cut.pieces),
                false => (task % cut.groups, task / cut.groups),
            };
            let panels = part(self.weight.count(), cut.groups, group);
            let pixels = part(cut.units, cut.pieces, piece);
            let pixels = pixels.start * cut.unit..(pixels.end * cut.unit).min(layout.height * layout.width);
            arch.dispatch(Task { layer: self, x, added, layout, output, line: cut.line, panels, pixels });
        });
    }

    fn cut(&self, threads: Threads, from: &Layout, to: &Layout) -> Cut {
        let Window { side, stride, .. } = self.window;
        let pixels = to.height * to.width;
        // Where each pixel sees itself alone and no border lies between rows, the map is one line of pixels.
        let joined = self.window == Window::PIXEL && from.border.left + from.border.right == 0;
        let line = if joined { pixels } else { to.width };
        let unit = if joined { Arch::new().dispatch(MachineRows) } else { to.width };
        let units = pixels.div_ceil(unit);

        let panels = self.weight.count();
        let weights = self.weight.inputs * self.weight.outputs;
        let values = pixels * (side.min(stride.0) * stride.1 * from.channels + to.channels);
        let by_groups = weights > values;
        let wanted = if threads == Threads::All { TASKS * threads.count() } else { 1 };
        let mut groups = weights.div_ceil(PANEL_VALUES).min(panels);
        let mut pieces = values.div_ceil(PIXEL_VALUES).min(units);
        if by_groups {
            groups = groups.max(wanted.div_ceil(pieces)).min(panels);
        }
        pieces = pieces.max(wanted.div_ceil(groups)).min(units);
        groups = groups.max(wanted.div_ceil(pieces)).min(panels);
        Cut { line, unit, units, groups, pieces, by_groups }
    }
}

/// How the work is cut into tasks: some panels times some pixels.
struct Cut {
    /// Pixels that one stride leads through.
    line: usize,
    /// Pixels that stay together: a tile, or a line where lines are not joined.
    unit: usize,
    units: usize,
    /// Groups of panels.
    groups: usize,
    /// Pieces of the map.
    pieces: usize,
    /// Whether the pieces of one group come one after the other.
    by_groups: bool,
}

/// One of `parts` parts of so many things, as even as can be.
fn part(things: usize, parts: usize, index: usize) -> Range<usize> {
    index * things / parts..(index + 1) * things / parts
}

/// Some pixels of some panels.
struct Task<'a> {
    layer: &'a Convolution,
    x: &'a Map,
    added: Option<&'a Map>,
    layout: Layout,
    output: Output,
    line: usize,
    panels: Range<usize>,
    pixels: Range<usize>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { layer: Convolution { weight, bias, window, limits }, x, added, layout, output, line, .. } = &self;
        let from = x.layout();
        let (stride, run) = (window.stride.1 * from.channels, window.side * from.channels);
        let mut widened = Vec::new();
        for index in self.panels.clone() {
            let (panel, columns) = weight.panel(index, &mut widened);
            let target = Target {
                bias: &bias[columns.start..][..width::<S>()],
                limits: (limits.0, limits.1),
                added: added.map(Map::values),
                output: *output,
                channel: columns.start,
                channels: columns.len(),
            };
            let layouts = [layout, added.map_or(layout, Map::layout)];
            let mut walks = layouts.map(|layout| Walk::from(layout, self.pixels.start));
            let mut pixel = self.pixels.start;
            while pixel < self.pixels.end {
                // A piece begins inside a line only where the whole map is one.
                let count = (line - pixel % line).min(self.pixels.end - pixel);
                let first = from.seen(window, pixel / line, 0) + pixel % line * stride;
                let (mut done, tiles) = (0, count.div_ceil(tile_rows::<S>()));
                let (fewest, more) = (count / tiles, count % tiles);
                for tile in 0..tiles {
                    let pixels = fewest + usize::from(tile < more);
                    let values = &x.values()[first + done * stride..];
                    let seen = Seen { values, stride, run, runs: window.side, step: from.row() };
                    // SAFETY: `forward` holds the map; each task has pixels and channels of its own.
                    unsafe { compute(simd, pixels, seen, panel, &target, &mut walks) };
                    done += pixels;
                }
                pixel += count;
            }
        }
    }
}

#[cfg(test)]
mod tests;
