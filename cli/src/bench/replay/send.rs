//! The open loop: every request is sent when it is due, and noted as it ends.

use std::time::Duration;

use bytes::Bytes;
use orion_proto::inference::{
    InferParameter, ModelInferRequest, infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
};
use prost::Message;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};

use super::{ReplayArguments, Trace};
use crate::{
    Failure,
    bench::{codec::Encoded, load::MODEL_INFER},
    client::{Bearer, ServerArguments},
    progress,
};

/// Until the first request, so that the first is not late already.
const HEAD_START: Duration = Duration::from_millis(200);
/// How long after its deadline a request may still be answered or refused; then it is lost.
const GRACE: Duration = Duration::from_secs(10);

/// How a request ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered,
    Refused(Box<Status>),
    /// Neither within its time and some more.
    Lost,
}

/// One of the trace's requests, by its place among the arrivals.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) arrival: usize,
    /// Seconds after it was due that it was sent.
    pub(super) late: f64,
    /// Seconds from when it was due until it ended.
    pub(super) latency: f64,
    pub(super) outcome: Outcome,
}

/// A connection and what every request on it has in common.
#[derive(Clone)]
struct Line {
    grpc: Grpc<Channel>,
    bearer: Bearer,
    window: Duration,
}

/// Sends all arrivals of a trace; the answer has one for each, in the order in which they ended.
pub(super) async fn replay(
    trace: &Trace,
    arguments: &ReplayArguments,
    server: &ServerArguments,
) -> Result<Vec<Sent>, Failure> {
    let seconds = |ms: f64| Duration::from_secs_f64(ms * arguments.slow / 1e3);
    let mut lines = Vec::new();
    for _ in 0..arguments.connections {
        let grpc = Grpc::new(server.channel(&server.endpoint()?).await?);
        lines.push(Line { grpc, bearer: server.bearer()?, window: seconds(trace.slo_ms) });
    }
    let bar = progress::bar(trace.arrivals.len() as u64, "sending");
    let start = Instant::now() + HEAD_START;
    let mut calls = JoinSet::new();
    for ((arrival, &(at, model)), line) in trace.arrivals.iter().enumerate().zip(lines.iter().cycle()) {
        let due = start + seconds(at);
        match due > Instant::now() {
            true => sleep_until(due).await,
            // Behind, and still the answers must be read.
            false => tokio::task::yield_now().await,
        }
        calls.spawn(line.clone().call(arrival, format!("{}{model}", arguments.prefix), due));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut sent = Vec::with_capacity(trace.arrivals.len());
    while let Some(call) = calls.join_next().await {
        sent.push(call.map_err(|error| Failure::new(format!("a sending task ended early: {error}")))?);
    }
    Ok(sent)
}

impl Line {
    async fn call(mut self, arrival: usize, model: String, due: Instant) -> Sent {
        let late = due.elapsed();
        // The deadline is the schedule's, not the sender's: what was lost here is taken off.
        let left = self.window.saturating_sub(late).max(Duration::from_micros(1));
        let message = message(model, left);
        let outcome = match timeout(self.window + GRACE, self.send(message)).await {
            Ok(Ok(())) => Outcome::Answered,
            Ok(Err(status)) => Outcome::Refused(Box::new(status)),
            Err(_) => Outcome::Lost,
        };
        Sent { arrival, late: late.as_secs_f64(), latency: due.elapsed().as_secs_f64(), outcome }
    }

    async fn send(&mut self, message: Bytes) -> Result<(), Status> {
        let mut request = Request::new(message);
        self.bearer.sign(&mut request);
        self.grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        self.grpc.unary(request, PathAndQuery::from_static(MODEL_INFER), Encoded).await.map(drop)
    }
}

/// One row of one number, to be answered within `left`.
fn message(model_name: String, left: Duration) -> Bytes {
    let input =
        InferInputTensor { name: "INPUT0".into(), datatype: "FP32".into(), shape: vec![1], ..Default::default() };
    let micros = i64::try_from(left.as_micros()).unwrap_or(i64::MAX);
    let within = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(micros)) };
    let request = ModelInferRequest {
        model_name,
        parameters: [("timeout".to_owned(), within)].into(),
        inputs: vec![input],
        raw_input_contents: vec![Bytes::copy_from_slice(&1f32.to_le_bytes())],
        ..Default::default()
    };
    request.encode_to_vec().into()
}
