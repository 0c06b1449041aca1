//! How a model is trained: what its owner writes down, checked once.

mod architecture;
mod check;
mod fine_tune;
mod plan;
mod rounds;

pub use architecture::{Architecture, Cnn, ImageQuestion, Mlp};
pub use fine_tune::{LanguageModel, Lora, TextClassifier};
pub use plan::{Data, Numbers, Optimizer, Plan, Schedule, ScheduleKind, Steps, Workers};
pub use rounds::{Federated, Local, Rounds};
