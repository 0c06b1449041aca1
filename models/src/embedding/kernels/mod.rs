//! The encoder's inner loops in f32, compiled for each instruction set and chosen when they run.

mod attention;
mod linear;
mod math;
mod norm;
mod panels;

pub(super) use attention::attend;
pub(super) use linear::{Activation, Linear};
pub(super) use norm::{Norm, normalise_sum};
