//! What workers say of trainings, to whoever runs them here.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use orion_proto::session::TrainingReport;
use parking_lot::Mutex;
use tokio::sync::mpsc;

type Said = (Arc<str>, TrainingReport);

/// Says of a job's number whether it has ended, or was never one.
type IsOver = Box<dyn Fn(u64) -> bool + Send>;

/// Who listens.
#[derive(Default)]
pub(crate) struct Reports {
    by_job: Mutex<HashMap<u64, mpsc::UnboundedSender<Said>>>,
    is_over: Mutex<Option<IsOver>>,
}

/// What is said of one training, for as long as it is held.
pub(crate) struct Heard {
    reports: Weak<Reports>,
    said: mpsc::UnboundedReceiver<Said>,
}

impl Reports {
    /// Listens to what is said of a training; one listener at a time.
    pub(crate) fn listen(self: &Arc<Self>, job: u64) -> Heard {
        let (told, said) = mpsc::unbounded_channel();
        self.by_job.lock().insert(job, told);
        Heard { reports: Arc::downgrade(self), said }
    }

    /// Who leads knows which jobs are over.
    pub(crate) fn led(&self, is_over: impl Fn(u64) -> bool + Send + 'static) {
        *self.is_over.lock() = Some(Box::new(is_over));
    }

    /// A worker says something; nobody may listen. False: it is of a training that is over, which the worker does not know.
    pub(crate) fn say(&self, worker: Arc<str>, report: TrainingReport) -> bool {
        if let Some(listener) = self.by_job.lock().get(&report.job) {
            let _ = listener.send((worker, report));
            return true;
        }
        !self.is_over.lock().as_ref().is_some_and(|is_over| is_over(report.job))
    }
}

impl Heard {
    /// What is said next.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        self.said.recv().await
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        // Its sender is closed from here on; another of the same training is not.
        self.said.close();
        if let Some(reports) = self.reports.upgrade() {
            reports.by_job.lock().retain(|_, told| !told.is_closed());
        }
    }
}
