//! The inner loops of a decoder in f32, compiled for each instruction set and chosen when they run.
//!
//! Each value is a function of its own row and its own weights, in one order of additions, however many rows there are and
//! whichever thread computes it.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod elementwise;
mod formats;
mod k_quants;
mod lanes;
mod math;
mod portable;
mod product;
mod rope;
mod shared;
#[cfg(test)]
mod tests;
mod tile;

pub(crate) use attention::{Attention, BLOCK_TOKENS};
pub(crate) use elementwise::{Gate, Normalise};
pub(crate) use lanes::{LANES, dispatch};
pub(crate) use math::ExpSum;
pub(crate) use product::{Matrix, Product, Spread, Unpack, Write};
pub(crate) use rope::{Rope, RopeStyle};
pub(crate) use shared::Shared;
