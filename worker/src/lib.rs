//! The worker: session agent, device inventory, residency, executors.
//!
//! [`Worker`] holds the models and runs batches; [`session`] keeps it connected to a scheduler in another process. In one
//! process a scheduler calls the worker directly, through [`orion_net::WorkerLink`].

mod artifacts;
mod device;
pub mod doctor;
mod executor;
mod fetched;
mod held;
pub mod inventory;
mod lane;
pub mod measure;
mod outcome;
mod peak;
mod residency;
mod sequences;
pub mod session;
mod simulate;
mod training;
mod warm_up;
mod worker;

/// Making folders that are served of other programs' files: for the command line, which links model code only through here.
pub mod convert {
    pub use orion_models::{
        Precision,
        checkpoint::{Conversion, Converted, Format, convert},
    };
}

pub use artifacts::Artifacts;
pub use orion_models::let_tensor_threads_rest;
pub use simulate::Simulation;
pub use worker::{Options, Worker, WorkerHandle};
