//! The worker: session agent, device inventory, residency, executors.

pub mod doctor;
pub mod inventory;
pub mod measure;
