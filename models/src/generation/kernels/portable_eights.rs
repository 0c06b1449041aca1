//! Eights for any machine.

use super::{
    eights::{EIGHT, Eights, PAIRS, WORDS, Words},
    portable::Portable,
};

type E = [f32; EIGHT];
/// Pairs of words as the machine's others hold them: the first in the low half.
type I = [i32; EIGHT];

fn packed(first: i16, second: i16) -> i32 {
    i32::from(first.cast_unsigned()) | i32::from(second) << 16
}

fn words_of(pair: i32) -> [i32; 2] {
    [i32::from(pair as i16), pair >> 16]
}

fn from_words(words: [i16; WORDS]) -> [I; 2] {
    [0, EIGHT].map(|first| std::array::from_fn(|i| packed(words[2 * (first + i)], words[2 * (first + i) + 1])))
}

impl Eights for Portable {
    type E = E;
    type I = I;

    #[inline(always)]
    fn splat(self, value: f32) -> E {
        [value; EIGHT]
    }
    #[inline(always)]
    fn load(self, from: &[f32; EIGHT]) -> E {
        *from
    }
    #[inline(always)]
    fn store(self, values: E, to: &mut [f32; EIGHT]) {
        *to = values;
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
    fn halves(self, from: [[u8; 2]; EIGHT]) -> E {
        from.map(|bits| half::f16::from_le_bytes(bits).to_f32())
    }
    #[inline(always)]
    fn half_pairs(self, from: [[[u8; 2]; 2]; EIGHT]) -> [E; 2] {
        [0, 1].map(|next| self.halves(from.map(|pair| pair[next])))
    }
    #[inline(always)]
    fn floats(self, whole: I) -> E {
        whole.map(|whole| whole as f32)
    }

    #[inline(always)]
    fn zeros(self) -> I {
        [0; EIGHT]
    }
    #[inline(always)]
    fn load_whole(self, from: &[i32; EIGHT]) -> I {
        *from
    }
    #[inline(always)]
    fn store_whole(self, whole: I, to: &mut [i32; EIGHT]) {
        *to = whole;
    }
    #[inline(always)]
    fn words(self, from: &Words) -> [I; 2] {
        from_words(from.0)
    }
    #[inline(always)]
    fn pair(self, from: &Words, index: usize) -> I {
        [packed(from.0[2 * index], from.0[2 * index + 1]); EIGHT]
    }
    #[inline(always)]
    fn signed(self, from: &[u8; WORDS]) -> [I; 2] {
        from_words(from.map(|byte| (byte as i8).into()))
    }
    #[inline(always)]
    fn nibbles(self, from: &[u8; WORDS / 2]) -> [I; 2] {
        self.five_bits(from, [0; 4])
    }
    #[inline(always)]
    fn five_bits(self, low: &[u8; WORDS / 2], high: [u8; 4]) -> [I; 2] {
        let high = u32::from_le_bytes(high);
        from_words(std::array::from_fn(|i| {
            let low = if i < 16 { low[i] & 15 } else { low[i - 16] >> 4 };
            i16::from(low) | ((high >> i & 1) << 4) as i16
        }))
    }
    #[inline(always)]
    fn add_products(self, a: I, b: I, to: I) -> I {
        std::array::from_fn(|i| {
            let ([a, c], [b, d]) = (words_of(a[i]), words_of(b[i]));
            to[i] + a * b + c * d
        })
    }
    #[inline(always)]
    fn sums(self, of: [I; EIGHT]) -> I {
        of.map(|whole| whole.iter().sum())
    }
    #[inline(always)]
    fn turn(self, columns: [[I; 2]; EIGHT]) -> [I; PAIRS] {
        std::array::from_fn(|pair| columns.map(|halves| halves[pair / EIGHT][pair % EIGHT]))
    }
}
