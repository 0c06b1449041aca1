//! Training: what one worker computes of it. Who computes what, and how sums are made, is others' affair.

mod alone;
mod convolution;
mod data;
mod gradient;
mod images;
mod learner;
mod network;
mod optimizer;
mod product;
mod progress;
mod state;
mod task;
#[cfg(test)]
mod tests;
mod trained;

use orion_proto::{Code, Error};

pub use learner::{EXTRAS, Learner, Work};
pub(crate) use network::Network;
pub use progress::{Evaluation, Progress, Taken};
pub(crate) use trained::{Classifier, MODEL_TYPE, Source};

/// What the tensor library says went wrong.
fn failed(error: &candle_core::Error) -> Error {
    Error::new(Code::Internal, format!("training failed: {error}"))
}
