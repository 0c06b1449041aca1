//! Drawing the next token from its logits.

mod choose;
mod logprobs;
mod penalties;
mod random;

pub(crate) use choose::Chooser;
pub(crate) use logprobs::log_probabilities;
pub(crate) use penalties::Counts;
