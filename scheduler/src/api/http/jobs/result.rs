//! What a job has to show, as the call that it was would have been answered.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use orion_proto::{
    Code, Datatype, Error, Payload, Result, Tensor,
    answer::ModelInferResponse,
    inference::InferOutputTensor,
    jobs::{FileAnswers, GetJobRequest, HttpAnswer, job_result::Outcome, jobs_server::Jobs},
};
use serde_json::json;

use super::{Api, Id, call, refused};
use crate::{
    api::http::{infer_request::OutputForms, infer_response, openai::Refusal, reply},
    jobs::shown,
};

pub(super) async fn result(
    State(api): State<Api>,
    headers: HeaderMap,
    Id(id): Id,
) -> std::result::Result<Response, Refusal> {
    let result = api.0.jobs.result(call(&headers, GetJobRequest { id, ..Default::default() })).await;
    match result.map_err(|status| refused(&status))?.into_inner().outcome {
        Some(Outcome::Call(answer)) => Ok(called(answer)),
        Some(Outcome::Inference(answer)) => Ok(inferred(answer)?),
        Some(Outcome::File(FileAnswers { output_file_id, error_file_id, progress })) => Ok(reply::json(&json!({
            "output_file_id": output_file_id,
            "error_file_id": error_file_id,
            "progress": progress.as_ref().map(shown::progress),
        }))),
        Some(Outcome::Trained(model)) => Ok(reply::json(&shown::trained(&model))),
        Some(Outcome::Kept(_)) | None => {
            Err(Error::new(Code::Internal, format!("the result of job {id} says nothing")).into())
        }
    }
}

fn called(answer: HttpAnswer) -> Response {
    let status = u16::try_from(answer.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let mut response = (status.unwrap_or(StatusCode::OK), answer.body).into_response();
    let kind = HeaderValue::from_str(&answer.content_type);
    response.headers_mut().insert(CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/json")));
    response
}

fn inferred(answer: ModelInferResponse) -> Result<Response> {
    let tensors = answer.head.outputs.into_iter().zip(answer.raw_output_contents);
    let tensor = |(output, data): (InferOutputTensor, Payload)| {
        Tensor::new(output.name, Datatype::from_name(&output.datatype)?, output.shape, data)
    };
    let tensors = tensors.map(tensor).collect::<Result<Vec<_>>>()?;
    let (name, version) = (&answer.head.model_name, &answer.head.model_version);
    infer_response::render(name, version, tensors, &answer.head.id, &OutputForms::default())
}
