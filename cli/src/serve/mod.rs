//! The commands that keep running: `up`, `scheduler`, `worker`.

mod arguments;
mod logging;
mod node;
mod run;
mod transfers;

pub(crate) use arguments::{SchedulerArguments, UpArguments, WorkerArguments};
pub(crate) use run::{run_scheduler, run_up, run_worker};
