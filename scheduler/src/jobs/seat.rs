//! Who runs the jobs, as one scheduler sees it.

use std::sync::Arc;

use orion_proto::{Code, Error};
use tokio::sync::watch;

use super::{Jobs, view::View};

/// Who runs the jobs.
#[derive(Clone)]
pub enum Seat {
    /// This scheduler.
    Leads(Jobs),
    /// Another, whose gRPC is there.
    Follows(Arc<View>, String),
    /// Nobody that is known, and why.
    Vacant(Error),
}

impl Seat {
    /// A seat that stays so.
    pub fn fixed(jobs: orion_proto::Result<Jobs>) -> watch::Receiver<Self> {
        watch::channel(jobs.map_or_else(Self::Vacant, Self::Leads)).1
    }

    /// The jobs as this scheduler knows them.
    ///
    /// # Errors
    /// Why it knows none.
    pub fn view(&self) -> orion_proto::Result<&Arc<View>> {
        match self {
            Self::Leads(jobs) => Ok(jobs.view()),
            Self::Follows(view, _) => Ok(view),
            Self::Vacant(error) => Err(error.clone()),
        }
    }

    /// Why workers are not to join this scheduler, if another leads.
    pub fn elsewhere(&self) -> Option<Error> {
        let Self::Follows(_, leader) = self else { return None };
        let text = format!("the scheduler at {leader} leads, this one stands by: give --join the addresses of all");
        Some(Error::new(Code::FailedPrecondition, text))
    }
}
