//! A server of the wire protocol with known answers, on a thread and a port of its own.

mod explained;

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use orion_proto::{
    Payload,
    answer::ModelInferResponse,
    cluster::{
        Cost, DeviceLedger, ExplainModelRequest, ExplainRequestRequest, Model, ModelExplanation, ModelsRequest,
        ModelsResponse, Node, NodeEvent, NodeModel, NodesRequest, NodesResponse, PlaceCost, RequestExplanation,
        SetNodeRequest, SetNodeResponse, StatusRequest, StatusResponse,
        cluster_server::{Cluster, ClusterServer},
    },
    inference::{
        grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
        *,
    },
    session,
};
use tonic::{Code, Request, Response, Status, Streaming, service::InterceptorLayer, transport::server::TcpIncoming};

use explained::{explained_generation, explained_model, explained_request};

/// CPU that the server claims for each request.
pub(crate) const CPU_SECONDS: f64 = 20e-6;

/// Answers as a scheduler with one in-process worker and one edge node would.
#[derive(Default)]
struct Double {
    requests: AtomicU64,
    flaky_requests: AtomicU64,
    lazy_is_loaded: AtomicBool,
    cordons: Mutex<HashMap<String, Cordon>>,
}

/// What was made of a node, and how often it was asked for since.
#[derive(Clone, Default)]
struct Cordon {
    name: &'static str,
    asked: u32,
}

/// A draining edge node is drained when it is asked for so many times; the other one never is.
const ASKED_UNTIL_DRAINED: u32 = 3;

#[derive(Clone)]
struct Shared(std::sync::Arc<Double>);

/// Starts the server; with a token, only requests that carry it are answered.
pub(crate) fn start(token: Option<&'static str>) -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let double = Shared(Default::default());
            let limit = 64 << 20;
            let check = move |request: Request<()>| {
                let given = request.metadata().get("authorization").map(|value| value.as_bytes().to_vec());
                match token {
                    Some(token) if given != Some(format!("Bearer {token}").into_bytes()) => {
                        Err(Status::unauthenticated("a bearer token is needed"))
                    }
                    _ => Ok(request),
                }
            };
            tonic::transport::Server::builder()
                .layer(InterceptorLayer::new(check))
                .add_service(GrpcInferenceServiceServer::new(double.clone()).max_decoding_message_size(limit))
                .add_service(ClusterServer::new(double))
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
                .await
                .unwrap();
        });
    });
    receiver.recv().unwrap()
}

fn tensor(name: &str, data_type: DataType, dims: &[i64]) -> ModelInput {
    ModelInput { name: name.into(), data_type: data_type.into(), dims: dims.to_vec(), optional: false }
}

/// For each text its length, then 3 and 4: the norm of an empty text is 5.
fn embed(request: &ModelInferRequest) -> Result<ModelInferResponse, Status> {
    let rows = request.inputs[0].shape[0];
    let texts = orion_proto::bytes_elements("text", &request.raw_input_contents[0], rows as usize)?;
    let values = texts.iter().flat_map(|text| [text.len() as f32, 3.0, 4.0]);
    let data: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    Ok(answer(request, "embedding", vec![rows, 3], Payload::from(data)))
}

fn answer(request: &ModelInferRequest, output: &str, shape: Vec<i64>, data: Payload) -> ModelInferResponse {
    let datatype = "FP32".into();
    let output = InferOutputTensor { name: output.into(), datatype, shape, ..Default::default() };
    let head = ModelInferResponseHead {
        model_name: request.model_name.clone(),
        model_version: "1".into(),
        id: request.id.clone(),
        parameters: request.parameters.clone(),
        outputs: vec![output],
    };
    ModelInferResponse { head, raw_output_contents: vec![data] }
}

/// The methods that the command line does not call, in the form that `async_trait` gives them.
macro_rules! not_called {
    ($($method:ident($request:ty) -> $response:ty;)*) => {
        $(fn $method<'a, 'b>(&'a self, _: Request<$request>) -> Answering<'b, $response> where 'a: 'b, Self: 'b {
            Box::pin(async { Err(Status::unimplemented(stringify!($method))) })
        })*
    };
}

type Answering<'b, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'b>>;

#[tonic::async_trait]
impl GrpcInferenceService for Shared {
    type ModelStreamInferStream = tokio_stream::Empty<Result<ModelStreamInferResponse, Status>>;

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let name = request.into_inner().name;
        let input = match name.as_str() {
            "minilm" => vec![tensor("text", DataType::TypeString, &[-1])],
            "identity" | "busy" | "flaky" => vec![tensor("INPUT0", DataType::TypeFp32, &[-1, -1])],
            _ => return Err(Status::not_found(format!("model '{name}' is unknown"))),
        };
        let config = Some(ModelConfig { name, input, ..Default::default() });
        Ok(Response::new(ModelConfigResponse { config }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let request = request.into_inner();
        self.0.requests.fetch_add(1, Relaxed);
        match request.model_name.as_str() {
            "minilm" => embed(&request).map(Response::new),
            "busy" => Err(Status::resource_exhausted("the queue of model 'busy' is full")),
            "flaky" if self.0.flaky_requests.fetch_add(1, Relaxed) % 2 == 1 => {
                Err(Status::new(Code::Unavailable, "no worker holds model 'flaky'"))
            }
            "identity" | "flaky" => {
                let data = Payload::from(request.raw_input_contents[0].clone());
                Ok(Response::new(answer(&request, "OUTPUT0", request.inputs[0].shape.clone(), data)))
            }
            name => Err(Status::not_found(format!("model '{name}' is unknown"))),
        }
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        match request.into_inner().model_name.as_str() {
            "lazy" => self.0.lazy_is_loaded.store(true, Relaxed),
            "huge" => {
                return Err(Status::resource_exhausted("model 'huge' takes 80 GiB, no device has more than 8 GiB"));
            }
            name => return Err(Status::not_found(format!("model '{name}' is not in the repository"))),
        }
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        _: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        self.0.lazy_is_loaded.store(false, Relaxed);
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }

    async fn model_stream_infer(
        &self,
        _: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        Err(Status::unimplemented("model_stream_infer"))
    }

    not_called! {
        server_live(ServerLiveRequest) -> ServerLiveResponse;
        server_ready(ServerReadyRequest) -> ServerReadyResponse;
        model_ready(ModelReadyRequest) -> ModelReadyResponse;
        server_metadata(ServerMetadataRequest) -> ServerMetadataResponse;
        model_metadata(ModelMetadataRequest) -> ModelMetadataResponse;
        model_statistics(ModelStatisticsRequest) -> ModelStatisticsResponse;
        repository_index(RepositoryIndexRequest) -> RepositoryIndexResponse;
        system_shared_memory_status(SharedMemoryRequest) -> SharedMemoryResponse;
        system_shared_memory_register(SharedMemoryRequest) -> SharedMemoryResponse;
        system_shared_memory_unregister(SharedMemoryRequest) -> SharedMemoryResponse;
        cuda_shared_memory_status(SharedMemoryRequest) -> SharedMemoryResponse;
        cuda_shared_memory_register(SharedMemoryRequest) -> SharedMemoryResponse;
        cuda_shared_memory_unregister(SharedMemoryRequest) -> SharedMemoryResponse;
    }
}

fn node(name: &str, carrier: &str, cordon: &str) -> Node {
    let device = session::Device {
        name: "cpu0".into(),
        kind: "cpu".into(),
        memory_total_bytes: 16 << 30,
        usable: true,
        ..Default::default()
    };
    let capability = session::Capability {
        hostname: "host".into(),
        physical_cores: 4,
        logical_cores: 8,
        memory_bytes: 16 << 30,
        devices: vec![device],
        role: "hybrid".into(),
        zone: "barn".into(),
        labels: [("tier", "gold"), ("row", "7")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Default::default()
    };
    let ledger = DeviceLedger {
        device: "cpu0".into(),
        capacity_bytes: 12 << 30,
        weights_bytes: 3 << 30,
        activations_bytes: 1 << 30,
        free_bytes: 7 << 30,
        booked_seconds: 0.25,
        queued_seconds: 1.5,
    };
    let curve = session::ServiceCurve { base_seconds: 2e-3, per_row_seconds: 5e-4 };
    let model = |name: &str, state: &str| NodeModel {
        name: name.into(),
        device: "cpu0".into(),
        state: state.into(),
        curve: (state == "READY").then_some(curve),
        progress: 0.4,
        ..Default::default()
    };
    Node {
        name: name.into(),
        state: "ready".into(),
        carrier: carrier.into(),
        silent_seconds: 0.1,
        batches_done: 12,
        capability: Some(capability),
        telemetry: Some(session::Telemetry { memory_free_bytes: 8 << 30, ..Default::default() }),
        measurement: Some(session::Measurement { f32_flops: 385e9, ..Default::default() }),
        models: vec![model("minilm", "READY"), model("lazy", "LOADING")],
        batches_running: 2,
        cordon: cordon.into(),
        ledgers: vec![ledger],
        events: vec![NodeEvent { age_seconds: 12.0, text: "suspect: no frame for 400 ms".into() }],
        ..Default::default()
    }
}

impl Double {
    fn cordon(&self, name: &str, drained: u32) -> &'static str {
        let mut cordons = self.cordons.lock().unwrap();
        let cordon = cordons.entry(name.to_owned()).or_default();
        cordon.asked += 1;
        match cordon.name {
            "draining" if cordon.asked >= drained => "drained",
            name => name,
        }
    }
}

fn place(worker: &str, work_seconds: f64) -> PlaceCost {
    let cost = Cost {
        work_seconds,
        carriage_seconds: 0.001,
        service_seconds: 0.002,
        total_seconds: work_seconds.max(0.001) + 0.002,
        ..Default::default()
    };
    PlaceCost { worker: worker.into(), device: "cpu0".into(), cost: Some(cost), ..Default::default() }
}

#[tonic::async_trait]
impl Cluster for Shared {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let requests = self.0.requests.load(Relaxed);
        Ok(Response::new(StatusResponse {
            version: "0.1.0".into(),
            state: "serving".into(),
            uptime_seconds: 61.0,
            cpu_seconds: requests as f64 * CPU_SECONDS,
            requests_succeeded: requests,
            ..Default::default()
        }))
    }

    async fn nodes(&self, request: Request<NodesRequest>) -> Result<Response<NodesResponse>, Status> {
        let wanted = request.into_inner().name;
        let mut nodes = vec![
            node("here", "in-process", self.0.cordon("here", u32::MAX)),
            node("edge", "grpc", self.0.cordon("edge", ASKED_UNTIL_DRAINED)),
        ];
        nodes.retain(|node| wanted.is_empty() || node.name == wanted);
        Ok(Response::new(NodesResponse { nodes }))
    }

    async fn models(&self, _: Request<ModelsRequest>) -> Result<Response<ModelsResponse>, Status> {
        let (name, datatype) = ("text".into(), "BYTES".into());
        let spec = session::TensorSpec { name, datatype, shape: vec![-1], optional: false };
        let loaded = self.0.lazy_is_loaded.load(Relaxed);
        let minilm = Model {
            name: "minilm".into(),
            version: "1".into(),
            family: "sentence-embedding".into(),
            state: "READY".into(),
            replicas: 2,
            memory_bytes: 90 << 20,
            inputs: vec![spec],
            ..Default::default()
        };
        let state = if loaded { "READY" } else { "UNAVAILABLE" }.into();
        let lazy = Model { name: "lazy".into(), state, reason: "not asked for".into(), ..Default::default() };
        Ok(Response::new(ModelsResponse { models: vec![minilm, lazy] }))
    }

    async fn set_node(&self, request: Request<SetNodeRequest>) -> Result<Response<SetNodeResponse>, Status> {
        let SetNodeRequest { name, action } = request.into_inner();
        if !matches!(name.as_str(), "here" | "edge") {
            return Err(Status::not_found(format!("node '{name}' is unknown, the nodes are: here, edge")));
        }
        let made = match action.as_str() {
            "cordon" => "cordoned",
            "drain" => "draining",
            _ => "",
        };
        self.0.cordons.lock().unwrap().insert(name, Cordon { name: made, asked: 0 });
        Ok(Response::new(SetNodeResponse { state: made.into() }))
    }

    async fn explain_request(
        &self,
        request: Request<ExplainRequestRequest>,
    ) -> Result<Response<RequestExplanation>, Status> {
        match request.into_inner().id.as_str() {
            id @ ("7" | "a/7" | "minilm") => Ok(Response::new(explained_request(id))),
            id @ "story" => Ok(Response::new(explained_generation(id))),
            id => Err(Status::not_found(format!("request '{id}' is not under way"))),
        }
    }

    async fn explain_model(&self, request: Request<ExplainModelRequest>) -> Result<Response<ModelExplanation>, Status> {
        match request.into_inner().name.as_str() {
            "minilm" => Ok(Response::new(explained_model())),
            name if name.contains('/') => Err(Status::invalid_argument(format!("model name '{name}' is not valid"))),
            name => Err(Status::not_found(format!("model '{name}' is unknown"))),
        }
    }
}
