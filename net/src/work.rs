//! What travels between scheduler and worker on data: a batch out, its result back.

use std::sync::Arc;

use bytes::Bytes;
use orion_proto::{
    Code, Datatype, Delta, Error, Fused, Generation, InferAnswer, InferRequest, JobAttempt, Parameters, Payload,
    Priority, Result, Sequence, Tensor, session,
};
use prost::Message;

use crate::Transfer;

/// Requests that run together on one device.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its number, unique in the scheduler's epoch.
    pub batch: u64,
    /// The scheduler's epoch.
    pub epoch: u64,
    /// The served name of the model.
    pub model: Arc<str>,
    /// The worker's device.
    pub device: Arc<str>,
    /// The tries that run.
    pub attempts: Vec<Attempt>,
}

/// One try at one request.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its number, unique in the scheduler's epoch.
    pub attempt: u64,
    /// What to run.
    pub request: Arc<InferRequest>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchResult {
    /// The batch.
    pub batch: u64,
    /// The epoch in which it was given out.
    pub epoch: u64,
    /// Seconds on the device.
    pub service_seconds: f64,
    /// Rows that were computed.
    pub rows: u64,
    /// Seconds between its arrival at the worker and its start on the device.
    pub waited_seconds: f64,
    /// Device memory that it took beside the weights, bytes; 0: not measured.
    pub peak_bytes: u64,
    /// One for each attempt, in order.
    pub results: Vec<AttemptResult>,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptResult {
    /// The attempt.
    pub attempt: u64,
    /// Its answer, or why there is none.
    pub outcome: Result<InferAnswer>,
    /// It failed before its execution began: trying again repeats nothing.
    pub not_started: bool,
}

/// What a step added to an attempt that generates.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptDelta {
    /// The attempt's batch.
    pub batch: u64,
    /// The attempt.
    pub attempt: u64,
    /// What is new.
    pub delta: Delta,
}

/// What a worker sends on data.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    /// A batch is done.
    Result(BatchResult),
    /// A measurement of the bandwidth, with its number.
    Probe(u64),
    /// A step of the worker's generators, with the epoch in which their batches were given out.
    Deltas(u64, Vec<AttemptDelta>),
}

fn head(tensor: &Tensor) -> session::TensorHead {
    session::TensorHead {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().into(),
        shape: tensor.shape.clone(),
        byte_size: tensor.data.len() as u64,
    }
}

/// A batch as a transfer's header and payload; the tensors' bytes are shared, not copied.
pub fn encode_batch(batch: &Batch) -> (Bytes, Vec<Payload>) {
    let attempts = batch.attempts.iter().map(|attempt| {
        let Parameters { priority, truncate, sequence, others, job, .. } = &attempt.request.parameters;
        // A generation holds what its parameters said.
        let others = if attempt.request.generation.is_none() { others.as_slice() } else { &[] };
        session::Attempt {
            attempt: attempt.attempt,
            inputs: attempt.request.inputs.iter().map(head).collect(),
            truncate: *truncate,
            priority: priority.number(),
            parameters: others
                .iter()
                .cloned()
                .map(|(name, value)| session::Parameter { name, value: Some(value) })
                .collect(),
            generation: attempt.request.generation.as_ref().map(Into::into),
            sequence: sequence.map(|sequence| sequence.key),
            sequence_start: sequence.is_some_and(|sequence| sequence.start),
            sequence_end: sequence.is_some_and(|sequence| sequence.end),
            job: job.map(|JobAttempt { job, attempt }| session::JobAttempt { job, attempt }),
            fused: attempt.request.fused.as_ref().map(|fused| fused.to_json()).unwrap_or_default(),
        }
    });
    let wire = session::Batch {
        batch: batch.batch,
        epoch: batch.epoch,
        model: batch.model.to_string(),
        device: batch.device.to_string(),
        attempts: attempts.collect(),
    };
    let tensors = batch.attempts.iter().flat_map(|attempt| &attempt.request.inputs);
    (wire.encode_to_vec().into(), tensors.map(|tensor| tensor.data.clone()).collect())
}

/// A result as a transfer's header and payload.
pub fn encode_result(result: BatchResult) -> (Bytes, Vec<Payload>) {
    let mut payload = Vec::new();
    let results = result.results.into_iter().map(|done| match done.outcome {
        Ok(answer) => {
            let outputs = answer.outputs.iter().map(head).collect();
            payload.extend(answer.outputs.into_iter().map(|tensor| tensor.data));
            let (usage_tokens, delta) = (answer.usage_tokens, answer.delta.map(Into::into));
            session::AttemptResult { attempt: done.attempt, outputs, usage_tokens, delta, ..Default::default() }
        }
        Err(error) => session::AttemptResult {
            attempt: done.attempt,
            error_code: error.code.name().into(),
            error_message: error.message,
            not_started: done.not_started,
            ..Default::default()
        },
    });
    let wire = session::BatchResult {
        results: results.collect(),
        batch: result.batch,
        epoch: result.epoch,
        service_seconds: result.service_seconds,
        rows: result.rows,
        waited_seconds: result.waited_seconds,
        peak_bytes: result.peak_bytes,
    };
    let data = session::WorkerData { data: Some(session::worker_data::Data::Result(wire)) };
    (data.encode_to_vec().into(), payload)
}

/// A step of generators as a transfer's header.
pub fn encode_deltas(epoch: u64, deltas: Vec<AttemptDelta>) -> Bytes {
    let wire =
        |d: AttemptDelta| session::AttemptDelta { batch: d.batch, attempt: d.attempt, delta: Some(d.delta.into()) };
    let deltas = session::Deltas { epoch, deltas: deltas.into_iter().map(wire).collect() };
    session::WorkerData { data: Some(session::worker_data::Data::Deltas(deltas)) }.encode_to_vec().into()
}

fn deltas(wire: session::Deltas) -> FromWorker {
    let delta = |d: session::AttemptDelta| AttemptDelta {
        batch: d.batch,
        attempt: d.attempt,
        delta: d.delta.map(Into::into).unwrap_or_default(),
    };
    FromWorker::Deltas(wire.epoch, wire.deltas.into_iter().map(delta).collect())
}

/// A bandwidth probe as a transfer's header.
pub fn encode_probe(sequence: u64) -> Bytes {
    let data = session::worker_data::Data::Probe(session::Ping { sequence });
    session::WorkerData { data: Some(data) }.encode_to_vec().into()
}

fn undecodable(error: &prost::DecodeError) -> Error {
    Error::invalid(format!("a transfer's header cannot be read: {error}"))
}

fn tensor(head: session::TensorHead, payload: &mut Payload) -> Result<Tensor> {
    let size = usize::try_from(head.byte_size).ok();
    let data = size.and_then(|size| payload.split_to(size)).ok_or_else(|| {
        Error::invalid(format!("tensor '{}' declares {} bytes, {} are left", head.name, head.byte_size, payload.len()))
    })?;
    let datatype = Datatype::from_name(&head.datatype)?;
    let tensor = Tensor { name: head.name, datatype, shape: head.shape, data };
    tensor.check_size()?;
    Ok(tensor)
}

/// A batch from a transfer.
///
/// # Errors
/// INVALID_ARGUMENT when header and payload do not fit together.
pub fn decode_batch(transfer: Transfer) -> Result<Batch> {
    let wire = session::Batch::decode(transfer.header).map_err(|e| undecodable(&e))?;
    let mut payload = transfer.payload;
    let model = wire.model;
    let attempts = wire.attempts.into_iter().map(|attempt| {
        let inputs = attempt.inputs.into_iter().map(|head| tensor(head, &mut payload)).collect::<Result<_>>()?;
        let named = |parameter: session::Parameter| (parameter.name, parameter.value.unwrap_or_default());
        let others = attempt.parameters.into_iter().map(named).collect();
        let (start, end) = (attempt.sequence_start, attempt.sequence_end);
        let sequence = attempt.sequence.map(|key| Sequence { key, start, end });
        let priority = Priority::from_number(attempt.priority.into())?;
        let job = attempt.job.map(|session::JobAttempt { job, attempt }| JobAttempt { job, attempt });
        let truncate = attempt.truncate;
        let parameters = Parameters { priority, truncate, sequence, others, job, ..Default::default() };
        let generation = attempt.generation.map(Generation::try_from).transpose()?;
        let fused = Some(attempt.fused).filter(|text| !text.is_empty());
        let fused = fused.map(|text| Fused::from_json(&text).map(Arc::new)).transpose()?;
        let request = Arc::new(InferRequest { inputs, parameters, generation, fused, ..Default::default() });
        Ok(Attempt { attempt: attempt.attempt, request })
    });
    Ok(Batch {
        batch: wire.batch,
        epoch: wire.epoch,
        attempts: attempts.collect::<Result<_>>()?,
        model: model.into(),
        device: wire.device.into(),
    })
}

/// What a worker sent, from a transfer.
///
/// # Errors
/// INVALID_ARGUMENT when header and payload do not fit together.
pub fn decode_from_worker(transfer: Transfer) -> Result<FromWorker> {
    let wire = session::WorkerData::decode(transfer.header).map_err(|e| undecodable(&e))?;
    let mut payload = transfer.payload;
    let wire = match wire.data {
        Some(session::worker_data::Data::Result(wire)) => wire,
        Some(session::worker_data::Data::Probe(ping)) => return Ok(FromWorker::Probe(ping.sequence)),
        Some(session::worker_data::Data::Deltas(wire)) => return Ok(deltas(wire)),
        None => return Err(Error::invalid("a transfer is neither a result, a probe nor a step")),
    };
    let results = wire.results.into_iter().map(|done| {
        let outcome = if done.error_code.is_empty() {
            let outputs = done.outputs.into_iter().map(|head| tensor(head, &mut payload)).collect::<Result<_>>()?;
            Ok(InferAnswer { outputs, usage_tokens: done.usage_tokens, delta: done.delta.map(Into::into) })
        } else {
            Err(Error::new(Code::from_name(&done.error_code), done.error_message))
        };
        Ok(AttemptResult { attempt: done.attempt, outcome, not_started: done.not_started })
    });
    Ok(FromWorker::Result(BatchResult {
        results: results.collect::<Result<_>>()?,
        batch: wire.batch,
        epoch: wire.epoch,
        service_seconds: wire.service_seconds,
        rows: wire.rows,
        waited_seconds: wire.waited_seconds,
        peak_bytes: wire.peak_bytes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use orion_proto::inference::{InferParameter, infer_parameter::ParameterChoice::*};

    fn transfer((header, payload): (Bytes, Vec<Payload>)) -> Transfer {
        let mut whole = Payload::default();
        payload.iter().flat_map(Payload::pieces).for_each(|piece| whole.push(piece.clone()));
        Transfer { header, payload: whole }
    }

    fn fp32(name: &str, values: usize) -> Tensor {
        Tensor::new(name, Datatype::Fp32, vec![values as i64], Payload::from(vec![3; values * 4])).unwrap()
    }

    #[test]
    fn batches_and_results_round_trip() {
        let request = |n| Arc::new(InferRequest { inputs: vec![fp32("a", n), fp32("b", 2)], ..Default::default() });
        let sequence = Some(Sequence { key: 8, start: false, end: true });
        let values =
            [None, Some(BoolParam(true)), Some(Int64Param(-3)), Some(DoubleParam(0.25)), Some(StringParam("é".into()))];
        let others = values.map(|value| ("prompt".to_owned(), InferParameter { parameter_choice: value })).to_vec();
        let priority = Priority::Critical;
        let job = Some(JobAttempt { job: 1 << 40, attempt: 3 });
        let parameters = Parameters { priority, sequence, truncate: true, others, job, ..Default::default() };
        let in_sequence = Arc::new(InferRequest { parameters, ..(*request(0)).clone() });
        let attempts = vec![Attempt { attempt: 1, request: request(3) }, Attempt { attempt: 2, request: in_sequence }];
        let batch = Batch { batch: 9, epoch: 4, model: "m".into(), device: "cpu0".into(), attempts };
        let back = decode_batch(transfer(encode_batch(&batch))).unwrap();
        assert_eq!((back.batch, back.epoch, &*back.model, &*back.device), (9, 4, "m", "cpu0"));
        for (sent, got) in batch.attempts.iter().zip(&back.attempts) {
            assert_eq!((sent.attempt, &sent.request), (got.attempt, &got.request));
        }
        let delta = Delta { text: "é".into(), tokens: vec![3], ..Delta::default() };
        let answer = InferAnswer { outputs: vec![fp32("y", 5)], usage_tokens: 11, delta: Some(delta) };
        let failure = Error::new(Code::ResourceExhausted, "full");
        let results = [Ok(answer), Err(failure)].into_iter().enumerate();
        let results = results
            .map(|(i, outcome)| AttemptResult { attempt: i as u64, not_started: outcome.is_err(), outcome })
            .collect();
        let result = BatchResult {
            batch: 9,
            epoch: 4,
            service_seconds: 0.5,
            rows: 6,
            waited_seconds: 0.25,
            peak_bytes: 7,
            results,
        };
        let back = decode_from_worker(transfer(encode_result(result.clone()))).unwrap();
        assert_eq!(back, FromWorker::Result(result));
    }

    #[test]
    fn sizes_beyond_the_payload_are_refused() {
        let tensor =
            session::TensorHead { name: "x".into(), datatype: "FP32".into(), byte_size: u64::MAX, shape: vec![] };
        let attempt = session::Attempt { attempt: 1, inputs: vec![tensor], ..Default::default() };
        let wire = session::Batch { attempts: vec![attempt], ..Default::default() };
        let transfer = Transfer { header: wire.encode_to_vec().into(), payload: Payload::default() };
        assert!(decode_batch(transfer).is_err_and(|e| e.message.contains("'x'")));
    }
}
