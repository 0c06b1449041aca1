//! The elements of rows in blocks of 256 with scales of their parts (ggml's k-quants) as f32.

use super::{
    formats::Format,
    lanes::{LANES, Lanes},
};

type Half = [u8; 2];
type Sixteen = [u8; LANES];

#[repr(C)]
pub(crate) struct Q2K {
    /// Of each sixteen: the scale in the low four bits, the minimum in the high four.
    scales: [u8; 16],
    quants: [[Sixteen; 2]; 2],
    scale: Half,
    least: Half,
}
#[repr(C)]
pub(crate) struct Q3K {
    high: [Sixteen; 2],
    quants: [[Sixteen; 2]; 2],
    scales: [u8; 12],
    scale: Half,
}
#[repr(C)]
pub(crate) struct Q4K {
    scale: Half,
    least: Half,
    scales: [u8; 12],
    quants: [[Sixteen; 2]; 4],
}
#[repr(C)]
pub(crate) struct Q5K {
    scale: Half,
    least: Half,
    scales: [u8; 12],
    high: [Sixteen; 2],
    quants: [[Sixteen; 2]; 4],
}
#[repr(C)]
pub(crate) struct Q6K {
    low: [[Sixteen; 4]; 2],
    high: [[Sixteen; 2]; 2],
    scales: [u8; 16],
    scale: Half,
}
#[repr(C)]
pub(crate) struct Q8K {
    scale: [u8; 4],
    quants: [Sixteen; 16],
    sums: [Half; 16],
}

/// Two bits of each byte.
#[inline(always)]
fn two_bits(bytes: &Sixteen, shift: usize) -> Sixteen {
    std::array::from_fn(|i| bytes[i] >> shift & 3)
}

/// `scale` and `minimum` of the eight parts, six bits each, that are packed in twelve bytes.
#[inline(always)]
fn scale_and_least(packed: &[u8; 12], part: usize) -> (f32, f32) {
    let (scale, least) = if part < 4 {
        (packed[part] & 63, packed[part + 4] & 63)
    } else {
        let (low, high) = (packed[part + 4], [packed[part - 4], packed[part]]);
        (low & 15 | high[0] >> 6 << 4, low >> 4 | high[1] >> 6 << 4)
    };
    (scale.into(), least.into())
}

// SAFETY of all: each is made of bytes alone.
unsafe impl Format for Q2K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let (scale, least) = (lanes.splat_half(self.scale), lanes.splat_half(self.least));
        for (part, scales) in self.scales.iter().enumerate() {
            // Parts come in pairs, four pairs share their bytes.
            let bytes = &self.quants[part / 8][part % 2];
            let quants = lanes.bytes(&two_bits(bytes, part / 2 % 4 * 2));
            let least = lanes.mul(least, lanes.splat(-f32::from(scales >> 4)));
            sink(part * LANES, lanes.fma(quants, lanes.mul(scale, lanes.splat((scales & 15).into())), least));
        }
    }
}

unsafe impl Format for Q3K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let scale = lanes.splat_half(self.scale);
        for part in 0..16 {
            let low = if part < 8 { self.scales[part] & 15 } else { self.scales[part - 8] >> 4 };
            let high = self.scales[8 + part % 4] >> (part / 4 * 2) & 3;
            let scale = lanes.mul(scale, lanes.splat(f32::from(low | high << 4) - 32.0));
            let (pair, bit) = (part / 2, &self.high[part % 2]);
            let bytes = two_bits(&self.quants[part / 8][part % 2], pair % 4 * 2);
            let quants = std::array::from_fn(|i| bytes[i] | (bit[i] >> pair & 1) << 2);
            sink(part * LANES, lanes.mul(lanes.sub(lanes.bytes(&quants), lanes.splat(4.0)), scale));
        }
    }
}

unsafe impl Format for Q4K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let (scale, least) = (lanes.splat_half(self.scale), lanes.splat_half(self.least));
        for (pair, bytes) in self.quants.iter().enumerate() {
            let (own, below) = scale_and_least(&self.scales, 2 * pair);
            let first = (lanes.mul(scale, lanes.splat(own)), lanes.mul(least, lanes.splat(-below)));
            let (own, below) = scale_and_least(&self.scales, 2 * pair + 1);
            let second = (lanes.mul(scale, lanes.splat(own)), lanes.mul(least, lanes.splat(-below)));
            let (left, right) = (lanes.nibbles(&bytes[0]), lanes.nibbles(&bytes[1]));
            let at = pair * 64;
            sink(at, lanes.fma(left.0, first.0, first.1));
            sink(at + LANES, lanes.fma(right.0, first.0, first.1));
            sink(at + 2 * LANES, lanes.fma(left.1, second.0, second.1));
            sink(at + 3 * LANES, lanes.fma(right.1, second.0, second.1));
        }
    }
}

unsafe impl Format for Q5K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let (scale, least) = (lanes.splat_half(self.scale), lanes.splat_half(self.least));
        for part in 0..8 {
            let (own, below) = scale_and_least(&self.scales, part);
            let (own, below) = (lanes.mul(scale, lanes.splat(own)), lanes.mul(least, lanes.splat(-below)));
            for (half, (bytes, high)) in self.quants[part / 2].iter().zip(&self.high).enumerate() {
                let shift = part % 2 * 4;
                let quants = std::array::from_fn(|i| bytes[i] >> shift & 15 | (high[i] >> part & 1) << 4);
                sink(part * 32 + half * LANES, lanes.fma(lanes.bytes(&quants), own, below));
            }
        }
    }
}

unsafe impl Format for Q6K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let (scale, middle) = (lanes.splat_half(self.scale), lanes.splat(32.0));
        for part in 0..16 {
            let (half, quarter, sixteen) = (part / 8, part / 2 % 4, part % 2);
            let (low, high) = (&self.low[half][quarter % 2 * 2 + sixteen], &self.high[half][sixteen]);
            let (shift, bits) = (quarter / 2 * 4, quarter * 2);
            let quants = std::array::from_fn(|i| low[i] >> shift & 15 | (high[i] >> bits & 3) << 4);
            let scale = lanes.mul(scale, lanes.splat((self.scales[part] as i8).into()));
            sink(part * LANES, lanes.mul(lanes.sub(lanes.bytes(&quants), middle), scale));
        }
    }
}

unsafe impl Format for Q8K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, mut sink: impl FnMut(usize, L::V)) {
        let scale = lanes.splat(f32::from_le_bytes(self.scale));
        for (part, quants) in self.quants.iter().enumerate() {
            sink(part * LANES, lanes.mul(lanes.signed(quants), scale));
        }
    }
}
