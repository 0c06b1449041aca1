//! Rows rounded to sixteen bits, to be multiplied with weights that are small whole numbers.

use super::{
    eights::{WORDS, Words},
    lanes::{Kernel, Lanes},
};

/// The greatest whole number of a block.
const GREATEST: f32 = 32_767.0;
/// Added to a value below 2^22, it leaves the nearest whole number, ties to even, in the low bits.
const ROUNDING: f32 = 12_582_912.0;

/// Rows in blocks of 32 values, each block with a scale of its own. In eight bits, as others have it, products take a little
/// less, but small models answer differently: sixteen are as good as f32.
#[derive(Debug, Default)]
pub(crate) struct Rounded {
    /// Whole numbers of −32767 to 32767.
    pub(super) quants: Vec<Words>,
    /// Of each block: its scale, and the sum of its values.
    pub(super) scales: Vec<[f32; 2]>,
}

impl Rounded {
    pub(crate) fn is_empty(&self) -> bool {
        self.quants.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.quants.clear();
        self.scales.clear();
    }
}

/// Rounds values; whole blocks of them.
pub(crate) struct Round<'a> {
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut Rounded,
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let (blocks, _) = self.from.as_chunks::<WORDS>();
        self.to.quants.resize(blocks.len(), Words::default());
        self.to.scales.resize(blocks.len(), [0.0; 2]);
        for ((block, quants), scales) in blocks.iter().zip(&mut self.to.quants).zip(&mut self.to.scales) {
            *scales = round(block, &mut quants.0);
        }
    }
}

/// Rounds a block; its scale, and the sum of its rounded values.
#[inline(always)]
fn round(block: &[f32; WORDS], quants: &mut [i16; WORDS]) -> [f32; 2] {
    // The bits of sizes are in their order, and what is no number is above all: its scale, and the products, are none either.
    let greatest = f32::from_bits(block.iter().fold(0, |most, value| value.abs().to_bits().max(most)));
    // Of values so small their scale has no inverse.
    let inverse = if greatest > f32::MIN_POSITIVE { GREATEST / greatest } else { 0.0 };
    let mut sum = 0i32;
    for (quant, value) in quants.iter_mut().zip(block) {
        let whole = (value * inverse + ROUNDING).to_bits().wrapping_sub(ROUNDING.to_bits()) as i32;
        *quant = whole as i16;
        sum += i32::from(*quant);
    }
    let scale = greatest / GREATEST;
    [scale, scale * sum as f32]
}
