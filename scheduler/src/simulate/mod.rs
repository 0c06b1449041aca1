//! The real core against simulated devices in virtual time: thousands of simulated seconds a second, the same every time.
//!
//! Workload A serves many models on few devices whose memory holds a part of them; workload B serves one model on many
//! unequal replicas. Both replay traces of `scripts/sched_sim.py --dump`; [`scale`] makes its own.

mod faults;
mod many_models;
mod memory;
mod messages;
mod oracle;
mod report;
pub mod scale;
mod unequal_replicas;
mod world;

pub use faults::Faults;
pub use many_models::ManyModels;
pub use report::{Report, quantile};
pub use unequal_replicas::UnequalReplicas;
