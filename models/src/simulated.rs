//! The family `simulated`: a latency model that computes nothing, for measuring a cluster without its hardware.

use std::time::Duration;

use orion_proto::{
    Datatype, InferAnswer, ModelName, ModelPolicy, ModelSpec, Payload, Result, ServiceCurve, Tensor, TensorSpec,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{Model, ModelRequest, identity::echo, orion_toml::Simulated};

/// The family's name.
pub(crate) const FAMILY: &str = "simulated";

/// What a folder of kind `simulated` serves.
pub(crate) fn spec(name: &ModelName, version: String, max_batch_rows: usize, latency: &Simulated) -> ModelSpec {
    ModelSpec {
        name: name.clone(),
        version,
        family: FAMILY.into(),
        inputs: vec![TensorSpec::new("INPUT0", Datatype::Fp32, [])],
        outputs: vec![TensorSpec::new("OUTPUT0", Datatype::Fp32, [])],
        max_batch_rows,
        memory_bytes: latency.memory_bytes,
        inline: false,
        policy: ModelPolicy::default(),
    }
}

/// A model that sleeps as long as its latency model says and hands its input back.
pub(crate) struct SimulatedModel {
    spec: ModelSpec,
    latency: Simulated,
    random: StdRng,
}

impl SimulatedModel {
    /// Sleeps the load time.
    pub(crate) fn load(spec: ModelSpec, latency: Simulated, progress: &dyn Fn(f32)) -> Self {
        const STEPS: u16 = 20;
        for step in 1..=STEPS {
            std::thread::sleep(Duration::from_secs_f64(latency.load_seconds / f64::from(STEPS)));
            progress(f32::from(step) / f32::from(STEPS));
        }
        let random = StdRng::seed_from_u64(latency.seed);
        Self { spec, latency, random }
    }

    fn seconds(&mut self, rows: usize) -> f64 {
        let exact = self.latency.base_seconds + self.latency.per_row_seconds * rows as f64;
        // Box-Muller; 1 - u keeps the logarithm away from 0.
        let (u, v): (f64, f64) = (self.random.random(), self.random.random());
        let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        exact * (self.latency.noise * normal).exp()
    }
}

impl Model for SimulatedModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, batch: Vec<ModelRequest>) -> Vec<Result<InferAnswer>> {
        let answers: Vec<Result<InferAnswer>> =
            batch.into_iter().map(|request| echo(request.inputs, || self.spec.clone())).collect();
        let rows = answers.iter().flatten().flat_map(|answer| answer.outputs.first()).map(Tensor::rows).sum();
        if rows > 0 {
            std::thread::sleep(Duration::try_from_secs_f64(self.seconds(rows)).unwrap_or(Duration::MAX));
        }
        answers
    }

    fn known_curve(&self) -> Option<ServiceCurve> {
        let Simulated { base_seconds, per_row_seconds, .. } = self.latency;
        Some(ServiceCurve { base_seconds, per_row_seconds })
    }

    fn sample(&self, rows: usize) -> ModelRequest {
        let data = Payload::from(vec![0; rows * 4]);
        let tensor = Tensor { name: "INPUT0".into(), datatype: Datatype::Fp32, shape: vec![rows as i64, 1], data };
        ModelRequest { inputs: vec![tensor], truncate: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(latency: Simulated) -> SimulatedModel {
        let spec = spec(&ModelName::new("slow").unwrap(), "1".into(), 32, &latency);
        SimulatedModel::load(spec, latency, &|_| {})
    }

    #[test]
    fn latency_is_a_plus_b_n_times_a_seeded_factor() {
        let line = Simulated { base_seconds: 0.5, per_row_seconds: 0.25, ..Simulated::default() };
        assert_eq!(model(line.clone()).seconds(4), 1.5);
        let noisy = Simulated { noise: 0.3, seed: 7, ..line };
        let draw = |latency: &Simulated| {
            let mut model = model(latency.clone());
            (0..4000).map(|_| (model.seconds(4) / 1.5).ln()).collect::<Vec<f64>>()
        };
        let logs = draw(&noisy);
        assert_eq!(logs, draw(&noisy), "the same seed gives the same latencies");
        assert_ne!(logs, draw(&Simulated { seed: 8, ..noisy.clone() }));
        let mean = logs.iter().sum::<f64>() / 4000.0;
        let sigma = (logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4000.0).sqrt();
        assert!(mean.abs() < 0.02 && (sigma - 0.3).abs() < 0.02, "mean {mean}, sigma {sigma}");
    }

    #[test]
    fn input_comes_back_and_progress_reaches_one() {
        let told = std::cell::RefCell::new(Vec::new());
        let spec = spec(&ModelName::new("slow").unwrap(), "1".into(), 32, &Simulated::default());
        let mut model = SimulatedModel::load(spec, Simulated::default(), &|share| told.borrow_mut().push(share));
        assert!(told.borrow().is_sorted() && told.borrow().last() == Some(&1.0));
        let answers = model.run(vec![model.sample(3), ModelRequest::default()]);
        assert_eq!(answers[0].as_ref().unwrap().outputs[0].shape, [3, 1]);
        assert!(answers[1].as_ref().is_err_and(|e| e.message.contains("'slow'")));
    }
}
