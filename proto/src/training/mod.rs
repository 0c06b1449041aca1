//! How a model is trained: what its owner writes down, checked once.

mod check;
mod plan;
mod rounds;

pub use plan::{Architecture, Cnn, Data, Mlp, Numbers, Optimizer, Plan, Schedule, ScheduleKind, Steps, Workers};
pub use rounds::{Federated, Local, Rounds};
