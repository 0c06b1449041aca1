//! The inner loops of a decoder in f32, compiled for each instruction set and chosen when they run.
//!
//! Each value is a function of its own row and its own weights, in one order of additions, however many rows there are and
//! whichever thread computes it.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_eights;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_sixteens;
mod destination;
mod eights;
mod elementwise;
mod formats;
mod k_quants;
mod lanes;
mod math;
mod matrix;
mod portable;
mod portable_eights;
mod product;
mod rope;
mod rounded;
mod shared;
mod stored;
#[cfg(test)]
mod tests;
mod tile;
mod whole;
mod whole_product;

pub(crate) use attention::{Attention, BLOCK_TOKENS};
pub(crate) use destination::{Destination, Write};
pub(crate) use elementwise::{Gate, Normalise};
pub(crate) use lanes::{LANES, dispatch};
pub(crate) use math::ExpSum;
pub(crate) use matrix::Matrix;
pub(crate) use product::{Product, Unpack};
pub(crate) use rope::{Rope, RopeStyle};
pub(crate) use rounded::{Round, Rounded};
pub(crate) use shared::Shared;
pub(crate) use stored::{Half, Stored, to_halves};
pub(crate) use whole_product::{Unpacked, WholeProduct};
