//! Which ensembles are served, and how they stand.

use std::sync::Arc;

use orion_proto::{Code, Error, ModelName, Result};

use super::super::Front;
use crate::{
    core::{ModelState, ModelView},
    ensembles::{Ensemble, Entry, Form},
};

impl Front {
    /// How an ensemble stands, as a model's view.
    pub(in crate::front) fn ensemble_view(&self, entry: &Entry) -> ModelView {
        let spec = self.spec(entry.name.as_str(), "");
        let parts = entry.ensemble().map(|ensemble| ensemble.parts().into_iter().map(|part| self.view(part)).collect());
        let parts: Result<Vec<Result<ModelView>>> = parts;
        let enough = |parts: &[Result<ModelView>]| match entry.ensemble().map(|ensemble| &ensemble.form) {
            Ok(Form::Committee(committee)) => {
                committee
                    .members
                    .iter()
                    .filter(|member| {
                        let answers = |part: &ModelView| *part.name == *member.model.as_str() && part.state.answers();
                        parts.iter().flatten().any(answers)
                    })
                    .count()
                    >= committee.quorum
            }
            _ => false,
        };
        let waits = |parts: &[Result<ModelView>]| {
            let waiting = parts.iter().flatten().find(|part| !part.state.answers())?;
            let why = if waiting.reason.is_empty() { waiting.state.name() } else { &waiting.reason };
            Some((waiting.state, format!("model '{}': {why}", waiting.name)))
        };
        let (state, reason) = match (&parts, &spec) {
            (Err(error), _) => (ModelState::Failed, error.message.clone()),
            (Ok(parts), Ok(_)) if enough(parts) => (ModelState::Ready, String::new()),
            (Ok(parts), spec) => match (waits(parts), spec) {
                (Some((ModelState::Failed | ModelState::Unloaded, reason)), _) => (ModelState::Failed, reason),
                (Some((_, reason)), _) => (ModelState::Loading, reason),
                (None, Err(error)) if error.code == Code::Unavailable => (ModelState::Loading, error.message.clone()),
                (None, Err(error)) => (ModelState::Failed, error.message.clone()),
                (None, Ok(_)) => (ModelState::Ready, String::new()),
            },
        };
        let replicas = parts.iter().flatten().flatten().map(|part| part.ready_replicas).min();
        ModelView {
            name: Arc::from(entry.name.as_str()),
            path: entry.path.clone(),
            state,
            wanted: true,
            reason,
            spec: spec.ok(),
            ready_replicas: replicas.unwrap_or(0),
            failed_to_load: state == ModelState::Failed,
            queued: entry.running() as u64,
            statistics: entry.statistics(),
        }
    }

    /// An ensemble runs nowhere itself.
    pub(in crate::front) fn refuse_ensemble(&self, name: &str) -> Result<()> {
        let Some(entry) = self.0.ensembles().find(name) else { return Ok(()) };
        let parts = entry.ensemble()?.parts().join(", ");
        let text = format!("'{name}' is an ensemble, which runs where its parts do; ask about one of them: {parts}");
        Err(Error::new(Code::FailedPrecondition, text))
    }

    /// How a model or an ensemble stands.
    pub(in crate::front) fn view(&self, name: &str) -> Result<ModelView> {
        match self.0.ensembles().find(name) {
            // What leads to itself has no declaration, and is not looked through.
            Some(entry) => match self.spec(name, "") {
                Err(error) if error.code == Code::FailedPrecondition => Err(error),
                _ => Ok(self.ensemble_view(&entry)),
            },
            None => self.0.core().model(name),
        }
    }

    /// Serves an ensemble of the repository, and the steps that it brings; false where another kind of model lies there. One that
    /// cannot be served leaves that which was served before.
    pub(crate) fn serve_ensemble(&self, name: &ModelName, path: &str) -> Result<bool> {
        let read = crate::ensembles::read(name, std::path::Path::new(path));
        let Some(read) = read.transpose() else { return Ok(false) };
        let read = read.and_then(|ensemble| self.check_names(&ensemble).map(|()| ensemble));
        let before = self.0.ensembles().find(name.as_str());
        if let (Err(error), Some(_)) = (&read, before.as_ref().filter(|before| before.ensemble.is_ok())) {
            return Err(error.clone());
        }
        let steps = |ensemble: &Ensemble| -> Vec<(ModelName, String)> {
            ensemble.own_steps().map(|(step, path)| (step.clone(), path.to_owned())).collect()
        };
        let new = read.as_ref().map(steps).unwrap_or_default();
        let old = before.as_ref().and_then(|before| before.ensemble.as_ref().ok()).map(steps).unwrap_or_default();
        let outcome = read.as_ref().map(|_| true).map_err(Error::clone);
        self.0.ensembles().serve(name.clone(), path.to_owned(), read);
        self.0.with_core(|core, now| {
            for (step, _) in old.iter().filter(|(step, _)| new.iter().all(|(other, _)| other != step)) {
                // One that is unknown is not served either.
                let _ = core.unwant(now, step.as_str());
            }
            new.into_iter().for_each(|(step, path)| core.want(now, &step, path, false));
        });
        self.0.has_changed();
        outcome
    }

    /// A step that an ensemble brings must not take the place of another's, or of a model.
    fn check_names(&self, ensemble: &Ensemble) -> Result<()> {
        for (step, _) in ensemble.own_steps() {
            let others = self.0.ensembles().all();
            let has = |other: &&Arc<Entry>| {
                let brings = |of: &Ensemble| of.own_steps().any(|(own, _)| own == step);
                other.name != ensemble.name && other.ensemble.as_ref().is_ok_and(brings)
            };
            let whose = match others.iter().find(has) {
                Some(other) => Some(format!("a step of ensemble '{}'", other.name)),
                None => self.0.repository().path_of(step).is_ok().then(|| "a model".to_owned()),
            };
            if let Some(whose) = whose {
                let text =
                    format!("ensemble '{}': its step '{step}' has the name of {whose}, rename one", ensemble.name);
                return Err(Error::invalid(text));
            }
        }
        Ok(())
    }

    /// Serves an ensemble no longer, nor the steps that it brought; whether there was one.
    pub(in crate::front) fn unload_ensemble(&self, name: &str) -> bool {
        let Some(entry) = self.0.ensembles().remove(name) else { return false };
        if let Ok(ensemble) = entry.ensemble() {
            self.0.with_core(|core, now| {
                for (step, _) in ensemble.own_steps() {
                    // One that is unknown is not served either.
                    let _ = core.unwant(now, step.as_str());
                }
            });
        }
        self.0.has_changed();
        true
    }
}
