//! The elements of simply quantised rows as small whole numbers with a scale (blocks as in ggml's `ggml-common.h`).

use super::{
    eights::{EIGHT, Eights},
    formats::{Format, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0},
};

/// A block of 32 elements: each is its whole number times the block's scale, plus the block's least value.
pub(crate) trait Whole: Format {
    /// The whole numbers, as words.
    fn quants<I: Eights>(&self, lanes: I) -> [I::I; 2];
    /// Of eight blocks, the scales and the least values.
    fn scales<I: Eights>(lanes: I, blocks: [&Self; EIGHT]) -> [I::E; 2];
}

/// A field of each of eight blocks; a call of `map` would stay one, and registers be saved for it.
macro_rules! each {
    ($blocks:ident, $field:ident) => {{
        let [a, b, c, d, e, f, g, h] = $blocks;
        [a.$field, b.$field, c.$field, d.$field, e.$field, f.$field, g.$field, h.$field]
    }};
}

/// Scales, and as least values so many times the scales.
#[inline(always)]
fn times<I: Eights>(lanes: I, scales: [[u8; 2]; EIGHT], least: f32) -> [I::E; 2] {
    let scales = lanes.halves(scales);
    [scales, lanes.mul(scales, lanes.splat(least))]
}

impl Whole for Q4_0 {
    #[inline(always)]
    fn quants<I: Eights>(&self, lanes: I) -> [I::I; 2] {
        lanes.nibbles(&self.quants)
    }
    #[inline(always)]
    fn scales<I: Eights>(lanes: I, blocks: [&Self; EIGHT]) -> [I::E; 2] {
        times(lanes, each!(blocks, scale), -8.0)
    }
}

impl Whole for Q4_1 {
    #[inline(always)]
    fn quants<I: Eights>(&self, lanes: I) -> [I::I; 2] {
        lanes.nibbles(&self.quants)
    }
    #[inline(always)]
    fn scales<I: Eights>(lanes: I, blocks: [&Self; EIGHT]) -> [I::E; 2] {
        lanes.half_pairs(each!(blocks, scales))
    }
}

impl Whole for Q5_0 {
    #[inline(always)]
    fn quants<I: Eights>(&self, lanes: I) -> [I::I; 2] {
        lanes.five_bits(&self.quants, self.high)
    }
    #[inline(always)]
    fn scales<I: Eights>(lanes: I, blocks: [&Self; EIGHT]) -> [I::E; 2] {
        times(lanes, each!(blocks, scale), -16.0)
    }
}

impl Whole for Q5_1 {
    #[inline(always)]
    fn quants<I: Eights>(&self, lanes: I) -> [I::I; 2] {
        lanes.five_bits(&self.quants, self.high)
    }
    #[inline(always)]
    fn scales<I: Eights>(lanes: I, blocks: [&Self; EIGHT]) -> [I::E; 2] {
        lanes.half_pairs(each!(blocks, scales))
    }
}

impl Whole for Q8_0 {
    #[inline(always)]
    fn quants<I: Eights>(&self, lanes: I) -> [I::I; 2] {
        lanes.signed(&self.quants)
    }
    #[inline(always)]
    fn scales<I: Eights>(lanes: I, blocks: [&Self; EIGHT]) -> [I::E; 2] {
        [lanes.halves(each!(blocks, scale)), lanes.splat(0.0)]
    }
}
