//! What the core shows: nodes, models, totals. Read-only.

use std::sync::Arc;

use orion_net::{LinkQuality, origin::shown};
use orion_proto::{ModelSpec, cluster, session};

use super::{Core, IN_PROCESS, ModelState, Nanos, Statistics, cluster::Worker, device::Device};

/// Counts since the scheduler started.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // the names say it
pub struct Totals {
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub retried: u64,
    pub results_dropped: u64,
    pub bisected: u64,
    pub hedged: u64,
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
    /// Whether a load has failed.
    pub failed_to_load: bool,
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
        let mut views: Vec<ModelView> = (0..self.models.len()).map(|index| self.view(index)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// One model.
    ///
    /// # Errors
    /// NOT_FOUND for an unknown name.
    pub fn model(&self, name: &str) -> orion_proto::Result<ModelView> {
        self.index(name).map(|index| self.view(index))
    }

    fn view(&self, index: usize) -> ModelView {
        let model = &self.models[index];
        let serves = |id: &&usize| {
            let replica = &self.replicas[**id];
            replica.serves() && self.workers[self.devices[replica.device].worker].is_connected()
        };
        let bound = model.replicas.iter().filter_map(|id| self.replicas[*id].bound.as_ref());
        ModelView {
            name: model.name.clone(),
            path: model.path.as_deref().map(shown).unwrap_or_default(),
            state: self.model_state(index),
            wanted: model.wanted,
            reason: self.reason(index),
            spec: model.spec.clone(),
            ready_replicas: model.replicas.iter().filter(serves).count() as u32,
            failed_to_load: !model.failures.is_empty(),
            queued: (model.queue.len() + bound.map(|queue| queue.len()).sum::<usize>()) as u64,
            statistics: model.statistics.clone(),
        }
    }

    /// Every worker that was ever here, by name, and those that an earlier process knew as cordoned or drained.
    pub fn nodes(&self, now: Nanos) -> Vec<cluster::Node> {
        let here = self.workers.iter().enumerate().map(|(index, worker)| self.node(now, index, worker));
        let mut nodes: Vec<cluster::Node> = here.chain(self.absent()).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    fn node(&self, now: Nanos, index: usize, worker: &Worker<L>) -> cluster::Node {
        let devices = || worker.devices.iter().map(|device| &self.devices[*device]);
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
            models: self.node_models(worker),
            batches_running: devices().map(|d| (d.batches.len() + d.beside) as u64).sum(),
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
            cordon: self.cordon_name(index).to_owned(),
            ledgers: devices().map(|device| ledger(now, device)).collect(),
            link: (worker.carrier != IN_PROCESS).then(|| link(worker)),
            peer_links: worker.telemetry.peers.iter().map(|peer| self.peer_link(peer)).collect(),
        }
    }

    fn node_models(&self, worker: &Worker<L>) -> Vec<cluster::NodeModel> {
        let here = worker.devices.iter().flat_map(|device| {
            let at = &self.devices[*device];
            at.residents.iter().map(move |id| (at, &self.replicas[*id]))
        });
        here.map(|(device, replica)| cluster::NodeModel {
            name: self.models[replica.model].name.to_string(),
            device: device.name.to_string(),
            state: replica.state.name().into(),
            error: String::new(),
            curve: Some(replica.curve().corrected().into()),
            progress: replica.progress,
            memory_bytes: replica.bytes,
        })
        .chain(self.failed_loads(worker))
        .collect()
    }

    fn peer_link(&self, peer: &session::PeerLink) -> cluster::PeerLink {
        let there = self.workers.iter().find(|worker| worker.is_at(&peer.address) && worker.is_connected());
        let quality = LinkQuality {
            round_trip_seconds: known(peer.round_trip_seconds),
            jitter_seconds: known(peer.round_trip_seconds).map(|_| peer.jitter_seconds),
            loss: peer.loss,
            bytes_per_second: known(peer.bytes_per_second),
        };
        let worker = there.map(|worker| worker.name.to_string()).unwrap_or_default();
        cluster::PeerLink { address: peer.address.clone(), worker, link: Some(told(&quality)) }
    }

    fn failed_loads(&self, worker: &Worker<L>) -> impl Iterator<Item = cluster::NodeModel> {
        let on = |failure: &&super::failed_load::Failure| worker.devices.contains(&failure.device);
        self.models.iter().flat_map(move |model| {
            model.failures.iter().filter(on).map(|failure| cluster::NodeModel {
                name: model.name.to_string(),
                device: self.devices[failure.device].name.to_string(),
                state: ModelState::Failed.name().into(),
                error: failure.reason.clone(),
                ..Default::default()
            })
        })
    }
}

/// The link to a worker, by what it told.
fn link<L>(worker: &Worker<L>) -> cluster::Link {
    let telemetry = &worker.telemetry;
    let round_trip = known(telemetry.round_trip_p50_seconds);
    let quality = LinkQuality {
        round_trip_seconds: round_trip,
        jitter_seconds: round_trip.map(|usual| (telemetry.round_trip_p99_seconds - usual).max(0.0)),
        loss: telemetry.loss,
        bytes_per_second: known(worker.down_rate()),
    };
    told(&quality)
}

fn known(value: f64) -> Option<f64> {
    (value > 0.0).then_some(value)
}

fn told(quality: &LinkQuality) -> cluster::Link {
    cluster::Link {
        grade: quality.grade().map(|grade| grade.name().to_owned()).unwrap_or_default(),
        round_trip_seconds: quality.round_trip_seconds.unwrap_or_default(),
        jitter_seconds: quality.jitter_seconds.unwrap_or_default(),
        loss: quality.loss,
        bytes_per_second: quality.bytes_per_second.unwrap_or_default(),
    }
}

fn ledger(now: Nanos, device: &Device) -> cluster::DeviceLedger {
    cluster::DeviceLedger {
        device: device.name.to_string(),
        capacity_bytes: device.ledger.capacity(),
        weights_bytes: device.ledger.weights(),
        activations_bytes: device.ledger.activations(),
        free_bytes: device.ledger.free(),
        booked_seconds: seconds(device.remaining(now)),
        queued_seconds: seconds(device.queued),
    }
}
