//! A convolution of each channel with a window of its own.

use pulp::{Arch, Simd, WithSimd};

use super::{
    convolution::Limits,
    map::{Layout, Map, Window},
    output::Output,
    threads::Threads,
};

/// Output pixels whose sums are held in registers, two vectors of each: of more pixels the addresses would lie in memory.
const MOST_PIXELS: usize = 4;
/// Vectors of the widest instruction set are so long.
const MOST_LANES: usize = 16;

/// `limits(x ∗ weight + bias)`, channel by channel.
pub(crate) struct Depthwise {
    /// `[side, side, channels]`, the channels filled with zeros to whole vectors.
    weight: Vec<f32>,
    bias: Vec<f32>,
    window: Window,
    limits: Limits,
}

impl Depthwise {
    /// Takes a weight `[channels, 1, side, side]` as checkpoints hold it.
    pub(crate) fn new(weight: &[f32], mut bias: Vec<f32>, window: Window, limits: Limits) -> Self {
        let area = window.side * window.side;
        let padded = bias.len().next_multiple_of(MOST_LANES);
        let mut taps = vec![0.0; area * padded];
        for (channel, values) in weight.chunks_exact(area).enumerate() {
            values.iter().enumerate().for_each(|(tap, value)| taps[tap * padded + channel] = *value);
        }
        bias.resize(padded, 0.0);
        Self { weight: taps, bias, window, limits }
    }

    /// Bytes of the packed weights; `area` is the pixels of a window.
    pub(crate) fn bytes(area: usize, channels: usize) -> u64 {
        ((area + 1) * channels.next_multiple_of(MOST_LANES) * size_of::<f32>()) as u64
    }

    /// Of `x` into `out`, whose layout says what comes out.
    pub(crate) fn forward(&self, threads: Threads, x: &Map, out: &mut Map) {
        let layout = *out.layout();
        let (output, arch) = (Output::new(out.values_mut()), Arch::new());
        threads.each(layout.height, |row| arch.dispatch(Row { layer: self, x, layout, output, row }));
    }
}

/// One row of output pixels.
struct Row<'a> {
    layer: &'a Depthwise,
    x: &'a Map,
    layout: Layout,
    output: Output,
    row: usize,
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let pieces = self.layout.width.div_ceil(MOST_PIXELS);
        let (fewest, more) = (self.layout.width / pieces, self.layout.width % pieces);
        let mut column = 0;
        for piece in 0..pieces {
            let pixels = fewest + usize::from(piece < more);
            macro_rules! by_pixels {
                ($($pixels:literal)*) => {
                    match pixels {
                        $($pixels => self.pixels::<S, $pixels>(simd, column),)*
                        _ => {}
                    }
                };
            }
            by_pixels!(1 2 3 4);
            column += pixels;
        }
    }
}

impl Row<'_> {
    #[inline(always)]
    fn pixels<S: Simd, const PIXELS: usize>(&self, simd: S, column: usize) {
        let mut channel = 0;
        while channel < self.layout.channels {
            if channel + 2 * S::F32_LANES <= self.layer.bias.len() {
                self.vectors::<S, PIXELS, 2>(simd, column, channel);
                channel += 2 * S::F32_LANES;
            } else {
                self.vectors::<S, PIXELS, 1>(simd, column, channel);
                channel += S::F32_LANES;
            }
        }
    }

    /// Some vectors of channels of some pixels.
    #[inline(always)]
    fn vectors<S: Simd, const PIXELS: usize, const VECTORS: usize>(&self, simd: S, column: usize, channel: usize) {
        let Depthwise { weight, bias, window, limits } = self.layer;
        let (from, channels, side) = (self.x.layout(), self.layout.channels, window.side);
        let (first, stride) = (from.seen(window, self.row, column) + channel, window.stride.1 * channels);
        let (values, width) = (self.x.values(), VECTORS * S::F32_LANES);
        let last = first + (side - 1) * (from.row() + channels) + (PIXELS - 1) * stride + width;
        assert!(last <= values.len(), "the pixels lie inside the map");
        let (start, _) = S::as_simd_f32s(&bias[channel..][..width]);
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; PIXELS];
        sums.iter_mut().for_each(|sums| sums.copy_from_slice(start));
        // Walked by adding: a division for each tap would take longer than its products.
        let mut tap = channel;
        for down in 0..side {
            let mut at = first + down * from.row();
            for _ in 0..side {
                let (taps, _) = S::as_simd_f32s(&weight[tap..][..width]);
                let seen = values.as_ptr().wrapping_add(at);
                for (pixel, sums) in sums.iter_mut().enumerate() {
                    for (vector, (sum, tap)) in sums.iter_mut().zip(taps).enumerate() {
                        let value = seen.wrapping_add(pixel * stride + vector * S::F32_LANES).cast::<S::f32s>();
                        // SAFETY: the assertion covers the last pixel's last vector.
                        *sum = simd.mul_add_e_f32s(unsafe { value.read_unaligned() }, *tap, *sum);
                    }
                }
                (tap, at) = (tap + bias.len(), at + channels);
            }
        }
        let (least, greatest) = (simd.splat_f32s(limits.0), simd.splat_f32s(limits.1));
        for (pixel, sums) in sums.iter().enumerate() {
            let at = self.layout.inside(self.row, column + pixel);
            for (channel, sum) in (channel..channels).step_by(S::F32_LANES).zip(sums) {
                let columns = S::F32_LANES.min(channels - channel);
                // SAFETY: `forward` holds the map; each task has a row of its own.
                let out = unsafe { self.output.piece(at + channel, columns) };
                let sum = simd.min_f32s(simd.max_f32s(*sum, least), greatest);
                if columns == S::F32_LANES {
                    S::as_mut_simd_f32s(out).0[0] = sum;
                } else {
                    simd.partial_store_f32s(out, sum);
                }
            }
        }
    }
}
