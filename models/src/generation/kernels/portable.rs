//! Lanes for any machine.

use super::lanes::{LANES, Lanes};

/// Plain arrays, which the compiler turns into what vectors there are.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type V = [f32; LANES];

#[inline(always)]
fn each(of: impl Fn(usize) -> f32) -> V {
    std::array::from_fn(of)
}

impl Lanes for Portable {
    type V = V;
    type Eights = Portable;
    const TILE_ROWS: usize = 2;
    const TILE_COLUMNS: usize = 2;

    #[inline(always)]
    fn eights(self) -> Portable {
        self
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
    #[inline(always)]
    fn splat(self, value: f32) -> V {
        [value; LANES]
    }
    #[inline(always)]
    fn splat_half(self, bits: [u8; 2]) -> V {
        [half::f16::from_le_bytes(bits).to_f32(); LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> V {
        *from
    }
    #[inline(always)]
    fn store(self, values: V, to: &mut [f32; LANES]) {
        *to = values;
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn add_exponents(self, values: V, rounded: V) -> V {
        each(|i| f32::from_bits(values[i].to_bits().wrapping_add(rounded[i].to_bits() << 23)))
    }
    #[inline(always)]
    fn sum(self, values: V) -> f32 {
        let mut sums = values;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
        }
        sums[0]
    }
    #[inline(always)]
    fn four_sums(self, [a, b, c, d]: [V; 4]) -> [f32; 4] {
        [self.sum(a), self.sum(b), self.sum(c), self.sum(d)]
    }
    #[inline(always)]
    fn halves(self, from: &[[u8; 2]; LANES]) -> V {
        each(|i| half::f16::from_le_bytes(from[i]).to_f32())
    }
    #[inline(always)]
    fn brains(self, from: &[[u8; 2]; LANES]) -> V {
        each(|i| f32::from_bits(u32::from(u16::from_le_bytes(from[i])) << 16))
    }
    #[inline(always)]
    fn floats(self, from: &[[u8; 4]; LANES]) -> V {
        each(|i| f32::from_le_bytes(from[i]))
    }
    #[inline(always)]
    fn bytes(self, from: &[u8; LANES]) -> V {
        each(|i| f32::from(from[i]))
    }
    #[inline(always)]
    fn signed(self, from: &[u8; LANES]) -> V {
        each(|i| f32::from(from[i] as i8))
    }
    #[inline(always)]
    fn nibbles(self, from: &[u8; LANES]) -> (V, V) {
        (each(|i| f32::from(from[i] & 15)), each(|i| f32::from(from[i] >> 4)))
    }
}
