//! Inner loops in f32, compiled for each instruction set and chosen when they run.

mod attention;
mod linear;
mod math;
mod norm;
mod panels;

pub(crate) use attention::attend;
pub(crate) use linear::{Activation, Linear};
pub(crate) use norm::{Norm, normalise_sum};
