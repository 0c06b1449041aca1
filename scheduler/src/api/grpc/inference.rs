//! `inference.GRPCInferenceService`.

use std::time::Instant;

use futures::{Stream, StreamExt, stream::BoxStream};
use orion_proto::{
    Code, Error, InferRequest, Tensor,
    answer::ModelInferResponse,
    inference::{grpc_inference_service_server::GrpcInferenceService, *},
};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::interleave::{Begun, interleave};
use crate::{
    api::{
        metadata::{model_config, model_metadata, server_metadata},
        terms::{Arrival, REQUEST_ID, Terms},
    },
    front::{Answered, Front},
};

/// Requests of one stream that are under way at once, and generations beside them.
const STREAM_AHEAD: usize = 64;

type Answer<T> = Result<Response<T>, Status>;

/// The service of this scheduler.
#[derive(Clone)]
pub struct InferenceService {
    front: Front,
}

impl InferenceService {
    /// Speaks for this scheduler.
    pub fn new(front: Front) -> Self {
        Self { front }
    }

    async fn answer(
        front: Front,
        wire: ModelInferRequest,
        terms: &Terms,
        arrived: Instant,
    ) -> orion_proto::Result<ModelInferResponse> {
        let (request, id) = read(wire, terms, arrived)?;
        Ok(response(terms.in_time(front.infer(request)).await?, id))
    }
}

impl InferenceService {
    /// The outputs of a pipeline, as they become known; the last answer says that it is.
    fn parts(
        front: &Front,
        wire: ModelInferRequest,
        terms: &Terms,
        arrived: Instant,
    ) -> orion_proto::Result<impl Stream<Item = orion_proto::Result<ModelInferResponse>> + use<>> {
        let (request, id) = read(wire, terms, arrived)?;
        Ok(front
            .parts(request)?
            .map(move |part| part.map(|(answered, last)| marked(response(answered, id.clone()), last))))
    }

    /// The steps of a generation; the last one says that it is.
    fn answers(
        front: &Front,
        wire: ModelInferRequest,
        terms: &Terms,
        arrived: Instant,
    ) -> orion_proto::Result<impl Stream<Item = orion_proto::Result<ModelInferResponse>> + use<>> {
        let (request, id) = read(wire, terms, arrived)?;
        Ok(front.answers(request)?.map(move |answered| {
            answered.map(|answered| {
                let last = answered.answer.delta.as_ref().is_some_and(|delta| delta.finish.is_some());
                marked(response(answered, id.clone()), last)
            })
        }))
    }
}

/// A request under its call's terms, and its client's own mark.
fn read(wire: ModelInferRequest, terms: &Terms, arrived: Instant) -> orion_proto::Result<(InferRequest, String)> {
    let mut request = InferRequest::try_from(wire)?;
    terms.apply(&mut request, arrived);
    let id = request.id.clone();
    Ok((request, id))
}

/// An answer of several to one request, as Triton marks them.
fn marked(mut response: ModelInferResponse, last: bool) -> ModelInferResponse {
    let parameter_choice = Some(infer_parameter::ParameterChoice::BoolParam(last));
    response.head.parameters.insert("triton_final_response".into(), InferParameter { parameter_choice });
    response
}

/// What a model answered, as the protocol has it.
pub(crate) fn response(answered: Answered, id: String) -> ModelInferResponse {
    let Answered { spec, answer } = answered;
    let mut response = ModelInferResponse::default();
    response.head.model_name = spec.name.to_string();
    response.head.model_version = spec.version.clone();
    response.head.id = id;
    for Tensor { name, datatype, shape, data } in answer.outputs {
        let output = InferOutputTensor { name, datatype: datatype.name().into(), shape, ..Default::default() };
        response.head.outputs.push(output);
        response.raw_output_contents.push(data);
    }
    response
}

/// Who sends an `x-request-id` finds it on the answer.
fn echo(terms: &Terms, metadata: &mut MetadataMap) {
    if let Some(id) = terms.request_id().and_then(|id| id.parse().ok()) {
        metadata.insert(REQUEST_ID, id);
    }
}

fn no_shared_memory() -> Status {
    Error::new(Code::Unimplemented, "shared memory is not served, send the tensor's bytes").into()
}

#[tonic::async_trait]
impl GrpcInferenceService for InferenceService {
    type ModelStreamInferStream = BoxStream<'static, Result<ModelStreamInferResponse, Status>>;

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answer<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answer<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.front.ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answer<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.into_inner();
        // Triton answers so for a name that it does not know; its clients do not expect an error here.
        Ok(Response::new(ModelReadyResponse { ready: self.front.model_ready(&name, &version).unwrap_or(false) }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answer<ServerMetadataResponse> {
        Ok(Response::new(server_metadata()))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Answer<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        Ok(Response::new(model_metadata(&*self.front.model_spec(&name, &version)?)))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        let arrival = Arrival::of_call(&request);
        let terms = Terms::of_grpc(request.metadata().as_ref(), arrival)?;
        match Self::answer(self.front.clone(), request.into_inner(), &terms, arrival.at).await {
            Ok(response) => {
                let mut response = Response::new(response);
                echo(&terms, response.metadata_mut());
                Ok(response)
            }
            Err(error) => {
                let mut status = Status::from(error);
                echo(&terms, status.metadata_mut());
                Err(status)
            }
        }
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let front = self.front.clone();
        let terms = Terms::of_grpc(request.metadata().as_ref(), Arrival::of_call(&request))?;
        let on_the_answer = terms.clone();
        // A stream that a client keeps open must not keep the server from stopping.
        let requests = request.into_inner().take_until(front.drained());
        let answers = requests.map(move |wire| {
            let (front, terms, arrived) = (front.clone(), terms.clone(), Instant::now());
            async move {
                let wire = match wire {
                    Ok(wire) => wire,
                    Err(status) => return Begun::Answered(Err(status)),
                };
                let (name, id) = (wire.model_name.clone(), wire.id.clone());
                // A failed request is an answer in the stream; the stream goes on.
                let told = move |answer| {
                    Ok(match answer {
                        Ok(response) => {
                            ModelStreamInferResponse { infer_response: Some(response), ..Default::default() }
                        }
                        Err(Error { message, .. }) => {
                            let mut response = ModelInferResponse::default();
                            (response.head.model_name, response.head.id) = (name.clone(), id.clone());
                            ModelStreamInferResponse { error_message: message, infer_response: Some(response) }
                        }
                    })
                };
                if front.answers_in_parts(&wire) {
                    return match Self::parts(&front, wire, &terms, arrived) {
                        Ok(answers) => Begun::Generates(answers.map(told).boxed()),
                        Err(error) => Begun::Answered(told(Err(error))),
                    };
                }
                match front.generates(&wire.model_name) {
                    false => Begun::Answered(told(Self::answer(front, wire, &terms, arrived).await)),
                    true => match Self::answers(&front, wire, &terms, arrived) {
                        Ok(answers) => Begun::Generates(answers.map(told).boxed()),
                        Err(error) => Begun::Answered(told(Err(error))),
                    },
                }
            }
        });
        let answers = interleave(answers.buffered(STREAM_AHEAD).boxed(), STREAM_AHEAD);
        let mut response = Response::new(answers.boxed());
        echo(&on_the_answer, response.metadata_mut());
        Ok(response)
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answer<ModelConfigResponse> {
        let ModelConfigRequest { name, version } = request.into_inner();
        let config = model_config(&*self.front.model_spec(&name, &version)?);
        Ok(Response::new(ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(&self, request: Request<ModelStatisticsRequest>) -> Answer<ModelStatisticsResponse> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        Ok(Response::new(ModelStatisticsResponse { model_stats: self.front.statistics(&name, &version)? }))
    }

    async fn repository_index(&self, request: Request<RepositoryIndexRequest>) -> Answer<RepositoryIndexResponse> {
        let models = self.front.repository_index(request.into_inner().ready);
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answer<RepositoryModelLoadResponse> {
        let request = request.into_inner();
        // Triton's overrides name files and configurations: a client must not choose what a worker opens.
        if let Some(name) = request.parameters.keys().next() {
            let text = format!("load parameter '{name}' is not taken, a model's settings are in its orion.toml");
            return Err(Error::invalid(text).into());
        }
        self.front.load_model(&request.model_name).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answer<RepositoryModelUnloadResponse> {
        self.front.unload_model(&request.into_inner().model_name).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(&self, _: Request<SharedMemoryRequest>) -> Answer<SharedMemoryResponse> {
        Err(no_shared_memory())
    }

    async fn system_shared_memory_register(&self, _: Request<SharedMemoryRequest>) -> Answer<SharedMemoryResponse> {
        Err(no_shared_memory())
    }

    async fn system_shared_memory_unregister(&self, _: Request<SharedMemoryRequest>) -> Answer<SharedMemoryResponse> {
        Err(no_shared_memory())
    }

    async fn cuda_shared_memory_status(&self, _: Request<SharedMemoryRequest>) -> Answer<SharedMemoryResponse> {
        Err(no_shared_memory())
    }

    async fn cuda_shared_memory_register(&self, _: Request<SharedMemoryRequest>) -> Answer<SharedMemoryResponse> {
        Err(no_shared_memory())
    }

    async fn cuda_shared_memory_unregister(&self, _: Request<SharedMemoryRequest>) -> Answer<SharedMemoryResponse> {
        Err(no_shared_memory())
    }
}
