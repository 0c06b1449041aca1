//! What jobs ask for around a change of the scheduler that leads.

use std::collections::BTreeSet;

use orion_proto::JobAttempt;
use tokio::sync::watch;

use super::Front;
use crate::core::Reclaimed;

impl Front {
    /// This scheduler comes to lead: these attempts were under way, on these workers.
    /// Which of its terms begins.
    pub(crate) fn expect(&self, workers: BTreeSet<String>, attempts: Vec<JobAttempt>) -> u64 {
        self.0.with_core(|core, now| core.expect(now, workers, attempts))
    }

    /// Another comes to lead after this term: what was given out for jobs runs on.
    pub(crate) fn hand_over(&self, term: u64) {
        self.0.core().hand_over(term);
    }

    /// Nobody waits for an attempt any more that was under way when this scheduler came to lead.
    pub(crate) fn unexpect(&self, job: JobAttempt) {
        self.0.with_core(|core, now| core.unexpect(now, job));
    }

    /// Workers that may have what runs for jobs.
    pub(crate) fn workers(&self) -> BTreeSet<String> {
        self.0.core().known_workers()
    }

    /// Changes whenever a worker or a model changed its state.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed()
    }

    /// Whether a worker has an attempt that was under way when this scheduler came to lead, once that is known: a request of it
    /// goes on there.
    pub(crate) async fn is_held(&self, job: JobAttempt, model: &str) -> bool {
        let mut changed = self.0.changed();
        loop {
            changed.borrow_and_update();
            let reclaimed = self.0.core().reclaimed(job, model);
            // One that is dropped serves nobody.
            if reclaimed != Reclaimed::Awaited || changed.changed().await.is_err() {
                return reclaimed == Reclaimed::Held;
            }
        }
    }
}
