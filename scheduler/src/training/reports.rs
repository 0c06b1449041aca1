//! What workers say of trainings, to whoever runs them here.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use orion_proto::session::TrainingReport;
use parking_lot::Mutex;
use tokio::sync::mpsc;

type Said = (Arc<str>, TrainingReport);

/// By job, who listens.
#[derive(Default)]
pub(crate) struct Reports(Mutex<HashMap<u64, mpsc::UnboundedSender<Said>>>);

/// What is said of one training, for as long as it is held.
pub(crate) struct Heard {
    reports: Weak<Reports>,
    said: mpsc::UnboundedReceiver<Said>,
}

impl Reports {
    /// Listens to what is said of a training; one listener at a time.
    pub(crate) fn listen(self: &Arc<Self>, job: u64) -> Heard {
        let (told, said) = mpsc::unbounded_channel();
        self.0.lock().insert(job, told);
        Heard { reports: Arc::downgrade(self), said }
    }

    /// A worker says something; nobody may listen.
    pub(crate) fn say(&self, worker: Arc<str>, report: TrainingReport) {
        if let Some(listener) = self.0.lock().get(&report.job) {
            let _ = listener.send((worker, report));
        }
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
            reports.0.lock().retain(|_, told| !told.is_closed());
        }
    }
}
