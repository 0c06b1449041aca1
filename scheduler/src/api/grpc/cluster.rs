//! `orion.v1.Cluster`: what the command line shows.

use orion_proto::cluster::{
    ExplainModelRequest, ExplainRequestRequest, Model, ModelExplanation, ModelsRequest, ModelsResponse, NodesRequest,
    NodesResponse, RequestExplanation, SetNodeRequest, SetNodeResponse, StatusRequest, StatusResponse,
    cluster_server::Cluster,
};
use tonic::{Request, Response, Status};

use crate::{core::ModelView, front::Front, process};

/// The service of this scheduler.
#[derive(Clone)]
pub struct ClusterService {
    front: Front,
}

impl ClusterService {
    /// Speaks for this scheduler.
    pub fn new(front: Front) -> Self {
        Self { front }
    }
}

fn model(view: ModelView) -> Model {
    let spec = view.spec.as_deref();
    Model {
        name: view.name.to_string(),
        version: spec.map(|spec| spec.version.clone()).unwrap_or_default(),
        family: spec.map(|spec| spec.family.clone()).unwrap_or_default(),
        state: view.state.name().into(),
        reason: view.reason,
        path: view.path,
        replicas: view.ready_replicas,
        memory_bytes: spec.map_or(0, |spec| spec.memory_bytes),
        inputs: spec.map(|spec| spec.inputs.iter().map(Into::into).collect()).unwrap_or_default(),
        outputs: spec.map(|spec| spec.outputs.iter().map(Into::into).collect()).unwrap_or_default(),
        requests: view.statistics.succeeded + view.statistics.failed,
        rows: view.statistics.rows,
        batches: view.statistics.batches,
        queued: view.queued,
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let totals = self.front.totals();
        let state = match (self.front.draining(), self.front.ready()) {
            (true, _) => "draining",
            (false, true) => "serving",
            (false, false) => "starting",
        };
        Ok(Response::new(StatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            state: state.into(),
            uptime_seconds: self.front.uptime_seconds(),
            epoch: self.front.epoch(),
            cpu_seconds: process::cpu_seconds(),
            resident_bytes: process::resident_bytes(),
            requests_succeeded: totals.succeeded,
            requests_failed: totals.failed,
            requests_queued: totals.queued,
            requests_running: totals.running,
            attempts_retried: totals.retried,
            results_dropped: totals.results_dropped,
            batches_bisected: totals.bisected,
            batches_hedged: totals.hedged,
        }))
    }

    async fn nodes(&self, request: Request<NodesRequest>) -> Result<Response<NodesResponse>, Status> {
        let name = request.into_inner().name;
        let mut nodes = self.front.nodes();
        if !name.is_empty() {
            nodes.retain(|node| node.name == name);
        }
        Ok(Response::new(NodesResponse { nodes }))
    }

    async fn set_node(&self, request: Request<SetNodeRequest>) -> Result<Response<SetNodeResponse>, Status> {
        let SetNodeRequest { name, action } = request.into_inner();
        Ok(Response::new(SetNodeResponse { state: self.front.set_node(&name, &action)? }))
    }

    async fn explain_request(
        &self,
        request: Request<ExplainRequestRequest>,
    ) -> Result<Response<RequestExplanation>, Status> {
        Ok(Response::new(self.front.explain_request(&request.into_inner().id)?))
    }

    async fn explain_model(&self, request: Request<ExplainModelRequest>) -> Result<Response<ModelExplanation>, Status> {
        Ok(Response::new(self.front.explain_model(&request.into_inner().name)?))
    }

    async fn models(&self, _: Request<ModelsRequest>) -> Result<Response<ModelsResponse>, Status> {
        let served = self.front.models().into_iter().map(model);
        let left_out = self.front.left_out().into_iter().map(|(name, error)| Model {
            name,
            state: "left out".into(),
            reason: error.message,
            ..Default::default()
        });
        Ok(Response::new(ModelsResponse { models: served.chain(left_out).collect() }))
    }
}
