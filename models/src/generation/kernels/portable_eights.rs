//! Eights for any machine.

use super::{
    eights::{Eights, WORDS, Words},
    portable::Portable,
};

type E = [f32; 8];
type W = [i16; WORDS];

impl Eights for Portable {
    type E = E;
    type W = W;

    #[inline(always)]
    fn splat(self, value: f32) -> E {
        [value; 8]
    }
    #[inline(always)]
    fn pairs(self, pair: [f32; 2]) -> E {
        std::array::from_fn(|i| pair[i % 2])
    }
    #[inline(always)]
    fn half_pairs(self, pair: [[u8; 2]; 2]) -> E {
        self.pairs(pair.map(|bits| half::f16::from_le_bytes(bits).to_f32()))
    }
    #[inline(always)]
    fn pair(self, values: E) -> [f32; 2] {
        [values[0], values[1]]
    }
    #[inline(always)]
    fn evens(self, values: E) -> E {
        std::array::from_fn(|i| values[i & !1])
    }
    #[inline(always)]
    fn mul(self, a: E, b: E) -> E {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn fma(self, a: E, b: E, c: E) -> E {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn sums(self, values: [E; 4]) -> [f32; 4] {
        values.map(|mut sums| {
            for half in [4, 2, 1] {
                for i in 0..half {
                    sums[i] += sums[i + half];
                }
            }
            sums[0]
        })
    }

    #[inline(always)]
    fn load(self, from: &Words) -> W {
        from.0
    }
    #[inline(always)]
    fn store(self, words: W, to: &mut Words) {
        to.0 = words;
    }
    #[inline(always)]
    fn signed(self, from: &[u8; WORDS]) -> W {
        from.map(|byte| (byte as i8).into())
    }
    #[inline(always)]
    fn nibbles(self, from: &[u8; WORDS / 2]) -> W {
        std::array::from_fn(|i| if i < 16 { from[i] & 15 } else { from[i - 16] >> 4 }.into())
    }
    #[inline(always)]
    fn five_bits(self, low: &[u8; WORDS / 2], high: [u8; 4]) -> W {
        let (low, high) = (self.nibbles(low), u32::from_le_bytes(high));
        std::array::from_fn(|i| low[i] | ((high >> i & 1) << 4) as i16)
    }
    #[inline(always)]
    fn dot(self, a: W, b: &Words) -> E {
        let product = |at: usize| i32::from(a[at]) * i32::from(b.0[at]);
        std::array::from_fn(|i| [0, 1, 16, 17].map(|next| product(2 * i + next)).iter().sum::<i32>() as f32)
    }
}
