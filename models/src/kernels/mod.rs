//! Inner loops in f32, compiled for each instruction set and chosen when they run.

mod attention;
mod bf16_dot;
mod cache;
mod convolution;
mod depthwise;
mod epilogue;
mod linear;
mod log_sum_exp;
mod lstm;
mod map;
mod math;
mod norm;
mod output;
mod paired;
mod panels;
mod plane_convolution;
mod plane_depthwise;
mod pooling;
mod threads;
mod tile;
mod weight;

pub(crate) use attention::attend;
pub(crate) use cache::{Cache, Reading, attend_cached};
pub(crate) use convolution::{Convolution, Limits};
pub(crate) use depthwise::Depthwise;
pub(crate) use epilogue::Epilogue;
pub(crate) use linear::{Activation, FeedForward, Linear};
pub(crate) use log_sum_exp::log_sum_exp;
pub(crate) use lstm::lstm_cell;
pub(crate) use map::{Border, Layout, Map, Window};
pub(crate) use math::{Function, gelu_all};
pub(crate) use norm::{Norm, normalise_sum};
pub(crate) use plane_convolution::{Axis, PlaneConvolution};
pub(crate) use pooling::{greatest, mean};
pub(crate) use threads::Threads;
