//! The two ends of a session. A carrier implements both; whoever holds one does not know which carrier it is.

use orion_proto::session::{to_scheduler, to_worker};

use crate::{AttemptDelta, Batch, BatchResult};

/// How a scheduler reaches one worker.
pub trait WorkerLink: Send + Sync {
    /// Hands a batch over. It may be run before this returns, and its result delivered.
    fn run(&self, batch: Batch);
    /// Sends a control message.
    fn control(&self, message: to_worker::Message);
    /// Ends the session, for this reason.
    fn close(&self, reason: &str);
}

/// How a worker reaches its scheduler.
pub trait SchedulerLink: Send + Sync {
    /// Delivers a batch's result.
    fn result(&self, result: BatchResult);
    /// Delivers steps of generations, in their order, before their results. `epoch` is that of their batches.
    fn deltas(&self, epoch: u64, deltas: Vec<AttemptDelta>);
    /// Sends a control message.
    fn control(&self, message: to_scheduler::Message);
}
