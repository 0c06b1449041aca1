//! From a plan and where its files lie to what is learnt.

use std::path::Path;

use orion_proto::{
    Error, Result,
    training::{Architecture, Plan},
};

use super::{images::Images, language::Language, questions::Questions, task::Task, texts::Texts};

/// Where the files of a plan lie on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The model that it begins with, where it begins with one.
    pub base: Option<&'a Path>,
    /// What it learns from.
    pub train: &'a Path,
    /// What it is tested with; none: what is beside the other for that.
    pub test: Option<&'a Path>,
}

impl Files<'_> {
    /// # Errors
    /// FAILED_PRECONDITION or NOT_FOUND naming the file that does not fit.
    pub(super) fn task(&self, plan: &Plan, free_bytes: u64) -> Result<Box<dyn Task>> {
        let Self { base, train, test } = *self;
        let begins =
            || base.ok_or_else(|| Error::invalid("a training that begins with a model needs that model's folder"));
        Ok(match &plan.model {
            Architecture::Mlp(_) | Architecture::Cnn(_) => Box::new(Images::open(plan, train, test)?),
            Architecture::ImageQuestion(network) => Box::new(Questions::open(plan, network, train, test)?),
            Architecture::TextClassifier(classifier) => {
                Box::new(Texts::open(plan, classifier, begins()?, train, test, free_bytes)?)
            }
            Architecture::LanguageModel(language) => {
                Box::new(Language::open(plan, language, begins()?, train, test, free_bytes)?)
            }
        })
    }
}
