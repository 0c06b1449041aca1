//! The elements of simply quantised rows as small whole numbers with a scale (blocks as in ggml's `ggml-common.h`).

use super::{
    eights::Eights,
    formats::{Format, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0},
};

/// A block of 32 elements: each is its whole number times the block's scale, plus the block's least value.
pub(crate) trait Whole: Format {
    /// Whether it has a least value.
    const LEAST: bool = true;

    /// The whole numbers.
    fn quants<I: Eights>(&self, lanes: I) -> I::W;
    /// Scale and least value, four times.
    fn scales<I: Eights>(&self, lanes: I) -> I::E;
}

impl Whole for Q4_0 {
    #[inline(always)]
    fn quants<I: Eights>(&self, lanes: I) -> I::W {
        lanes.nibbles(&self.quants)
    }
    #[inline(always)]
    fn scales<I: Eights>(&self, lanes: I) -> I::E {
        lanes.mul(lanes.half_pairs([self.scale; 2]), lanes.pairs([1.0, -8.0]))
    }
}

impl Whole for Q4_1 {
    #[inline(always)]
    fn quants<I: Eights>(&self, lanes: I) -> I::W {
        lanes.nibbles(&self.quants)
    }
    #[inline(always)]
    fn scales<I: Eights>(&self, lanes: I) -> I::E {
        lanes.half_pairs(self.scales)
    }
}

impl Whole for Q5_0 {
    #[inline(always)]
    fn quants<I: Eights>(&self, lanes: I) -> I::W {
        lanes.five_bits(&self.quants, self.high)
    }
    #[inline(always)]
    fn scales<I: Eights>(&self, lanes: I) -> I::E {
        lanes.mul(lanes.half_pairs([self.scale; 2]), lanes.pairs([1.0, -16.0]))
    }
}

impl Whole for Q5_1 {
    #[inline(always)]
    fn quants<I: Eights>(&self, lanes: I) -> I::W {
        lanes.five_bits(&self.quants, self.high)
    }
    #[inline(always)]
    fn scales<I: Eights>(&self, lanes: I) -> I::E {
        lanes.half_pairs(self.scales)
    }
}

impl Whole for Q8_0 {
    const LEAST: bool = false;

    #[inline(always)]
    fn quants<I: Eights>(&self, lanes: I) -> I::W {
        lanes.signed(&self.quants)
    }
    #[inline(always)]
    fn scales<I: Eights>(&self, lanes: I) -> I::E {
        lanes.half_pairs([self.scale; 2])
    }
}
