//! The family `simulated`: a latency model that computes nothing, for measuring a cluster without its hardware.

use std::{sync::Arc, time::Instant};

use orion_proto::{
    Code, Datatype, Error, InferAnswer, ModelName, ModelPolicy, ModelSpec, Payload, Result, ServiceCurve, Tensor,
    TensorSpec,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    GivenUp, Model, ModelRequest,
    identity::echo,
    orion_toml::Simulated,
    pace::{Pace, sleep_until},
};

/// The family's name.
pub(crate) const FAMILY: &str = "simulated";
/// Progress is told about as often as this while loading.
const STEP_SECONDS: f64 = 0.1;
/// And so many times at most.
const MOST_STEPS: f64 = 20.0;

/// What a folder of kind `simulated` serves.
pub(crate) fn spec(
    name: &ModelName,
    version: String,
    max_batch_rows: usize,
    latency: &Simulated,
    policy: ModelPolicy,
) -> ModelSpec {
    ModelSpec {
        name: name.clone(),
        version,
        family: FAMILY.into(),
        inputs: vec![TensorSpec::new("INPUT0", Datatype::Fp32, [])],
        outputs: vec![TensorSpec::new("OUTPUT0", Datatype::Fp32, [])],
        max_batch_rows,
        memory_bytes: latency.memory_bytes,
        inline: false,
        policy,
        generator: None,
    }
}

/// The seconds that such a model takes at this pace, without episodes and noise.
pub(crate) fn curve(latency: &Simulated, pace: &Pace) -> ServiceCurve {
    ServiceCurve {
        base_seconds: latency.base_seconds * pace.slowdown,
        per_row_seconds: latency.per_row_seconds * pace.slowdown,
    }
}

/// A model that sleeps as long as its latency model says and hands its input back.
pub(crate) struct SimulatedModel {
    spec: ModelSpec,
    latency: Simulated,
    pace: Arc<Pace>,
    random: StdRng,
}

impl SimulatedModel {
    /// Sleeps the load time.
    pub(crate) fn load(spec: ModelSpec, latency: Simulated, pace: Arc<Pace>, progress: &dyn Fn(f32)) -> Self {
        let (started, seconds) = (Instant::now(), pace.load_seconds(spec.memory_bytes, latency.load_seconds));
        let steps = (seconds / STEP_SECONDS).ceil().clamp(1.0, MOST_STEPS) as u16;
        for step in 1..=steps {
            let share = f64::from(step) / f64::from(steps);
            sleep_until(started, std::time::Duration::from_secs_f64(seconds * share));
            progress(share as f32);
        }
        let random = StdRng::seed_from_u64(latency.seed ^ pace.seed.rotate_left(32));
        Self { spec, latency, pace, random }
    }

    fn seconds(&mut self, rows: usize) -> f64 {
        let exact = self.latency.base_seconds + self.latency.per_row_seconds * rows as f64;
        // Box-Muller; 1 - u keeps the logarithm away from 0.
        let (u, v): (f64, f64) = (self.random.random(), self.random.random());
        let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        exact * (self.latency.noise * normal).exp()
    }

    /// The failure that this batch of so many rows is to have.
    fn fault(&mut self, rows: usize) -> Option<Error> {
        if let Some(most) = self.latency.out_of_memory_rows.filter(|most| rows > *most) {
            let text = format!("out of memory (simulated): the batch has {rows} rows, {most} fit");
            return Some(Error::new(Code::ResourceExhausted, text));
        }
        // Without a share nothing is drawn, so that it leaves the noise as it was.
        let share = self.latency.fail_share;
        let fails = share > 0.0 && self.random.random::<f64>() < share;
        fails.then(|| Error::new(Code::Unavailable, "device fault (simulated)"))
    }
}

/// Whether an FP32 tensor holds this value.
fn holds(tensor: &Tensor, value: f32) -> bool {
    let bytes = tensor.data.contiguous();
    let (elements, _) = bytes.as_chunks::<4>();
    tensor.datatype == Datatype::Fp32 && elements.iter().any(|element| f32::from_le_bytes(*element) == value)
}

impl Model for SimulatedModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    #[expect(clippy::panic, reason = "what a poisoned batch is for")]
    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let started = Instant::now();
        let poisoned = |value| batch.iter().flat_map(|request| &request.inputs).any(|tensor| holds(tensor, value));
        if self.latency.poison.is_some_and(poisoned) {
            panic!("a batch holds the poison of model '{}'", self.spec.name);
        }
        let marks: Vec<GivenUp> = batch.iter().map(|request| request.given_up.clone()).collect();
        let mut answers: Vec<Result<InferAnswer>> =
            batch.into_iter().map(|request| echo(request.inputs, || self.spec.clone())).collect();
        let rows = answers.iter().flatten().flat_map(|answer| answer.outputs.first()).map(Tensor::rows).sum();
        if rows == 0 {
            return answers;
        }
        if let Some(fault) = self.fault(rows) {
            return answers.iter().map(|_| Err(fault.clone())).collect();
        }
        let seconds = self.seconds(rows);
        let given_up = || marks.iter().all(GivenUp::is_set);
        self.pace.spend(started, seconds, given_up);
        if given_up() {
            answers.iter_mut().for_each(|answer| *answer = Err(GivenUp::error()));
        }
        answers
    }

    fn known_curve(&self) -> Option<ServiceCurve> {
        Some(curve(&self.latency, &self.pace))
    }

    fn known_peak_bytes(&self) -> Option<u64> {
        Some(self.latency.peak_bytes)
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        let data = Payload::from(vec![0; rows * 4]);
        let tensor = Tensor { name: "INPUT0".into(), datatype: Datatype::Fp32, shape: vec![rows as i64, 1], data };
        ModelRequest { inputs: vec![tensor], ..ModelRequest::default() }
    }
}

#[cfg(test)]
mod tests;
