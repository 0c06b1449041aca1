//! Training: what one worker computes of it. Who computes what, and how sums are made, is others' affair.

mod adapted;
mod alone;
mod classified;
mod data;
mod files;
mod gradient;
mod images;
mod language;
mod learner;
mod network;
mod operations;
mod optimizer;
mod progress;
mod questions;
mod state;
mod task;
#[cfg(test)]
mod tests;
mod texts;
mod trained;

use orion_proto::{Code, Error};

pub use files::Files;
pub use learner::{EXTRAS, Learner, Work};
pub(crate) use network::Network;
pub use progress::{Evaluation, Progress, Taken};
pub(crate) use questions::{Answerer, MODEL_TYPE as QUESTIONS_TYPE, Source as QuestionsSource};
pub(crate) use trained::{Classifier, MODEL_TYPE, Source};

/// What the tensor library says went wrong.
fn failed(error: &candle_core::Error) -> Error {
    Error::new(Code::Internal, format!("training failed: {error}"))
}
