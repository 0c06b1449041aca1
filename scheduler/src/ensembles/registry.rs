//! The ensembles that are served, and what is known of each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use orion_proto::{Code, Error, ModelName, ModelSpec, Result};
use parking_lot::{Mutex, RwLock};

use super::{Declared, Ensemble, Form, Fuses, Pipeline};
use crate::core::{Nanos, Statistics};

/// When a client may come back that found too many requests under way.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// All ensembles, by name.
#[derive(Default)]
pub(crate) struct Ensembles(RwLock<BTreeMap<String, Arc<Entry>>>);

/// One of them.
pub(crate) struct Entry {
    pub(crate) name: ModelName,
    /// Where its file lies.
    pub(crate) path: String,
    /// What it is, or why it cannot be served.
    pub(crate) ensemble: Result<Ensemble>,
    running: AtomicUsize,
    statistics: Mutex<Statistics>,
    prepared: Mutex<Option<Known>>,
}

/// An ensemble that can answer.
pub(crate) struct Prepared {
    pub(crate) spec: Arc<ModelSpec>,
    /// A pipeline as it is run, and what each step with others takes and gives.
    pub(crate) pipeline: Option<(Pipeline, Vec<Option<Arc<ModelSpec>>>)>,
}

/// What was prepared, and when.
struct Known {
    /// Counts changes of models, workers and ensembles.
    changes: u64,
    prepared: Arc<Prepared>,
}

/// A request that is under way.
pub(crate) struct Place<'a>(&'a Entry);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ensembles {
    /// Serves an ensemble, in place of one of the same name.
    pub(crate) fn serve(&self, name: ModelName, path: String, ensemble: Result<Ensemble>) {
        if let Err(error) = &ensemble {
            tracing::error!(%error, "ensemble_not_served");
        }
        let before = self.find(name.as_str());
        let statistics = before.map(|entry| entry.statistics.lock().clone()).unwrap_or_default();
        let entry = Entry {
            name: name.clone(),
            path,
            ensemble,
            running: AtomicUsize::new(0),
            statistics: Mutex::new(statistics),
            prepared: Mutex::new(None),
        };
        self.0.write().insert(name.to_string(), Arc::new(entry));
    }

    /// Serves it no longer; whether it was served.
    pub(crate) fn remove(&self, name: &str) -> Option<Arc<Entry>> {
        self.0.write().remove(name)
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        self.0.read().get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.0.read().values().cloned().collect()
    }
}

impl Entry {
    pub(crate) fn ensemble(&self) -> Result<&Ensemble> {
        self.ensemble.as_ref().map_err(|error| Error::new(Code::FailedPrecondition, error.message.clone()))
    }

    /// What it takes and gives and how it is run, made anew when models or workers have changed.
    ///
    /// # Errors
    /// As [`Ensemble::declare`].
    pub(crate) fn prepare(&self, declared: Declared<'_>, fuses: Fuses<'_>, changes: u64) -> Result<Arc<Prepared>> {
        let ensemble = self.ensemble()?;
        // Before its parts are looked at: ensembles of many others would be looked through again at each request.
        if let Some(known) = self.prepared.lock().as_ref().filter(|known| known.changes == changes) {
            return Ok(known.prepared.clone());
        }
        // Not under the lock: one that leads to itself comes by here again.
        let spec = Arc::new(ensemble.declare(declared)?);
        let pipeline = match &ensemble.form {
            Form::Pipeline(pipeline) => Some(pipeline.prepare(declared, fuses)?),
            Form::Committee(_) => None,
        };
        let prepared = Arc::new(Prepared { spec, pipeline });
        *self.prepared.lock() = Some(Known { changes, prepared: prepared.clone() });
        Ok(prepared)
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where as many as may be are under way.
    pub(crate) fn enter(&self) -> Result<Place<'_>> {
        let most = self.ensemble()?.most_requests;
        let place = Place(self);
        if self.running.fetch_add(1, Ordering::Relaxed) >= most {
            drop(place);
            self.statistics.lock().refused += 1;
            let text = format!("{most} requests to ensemble '{}' are under way, as many as may be", self.name);
            return Err(Error { retry_after: Some(RETRY_AFTER), ..Error::new(Code::ResourceExhausted, text) });
        }
        Ok(place)
    }

    /// Requests that are under way.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.statistics.lock().clone()
    }

    /// A request of so many rows has ended.
    pub(crate) fn ended(&self, now: Nanos, took: Duration, rows: usize, well: bool) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mut statistics = self.statistics.lock();
        let (count, sum) = match well {
            true => {
                statistics.rows += rows as u64;
                statistics.batches += 1;
                statistics.last = now;
                statistics.compute_ns = statistics.compute_ns.saturating_add(took);
                let Statistics { succeeded, succeeded_ns, .. } = &mut *statistics;
                (succeeded, succeeded_ns)
            }
            false => {
                let Statistics { failed, failed_ns, .. } = &mut *statistics;
                (failed, failed_ns)
            }
        };
        *count += 1;
        *sum = sum.saturating_add(took);
    }
}
