//! Trainings on this scheduler: who takes part in each, and what they are told. The steps are the workers' own affair.

pub(crate) mod cohort;
pub(crate) mod reports;
