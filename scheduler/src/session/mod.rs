//! Sessions: the scheduler's end of what workers say. Any carrier hands its messages in here.

mod control;
mod grpc;
mod relay;
mod remote;

use std::sync::Arc;

use orion_net::{AttemptDelta, BatchResult, FromWorker, KEEPALIVE, LEASE, SchedulerLink, Strategy, WORK_LEASE};
use orion_proto::{
    Code, Error, ModelSpec, PROTOCOL_MAJOR, PROTOCOL_MINOR, Result,
    session::{
        EndTraining, Hello, ModelReport, TrainingOrder, Welcome, model_report, to_scheduler, to_worker, training_order,
    },
};

pub use grpc::SessionService;
pub use relay::RelayService;
pub(crate) use relay::{RELAYED_BYTES, Traffic};

use crate::{
    core::{IN_PROCESS, ModelState, Report},
    scheduler::{Link, Scheduler},
};

/// An open session.
#[derive(Clone)]
pub struct Session {
    scheduler: Arc<Scheduler>,
    name: Arc<str>,
    number: u64,
}

impl Scheduler {
    /// Opens a session: checks the protocol's version, then lets the worker join.
    pub(crate) fn open_session(
        self: &Arc<Self>,
        hello: Hello,
        carrier: &'static str,
        link: Link,
    ) -> Result<(Session, Welcome)> {
        if hello.protocol_major != PROTOCOL_MAJOR {
            let text = format!(
                "session protocol {}.{} of worker '{}' is unknown, this scheduler speaks {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
                hello.protocol_major, hello.protocol_minor, hello.name
            );
            return Err(Error::new(Code::FailedPrecondition, text));
        }
        let name: Arc<str> = Arc::from(hello.name.as_str());
        let joined = self.with_core(|core, now| core.join(now, hello, carrier, link))?;
        tracing::info!(worker = %name, carrier, session = joined.session, resumed = joined.resumed, "worker_joined");
        let welcome = Welcome {
            session: joined.session,
            epoch: self.core().epoch(),
            keepalive_ms: KEEPALIVE.as_millis() as u32,
            lease_ms: LEASE.as_millis() as u32,
            work_lease_ms: WORK_LEASE.as_millis() as u32,
            protocol_major: PROTOCOL_MAJOR,
            protocol_minor: PROTOCOL_MINOR,
            key: String::new(),
        };
        Ok((Session { scheduler: self.clone(), name, number: joined.session }, welcome))
    }

    /// Opens a session with a worker in this process; [`Session::start`] lets it begin. Its carrier is a direct call, so
    /// it has no lease to lose.
    ///
    /// # Errors
    /// As for any worker: a bad or taken name, an unknown protocol version.
    pub fn join_in_process(self: &Arc<Self>, hello: Hello, worker: Link) -> Result<Arc<Session>> {
        let (session, _) = self.open_session(hello, IN_PROCESS, worker)?;
        Ok(Arc::new(session))
    }
}

impl SchedulerLink for Session {
    fn result(&self, result: BatchResult) {
        self.scheduler.with_core(|core, now| core.result(now, self.number, result));
    }

    fn deltas(&self, epoch: u64, deltas: Vec<AttemptDelta>) {
        self.scheduler.with_core(|core, now| core.deltas(now, self.number, epoch, deltas));
    }

    fn control(&self, message: to_scheduler::Message) {
        use to_scheduler::Message;
        match message {
            Message::Telemetry(telemetry) => {
                self.scheduler.with_core(|core, now| core.telemetry(now, self.number, telemetry));
            }
            Message::Measurement(figures) => self.scheduler.with_core(|core, _| core.measured(self.number, figures)),
            Message::Model(report) => self.model(report),
            Message::Held(held) => {
                self.scheduler.with_core(|core, now| core.holds(now, self.number, &held.path, held.missing_bytes));
            }
            Message::Training(report) => {
                let (job, generation) = (report.job, report.generation);
                if !self.scheduler.trainings().say(self.name.clone(), report) {
                    // It was away when that ended. The job may be of another scheduler: what is on its disk stays for a week.
                    let order = Some(training_order::Order::End(EndTraining { keep: true }));
                    self.scheduler.front().order(&self.name, TrainingOrder { job, generation, order });
                }
            }
            Message::Drain(_) => {
                tracing::info!(worker = %self.name, "worker_draining");
                self.scheduler.with_core(|core, now| core.worker_drains(now, self.number));
            }
            Message::Goodbye(_) => {
                tracing::info!(worker = %self.name, "worker_left");
                self.scheduler.with_core(|core, now| core.worker_left(now, self.number));
            }
            // Answered by the carrier's end of the session; a second Hello says nothing new.
            Message::Hello(_) | Message::Ping(_) | Message::Pong(_) => {}
        }
    }
}

impl Session {
    /// The worker was welcomed and can be spoken to: it is given models and work.
    pub fn start(&self) {
        self.scheduler.with_core(|core, now| core.start(now, self.number));
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Results and steps that came in one frame, in their order: one lock for all.
    pub(crate) fn take(&self, told: Vec<FromWorker>) {
        self.scheduler.with_core(|core, now| {
            for told in told {
                match told {
                    FromWorker::Result(result) => core.result(now, self.number, result),
                    FromWorker::Deltas(epoch, deltas) => core.deltas(now, self.number, epoch, deltas),
                    FromWorker::Probe(_) => {}
                }
            }
        });
    }

    pub(crate) fn suspect(&self, reason: &str, lease: std::time::Duration, broken: bool) {
        tracing::warn!(worker = %self.name, reason, "worker_suspect");
        let lease = u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX);
        self.scheduler.with_core(|core, now| core.suspect(now, self.number, reason, lease, broken));
    }

    /// What the link to the worker carries, bytes a second; 0: nothing was seen lately.
    pub(crate) fn carries(&self, bytes_per_second: f64) {
        self.scheduler.with_core(|core, _| core.carries(self.number, bytes_per_second));
    }

    pub(crate) fn alive(&self) {
        self.scheduler.with_core(|core, now| core.alive(now, self.number));
    }

    fn model(&self, report: ModelReport) {
        let state = match report.state() {
            model_report::State::Ready => ModelState::Ready,
            model_report::State::Failed => ModelState::Failed,
            model_report::State::Unloaded => ModelState::Unloaded,
            model_report::State::Inspected => ModelState::Cold,
            model_report::State::Loading | model_report::State::Unknown => ModelState::Loading,
        };
        let inspected = report.state() == model_report::State::Inspected;
        let spec = report.spec.map(ModelSpec::try_from).transpose();
        let (state, error, spec) = match spec {
            Ok(Some(spec)) if spec.name.as_str() != report.name => {
                (ModelState::Failed, format!("the worker declared model '{}' in its place", spec.name), None)
            }
            Ok(Some(spec)) if !known_balancer(&spec.policy.balancer) => {
                (ModelState::Failed, format!("its balancer '{}' is unknown", spec.policy.balancer), None)
            }
            Ok(spec) if spec.is_some() || !state.answers() => (state, report.error, spec),
            Ok(_) => (ModelState::Failed, "the worker reported it without its declaration".into(), None),
            Err(error) => (ModelState::Failed, error.message, None),
        };
        // What cannot be read is told without a device: nothing was put on one.
        let device = if inspected && state == ModelState::Failed { String::new() } else { report.device };
        match state {
            ModelState::Failed => tracing::warn!(worker = %self.name, model = report.name, error, "model_failed"),
            ModelState::Ready => tracing::info!(worker = %self.name, model = report.name, "model_ready"),
            _ => {}
        }
        let error = Error::invalid(error).message;
        let report = Report {
            name: Arc::from(report.name.as_str()),
            device,
            state,
            error,
            progress: report.progress,
            spec,
            curve: report.curve.unwrap_or_default().into(),
            order: report.order,
            load_seconds: report.load_seconds,
            peak_bytes: report.peak_bytes,
        };
        self.scheduler.with_core(|core, now| core.report(now, self.number, report));
    }
}

/// Whether a policy names no strategy, or one that there is.
fn known_balancer(name: &str) -> bool {
    name.is_empty() || name.parse::<Strategy>().is_ok()
}

/// The refusal that a carrier sends.
pub(crate) fn refused(error: &Error) -> to_worker::Message {
    to_worker::Message::Refused(orion_proto::session::Refused { reason: error.message.clone() })
}
