//! What the core shows: nodes, models, totals. Read-only.

use std::sync::Arc;

use orion_proto::{ModelSpec, cluster};

use super::{Core, ModelState, Nanos, Statistics, catalogue::Model, cluster::Worker};

/// Counts since the scheduler started.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // the names say it
pub struct Totals {
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub retried: u64,
    pub results_dropped: u64,
    /// Requests that no device has yet, now.
    pub queued: u64,
    /// Requests that a device has, now.
    pub running: u64,
}

/// A model as it stands.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names say it
pub struct ModelView {
    pub name: Arc<str>,
    pub path: String,
    pub state: ModelState,
    pub wanted: bool,
    pub reason: String,
    pub spec: Option<Arc<ModelSpec>>,
    pub ready_replicas: u32,
    pub queued: u64,
    pub statistics: Statistics,
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

impl<T, L: Clone> Core<T, L> {
    /// Counts, with what waits and runs now.
    pub fn totals(&self) -> Totals {
        let running = self.requests.iter().filter(|(_, request)| request.running.is_some()).count() as u64;
        Totals { queued: self.requests.len() as u64 - running, running, ..self.totals }
    }

    /// Every model, by name.
    pub fn models(&self) -> Vec<ModelView> {
        let mut views: Vec<ModelView> = self.models.iter().map(|model| self.view(model)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// One model.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name.
    pub fn model(&self, name: &str) -> orion_proto::Result<ModelView> {
        self.index(name).map(|index| self.view(&self.models[index]))
    }

    fn view(&self, model: &Model) -> ModelView {
        let serves = |replica: &&super::catalogue::Replica| {
            replica.state == ModelState::Ready && self.workers[replica.worker].is_connected()
        };
        ModelView {
            name: model.name.clone(),
            path: model.path.clone().unwrap_or_default(),
            state: model.state(),
            wanted: model.wanted,
            reason: model.reason(&self.workers),
            spec: model.spec.clone(),
            ready_replicas: model.replicas.iter().filter(serves).count() as u32,
            queued: model.queue.iter().filter(|key| self.request(**key).is_some()).count() as u64,
            statistics: model.statistics.clone(),
        }
    }

    /// Every worker that was ever here, by name.
    pub fn nodes(&self, now: Nanos) -> Vec<cluster::Node> {
        let mut nodes: Vec<cluster::Node> =
            self.workers.iter().enumerate().map(|(index, worker)| self.node(now, index, worker)).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    fn node(&self, now: Nanos, index: usize, worker: &Worker<L>) -> cluster::Node {
        cluster::Node {
            name: worker.name.to_string(),
            state: worker.state.name().into(),
            carrier: worker.carrier.into(),
            session: worker.session,
            sessions_opened: worker.sessions_opened,
            connected_seconds: if worker.link.is_some() {
                seconds(now.saturating_sub(worker.connected_at))
            } else {
                0.0
            },
            silent_seconds: seconds(now.saturating_sub(worker.last_frame)),
            capability: Some(worker.capability.clone()),
            telemetry: Some(worker.telemetry.clone()),
            measurement: worker.measurement,
            models: self.node_models(index, worker),
            batches_running: worker.devices.iter().map(|d| (d.batches.len() + d.inline_batches) as u64).sum(),
            batches_done: worker.batches_done,
            events: worker
                .events
                .iter()
                .map(|(at, text)| cluster::NodeEvent {
                    age_seconds: seconds(now.saturating_sub(*at)),
                    text: text.clone(),
                })
                .collect(),
            peer_address: worker.peer_address.clone(),
        }
    }

    fn node_models(&self, index: usize, worker: &Worker<L>) -> Vec<cluster::NodeModel> {
        let here = self.models.iter().flat_map(|model| {
            model.replicas.iter().filter(|replica| replica.worker == index).map(move |replica| (model, replica))
        });
        here.map(|(model, replica)| cluster::NodeModel {
            name: model.name.to_string(),
            device: worker.devices.get(replica.device).map(|d| d.name.to_string()).unwrap_or_default(),
            state: replica.state.name().into(),
            error: replica.error.clone(),
            curve: Some(replica.curve.corrected().into()),
            progress: replica.progress,
            memory_bytes: model.spec.as_ref().map_or(0, |spec| spec.memory_bytes),
        })
        .collect()
    }
}
