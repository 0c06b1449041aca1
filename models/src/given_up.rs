//! Whether anybody still waits for a request while a model computes it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use orion_proto::{Code, Error};

/// A mark that whoever took the request sets when its client goes away. Models look at it between their steps.
#[derive(Clone, Debug, Default)]
pub struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    /// Nobody waits any more.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits any more.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// What is answered to a request that was not computed because of it.
    pub fn error() -> Error {
        Error::new(Code::Cancelled, "the client went away")
    }
}
