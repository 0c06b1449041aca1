//! A worker without a session: the test is its scheduler.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use orion_net::{Attempt, AttemptDelta, Batch, BatchResult, SchedulerLink, WorkerLink};
use orion_proto::{
    Code, Datatype, InferRequest, Payload, Tensor, encode_bytes_elements,
    session::{InspectModel, LoadModel, ModelReport, UnloadModel, model_report::State, to_scheduler, to_worker},
};
use orion_worker::{Options, Simulation, Worker, WorkerHandle};

/// Longer than a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a worker said, with the free memory of its first device at that moment.
#[derive(Debug)]
pub(crate) enum Said {
    Model(Box<ModelReport>, u64),
    Result(BatchResult),
    Deltas(Vec<AttemptDelta>),
}

struct Ear(mpsc::Sender<Said>, std::sync::Weak<Worker>);

impl SchedulerLink for Ear {
    fn result(&self, result: BatchResult) {
        // The test may have ended.
        let _ = self.0.send(Said::Result(result));
    }

    fn deltas(&self, _: u64, deltas: Vec<AttemptDelta>) {
        let _ = self.0.send(Said::Deltas(deltas));
    }

    fn control(&self, message: to_scheduler::Message) {
        if let to_scheduler::Message::Model(report) = message {
            let free = self.1.upgrade().map_or(0, |worker| worker.telemetry().devices[0].memory_free_bytes);
            let _ = self.0.send(Said::Model(Box::new(report), free));
        }
    }
}

pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) worker: Arc<Worker>,
    said: mpsc::Receiver<Said>,
    order: u64,
}

impl Bench {
    /// With the devices that this file names, or the machine's own.
    pub(crate) fn new(simulation: Option<&str>) -> Self {
        let simulation = simulation.map(|text| Simulation::parse(text).unwrap());
        let worker = Worker::start(Options { name: "w".into(), simulation, ..Options::default() }).unwrap();
        let (ear, said) = mpsc::channel();
        worker.attach(Arc::new(Ear(ear, Arc::downgrade(&worker))), 0, &worker.hello());
        let bench = Self { folder: tempfile::tempdir().unwrap(), worker, said, order: 0 };
        let identity = bench.report();
        let first = bench.worker.capability().devices[0].name.clone();
        assert_eq!((identity.state(), identity.name.as_str(), &identity.device), (State::Ready, "identity", &first));

        bench
    }

    /// Writes a simulated model.
    pub(crate) fn model(&self, name: &str, settings: &str) {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("orion.toml"), format!("kind = \"simulated\"\n[simulated]\n{settings}")).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(crate) fn send(&self, message: to_worker::Message) {
        WorkerHandle(self.worker.clone()).control(message);
    }

    pub(crate) fn load(&mut self, name: &str, device: &str) -> u64 {
        self.order += 1;
        let (order, path) = (self.order, self.path(name));
        self.send(to_worker::Message::Load(LoadModel {
            name: name.into(),
            path,
            order,
            device: device.into(),
            peers: vec![],
        }));
        order
    }

    pub(crate) fn unload(&mut self, name: &str, device: &str) -> u64 {
        self.order += 1;
        let order = self.order;
        self.send(to_worker::Message::Unload(UnloadModel { name: name.into(), order, device: device.into() }));
        order
    }

    pub(crate) fn inspect(&mut self, name: &str) -> u64 {
        self.order += 1;
        let (order, path) = (self.order, self.path(name));
        self.send(to_worker::Message::Inspect(InspectModel { name: name.into(), path, order, peers: vec![] }));
        order
    }

    /// One attempt for each FP32 value, numbered from ten times the batch's number.
    pub(crate) fn run(&self, batch: u64, model: &str, device: &str, values: &[f32]) {
        let input = |value: &f32| {
            let data = Payload::from(value.to_le_bytes().to_vec());
            Tensor::new("INPUT0", Datatype::Fp32, vec![1, 1], data).unwrap()
        };
        self.run_inputs(batch, model, device, values.iter().map(input).collect());
    }

    /// One attempt for each text.
    pub(crate) fn run_texts(&self, batch: u64, model: &str, texts: &[&str]) {
        let input = |text: &&str| {
            let data = Payload::from(encode_bytes_elements(&[text]));
            Tensor::new("text", Datatype::Bytes, vec![1], data).unwrap()
        };
        self.run_inputs(batch, model, "", texts.iter().map(input).collect());
    }

    fn run_inputs(&self, batch: u64, model: &str, device: &str, inputs: Vec<Tensor>) {
        let attempt = |(index, input)| {
            let request = InferRequest { model: model.into(), inputs: vec![input], ..InferRequest::default() };
            Attempt { attempt: batch * 10 + index as u64, request: Arc::new(request) }
        };
        let attempts = inputs.into_iter().enumerate().map(attempt).collect();
        let batch = Batch { batch, epoch: 1, model: model.into(), device: device.into(), attempts };
        WorkerHandle(self.worker.clone()).run(batch);
    }

    pub(crate) fn next(&self) -> Said {
        self.said.recv_timeout(PATIENCE).unwrap()
    }

    pub(crate) fn report(&self) -> ModelReport {
        match self.next() {
            Said::Model(report, _) => *report,
            other => panic!("{other:?} came in place of a report"),
        }
    }

    pub(crate) fn result(&self) -> BatchResult {
        match self.next() {
            Said::Result(result) => result,
            other => panic!("{other:?} came in place of a result"),
        }
    }

    /// The report that ends a load.
    pub(crate) fn loaded(&self) -> ModelReport {
        loop {
            let report = self.report();
            if report.state() != State::Loading {
                return report;
            }
        }
    }

    pub(crate) fn free(&self) -> Vec<u64> {
        self.worker.telemetry().devices.iter().map(|device| device.memory_free_bytes).collect()
    }
}

pub(crate) fn codes(result: &BatchResult) -> Vec<(Option<Code>, bool)> {
    result.results.iter().map(|done| (done.outcome.as_ref().err().map(|error| error.code), done.not_started)).collect()
}
