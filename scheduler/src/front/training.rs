//! What trainings ask for.

use orion_net::transfer::is_fetched;
use orion_proto::{
    ModelName, Result,
    session::{TrainingOrder, to_worker},
};

use super::Front;
use crate::training::{cohort::Candidate, reports::Heard};

impl Front {
    /// Listens to what workers say of a training.
    pub(crate) fn listen(&self, job: u64) -> Heard {
        self.0.trainings().listen(job)
    }

    /// From here on trainings that are over are ended at workers that still do them.
    pub(crate) fn leads(&self, is_over: impl Fn(u64) -> bool + Send + 'static) {
        self.0.trainings().led(is_over);
    }

    /// Workers that may train.
    pub(crate) fn trainers(&self) -> Vec<Candidate> {
        self.0.core().trainers()
    }

    /// Tells a worker; one that is not here is not told.
    pub(crate) fn order(&self, worker: &str, order: TrainingOrder) {
        let link = self.0.core().link_of(worker);
        if let Some(link) = link {
            link.control(to_worker::Message::Training(order));
        }
    }

    /// Serves what was trained.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a name that is none, or a path that is not of a store.
    pub(crate) fn serve(&self, name: &str, path: &str) -> Result<()> {
        let name = ModelName::new(name)?;
        if !is_fetched(path) {
            return Err(orion_proto::Error::invalid(format!("'{path}' is no model of a store")));
        }
        self.0.with_core(|core, now| core.want(now, &name, path.to_owned(), false));
        Ok(())
    }
}
