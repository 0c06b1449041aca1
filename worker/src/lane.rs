//! A thread that does what it is given, one after the other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
};

use orion_proto::{Code, Error, Result};

type Job = Box<dyn FnOnce() + Send>;

/// Where jobs are put; the thread ends with the last of these.
#[derive(Clone)]
pub(crate) struct Lane(mpsc::Sender<Job>);

impl Lane {
    /// Starts the thread.
    ///
    /// # Errors
    /// INTERNAL when the system gives none.
    pub(crate) fn start(name: &str) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let work = move || {
            while let Ok(job) = queue.recv() {
                // What panics must not take those behind it along.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!("background_job_panicked");
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(work);
        thread.map_err(|error| Error::new(Code::Internal, format!("cannot start the thread {name}: {error}")))?;
        Ok(Self(jobs))
    }

    /// Does this after all that was put here before.
    pub(crate) fn put(&self, job: impl FnOnce() + Send + 'static) {
        // The thread lives as long as a sender does.
        let _ = self.0.send(Box::new(job));
    }
}

/// Does this on a thread of its own.
pub(crate) fn aside(name: &str, job: impl FnOnce() + Send + 'static) {
    let run = move || {
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("background_job_panicked");
        }
    };
    if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(run) {
        tracing::error!(%error, "no_thread");
    }
}
