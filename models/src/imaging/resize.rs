//! Resizing by a separable filter whose support grows with the reduction, in 8-bit steps: the results are Pillow's.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

/// Weights are whole numbers of 2⁻²²: the sum over 8-bit values stays within 32 bits.
const FRACTION_BITS: u32 = 22;

/// How near pixels weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// A triangle.
    Bilinear,
    /// Keys' cubic with a = −½.
    Bicubic,
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// What is taken of an image, what that becomes, and what is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resize {
    /// Pixels outside it are not seen at all.
    pub(crate) from: Area,
    /// Width and height that it gets.
    pub(crate) to: (usize, usize),
    /// The part of that which is computed.
    pub(crate) keep: Area,
    pub(crate) filter: Filter,
}

impl Filter {
    /// How far it reaches, in pixels that are not reduced.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0,
            Self::Bicubic => 0.0,
        }
    }

    /// For each kept pixel the first that it sees, and their weights; `from` pixels become `to`.
    fn taps(self, from: Range<usize>, to: usize, keep: Range<usize>) -> Vec<Taps> {
        let scale = from.len() as f64 / to as f64;
        let reduced = scale.max(1.0);
        let support = self.support() * reduced;
        keep.map(|pixel| {
            let centre = (pixel as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(from.len());
            let weights: Vec<f64> =
                (first..last).map(|seen| self.weight((seen as f64 - centre + 0.5) / reduced)).collect();
            let unit = f64::from(1u32 << FRACTION_BITS) / weights.iter().sum::<f64>();
            Taps { first: from.start + first, weights: weights.iter().map(|w| (w * unit).round() as i32).collect() }
        })
        .collect()
    }
}

struct Taps {
    first: usize,
    weights: Vec<i32>,
}

impl Resize {
    /// The kept pixels of an image of so many channels and pixels a row, `from` inside it.
    pub(crate) fn apply<const CHANNELS: usize>(&self, pixels: &[u8], width: usize) -> Vec<u8> {
        let Self { from, to, keep, filter } = *self;
        let across = filter.taps(from.left..from.left + from.width, to.0, keep.left..keep.left + keep.width);
        let down = filter.taps(from.top..from.top + from.height, to.1, keep.top..keep.top + keep.height);
        let first = down.iter().map(|taps| taps.first).min().unwrap_or(0);
        let last = down.iter().map(|taps| taps.first + taps.weights.len()).max().unwrap_or(first);
        let source = &pixels[first * width * CHANNELS..last * width * CHANNELS];
        Arch::new().dispatch(Both::<CHANNELS> { source, width, across: &across, down: &down, first })
    }
}

/// Across each row, then down.
struct Both<'a, const CHANNELS: usize> {
    source: &'a [u8],
    width: usize,
    across: &'a [Taps],
    down: &'a [Taps],
    /// The row of the image with which the source begins.
    first: usize,
}

impl<const CHANNELS: usize> WithSimd for Both<'_, CHANNELS> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<u8> {
        let row = self.across.len() * CHANNELS;
        let mut narrow = vec![0; self.source.len() / (self.width * CHANNELS) * row];
        for (source, out) in self.source.chunks_exact(self.width * CHANNELS).zip(narrow.chunks_exact_mut(row)) {
            for (taps, out) in self.across.iter().zip(out.chunks_exact_mut(CHANNELS)) {
                let mut sums = [1 << (FRACTION_BITS - 1); CHANNELS];
                let seen = source[taps.first * CHANNELS..].chunks_exact(CHANNELS);
                for (weight, seen) in taps.weights.iter().zip(seen) {
                    sums.iter_mut().zip(seen).for_each(|(sum, value)| *sum += weight * i32::from(*value));
                }
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = rounded(sum));
            }
        }
        let mut short = vec![0; self.down.len() * row];
        let mut sums = vec![0; row];
        for (taps, out) in self.down.iter().zip(short.chunks_exact_mut(row)) {
            sums.fill(1 << (FRACTION_BITS - 1));
            let seen = narrow[(taps.first - self.first) * row..].chunks_exact(row);
            for (weight, seen) in taps.weights.iter().zip(seen) {
                sums.iter_mut().zip(seen).for_each(|(sum, value)| *sum += weight * i32::from(*value));
            }
            out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = rounded(*sum));
        }
        short
    }
}

#[inline(always)]
fn rounded(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}
