//! What the core asks of the shell.

use std::sync::Arc;

use orion_net::Batch;
use orion_proto::{Delta, InferAnswer, ModelSpec, Result};

use super::generate::Listener;

/// What the shell is to do. `T` is whatever answers a request, `L` whatever reaches a worker.
#[derive(Debug)]
pub enum Command<T, L> {
    /// Hand a batch to a worker.
    Run {
        /// The worker.
        link: L,
        /// The batch.
        batch: Batch,
    },
    /// Answer a request.
    Settle {
        /// Who waits for it.
        ticket: T,
        /// The model that was asked.
        spec: Arc<ModelSpec>,
        /// The answer.
        outcome: Result<InferAnswer>,
    },
    /// Tell the client of a generation what its next step is.
    Tell {
        /// Who is told.
        listener: Arc<dyn Listener>,
        /// The step.
        delta: Delta,
    },
    /// Ask a worker what a model is.
    Inspect {
        /// The worker.
        link: L,
        /// The served name.
        name: Arc<str>,
        /// Where it lies.
        path: String,
        /// Where it can be fetched, of a model of the store.
        peers: Vec<String>,
        /// Unique.
        order: u64,
    },
    /// Ask a worker what it has of a model that is fetched.
    Pull {
        /// The worker.
        link: L,
        /// Where it lies.
        path: String,
        /// Where it can be fetched.
        peers: Vec<String>,
        /// Whether it is to bring it first.
        fetch: bool,
    },
    /// Have a worker load a model from a path.
    Load {
        /// The worker.
        link: L,
        /// The served name.
        name: Arc<str>,
        /// The device.
        device: Arc<str>,
        /// Where it lies.
        path: String,
        /// Where it can be fetched, of a model of the store.
        peers: Vec<String>,
        /// Grows with every load and unload.
        order: u64,
    },
    /// Have a worker unload a model.
    Unload {
        /// The worker.
        link: L,
        /// The served name.
        name: Arc<str>,
        /// The device.
        device: Arc<str>,
        /// Grows with every load and unload.
        order: u64,
    },
    /// End a session that this scheduler has given up, so that its worker joins anew.
    Close {
        /// The worker.
        link: L,
        /// Why.
        reason: &'static str,
    },
    /// Tell a worker that nobody waits for attempts any more.
    Cancel {
        /// The worker.
        link: L,
        /// The batch.
        batch: u64,
        /// The attempts; empty: all of them.
        attempts: Vec<u64>,
    },
    /// Tell a draining worker that it has nothing left to do.
    Drained {
        /// The worker.
        link: L,
    },
}
