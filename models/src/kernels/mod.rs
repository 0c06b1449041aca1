//! Inner loops in f32, compiled for each instruction set and chosen when they run.

mod attention;
mod cache;
mod linear;
mod log_sum_exp;
mod math;
mod norm;
mod panels;

pub(crate) use attention::attend;
pub(crate) use cache::{Cache, Reading, attend_cached};
pub(crate) use linear::{Activation, Linear};
pub(crate) use log_sum_exp::log_sum_exp;
pub(crate) use math::gelu_all;
pub(crate) use norm::{Norm, normalise_sum};
