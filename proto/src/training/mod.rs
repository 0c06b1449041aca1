//! How a model is trained: what its owner writes down, checked once.

mod check;
mod plan;

pub use plan::{Architecture, Cnn, Data, Mlp, Optimizer, Plan, Schedule, ScheduleKind, Steps, Workers};
