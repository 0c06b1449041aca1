//! The worker: session agent, device inventory, residency, executors.

pub mod inventory;
pub mod measure;
