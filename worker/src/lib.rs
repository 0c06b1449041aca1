//! The worker: session agent, device inventory, residency, executors.
//!
//! [`Worker`] holds the models and runs batches; [`session`] keeps it connected to a scheduler in another process. In one
//! process a scheduler calls the worker directly, through [`orion_net::WorkerLink`].

pub mod doctor;
mod executor;
pub mod inventory;
pub mod measure;
mod residency;
pub mod session;
mod worker;

pub use worker::{Options, Worker, WorkerHandle};
