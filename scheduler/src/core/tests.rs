//! The core's promises, one by one; `history` has them over random histories.

mod ageing;
mod alarms;
mod belief;
mod binding;
mod deadlines;
mod draining;
mod explaining;
mod failure;
mod fairness;
mod faults;
mod fetching;
mod generating;
mod history;
mod interrupting;
mod limits;
mod lives;
mod mixed;
mod moving;
mod peaks;
mod placing;
mod preempting;
mod prefixes;
mod reading;
mod reclaiming;
mod recount;
mod rescue;
mod resuming;
mod sequences;
mod standing_still;
mod starvation;
mod thrash;
mod world;

use std::{sync::Arc, time::Duration};

use orion_net::{AttemptResult, Batch, BatchResult};
use orion_proto::{
    Code, Datatype, InferAnswer, InferRequest, ModelName, ModelSpec, Result, ServiceCurve, TensorSpec, session,
};

use super::*;

type TestCore = Core<u64, u64>;

const MS: Nanos = 1_000_000;

/// Cases of a property: as many as asked for, or this many, or many times this many in long runs.
fn cases(usual: u32) -> u32 {
    let long = std::env::var("ORION_TEST_LONG").is_ok_and(|long| long == "1");
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    asked.unwrap_or(if long { usual * 20 } else { usual })
}

fn spec() -> ModelSpec {
    ModelSpec {
        name: ModelName::new("m").unwrap(),
        version: "1".into(),
        family: "test".into(),
        inputs: vec![TensorSpec::new("x", Datatype::Fp32, [-1])],
        outputs: vec![],
        max_batch_rows: 4,
        memory_bytes: 1,
        inline: false,
        policy: orion_proto::ModelPolicy { min_replicas: 3, ..Default::default() },
        generator: None,
    }
}

fn hello(name: &str, incarnation: u64) -> session::Hello {
    let device = session::Device { name: "cpu0".into(), kind: "cpu".into(), usable: true, ..Default::default() };
    session::Hello {
        name: name.into(),
        incarnation,
        capability: Some(session::Capability { devices: vec![device], ..Default::default() }),
        ..Default::default()
    }
}

/// The worker of this session says what the model is.
fn inspected(core: &mut TestCore, session: u64) {
    let report = Report {
        name: "m".into(),
        device: "cpu0".into(),
        state: ModelState::Cold,
        error: String::new(),
        progress: 0.0,
        spec: Some(spec()),
        curve: ServiceCurve { base_seconds: 0.001, per_row_seconds: 0.001 },
        order: 1,
        load_seconds: 0.1,
        peak_bytes: 0,
    };
    core.report(0, session, report);
}

/// The worker of this session answers the newest load that it was told of.
fn ready(core: &mut TestCore, now: Nanos, session: u64) {
    let Some(worker) = core.by_session(session) else { return };
    let here = |replica: &&Replica| core.devices[replica.device].worker == worker;
    let order = core.models[1].replicas.iter().map(|id| &core.replicas[*id]).find(here).map_or(0, |r| r.order);
    let report = Report {
        name: "m".into(),
        device: "cpu0".into(),
        state: ModelState::Ready,
        error: String::new(),
        progress: 1.0,
        spec: Some(spec()),
        curve: ServiceCurve { base_seconds: 0.001, per_row_seconds: 0.001 },
        order,
        load_seconds: 0.1,
        peak_bytes: 0,
    };
    core.report(now, session, report);
}

fn core_with(workers: &[&str]) -> (TestCore, Vec<u64>) {
    let mut core = TestCore::new(7, Limits::default());
    core.want(0, &ModelName::new("m").unwrap(), "/m".into(), false);
    let sessions = workers.iter().enumerate().map(|(index, name)| {
        let joined = core.join(0, hello(name, 1), "grpc", index as u64).unwrap();
        core.start(0, joined.session);
        inspected(&mut core, joined.session);
        ready(&mut core, 0, joined.session);
        joined.session
    });
    let sessions = sessions.collect();
    core.take_commands();
    (core, sessions)
}

fn submit(core: &mut TestCore, now: Nanos, ticket: u64) -> Result<RequestKey> {
    let request = Arc::new(InferRequest::default());
    core.submit(
        now,
        Admitted { spec: Arc::new(spec()), request, rows: 1, bytes: 8, deadline: None, generation: None },
        ticket,
    )
}

fn runs(commands: Vec<Command<u64, u64>>) -> Vec<(u64, Batch)> {
    let run = |command| match command {
        Command::Run { link, batch } => Some((link, batch)),
        _ => None,
    };
    commands.into_iter().filter_map(run).collect()
}

fn answer(batch: &Batch, outcome: impl Fn() -> Result<InferAnswer>) -> BatchResult {
    let results = batch
        .attempts
        .iter()
        .map(|a| AttemptResult { attempt: a.attempt, outcome: outcome(), not_started: false })
        .collect();
    BatchResult {
        batch: batch.batch,
        epoch: batch.epoch,
        service_seconds: 0.002,
        rows: batch.attempts.len() as u64,
        waited_seconds: 0.0,
        peak_bytes: 0,
        results,
    }
}

#[test]
fn a_busy_device_leaves_the_batch_open_until_it_is_free() {
    let (mut core, sessions) = core_with(&["a"]);
    for ticket in 0..6 {
        submit(&mut core, 0, ticket).unwrap();
    }
    let first = runs(core.take_commands());
    assert_eq!(first.iter().map(|(_, b)| b.attempts.len()).collect::<Vec<_>>(), [1]);
    core.result(2 * MS, sessions[0], answer(&first[0].1, || Ok(InferAnswer::default())));
    let second = runs(core.take_commands());
    assert_eq!(second.iter().map(|(_, b)| b.attempts.len()).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_lost_workers_requests_run_elsewhere_and_its_late_result_is_dropped() {
    let (mut core, sessions) = core_with(&["a", "b"]);
    submit(&mut core, 0, 1).unwrap();
    let (link, batch) = runs(core.take_commands()).remove(0);
    core.suspect(MS, sessions[link as usize], "silent", 300 * MS, false);
    let again = runs(core.take_commands());
    assert_eq!(again[0].0, 1 - link);
    core.result(2 * MS, sessions[link as usize], answer(&batch, || Ok(InferAnswer::default())));
    assert!(core.take_commands().is_empty());
    assert_eq!(core.totals().results_dropped, 1);
    core.result(3 * MS, sessions[1 - link as usize], answer(&again[0].1, || Ok(InferAnswer::default())));
    assert!(matches!(core.take_commands()[..], [Command::Settle { ticket: 1, outcome: Ok(_), .. }]));
}

#[test]
fn a_sole_worker_that_comes_back_keeps_its_batch_and_a_restarted_one_gets_it_again() {
    for (incarnation, again) in [(1, 0), (2, 1)] {
        let (mut core, sessions) = core_with(&["a"]);
        submit(&mut core, 0, 1).unwrap();
        let (_, batch) = runs(core.take_commands()).remove(0);
        core.suspect(MS, sessions[0], "reset", 300 * MS, true);
        let mut back = hello("a", incarnation);
        back.holding = vec![batch.batch];
        let joined = core.join(2 * MS, back, "grpc", 5).unwrap();
        assert_eq!(joined.resumed, incarnation == 1);
        core.start(2 * MS, joined.session);
        if incarnation == 2 {
            ready(&mut core, 3 * MS, joined.session);
        }
        assert_eq!(runs(core.take_commands()).len(), again, "incarnation {incarnation}");
    }
}

#[test]
fn requests_of_a_worker_that_never_comes_back_are_answered() {
    let (mut core, sessions) = core_with(&["a"]);
    submit(&mut core, 0, 1).unwrap();
    core.take_commands();
    core.suspect(MS, sessions[0], "reset", 300 * MS, true);
    core.tick(302 * MS);
    assert!(submit(&mut core, 303 * MS, 2).is_err_and(|e| e.code == Code::Unavailable));
    assert!(core.take_commands().is_empty());
    core.tick(302 * MS + nanos(Limits::default().orphan_grace));
    let commands = core.take_commands();
    assert!(
        matches!(&commands[..], [Command::Settle { ticket: 1, outcome: Err(e), .. }] if e.code == Code::Unavailable)
    );
}

#[test]
fn a_name_that_is_taken_and_a_queue_that_is_full_are_refused() {
    let (mut core, _) = core_with(&["a"]);
    assert!(core.join(MS, hello("a", 2), "grpc", 9).is_err_and(|e| e.code == Code::FailedPrecondition));
    core.limits.requests = 1;
    submit(&mut core, MS, 1).unwrap();
    let refused = submit(&mut core, MS, 2).unwrap_err();
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::ResourceExhausted, true));
}

#[test]
fn a_draining_worker_is_let_go_after_its_last_batch() {
    for inline in [false, true] {
        let (mut core, sessions) = core_with(&["a"]);
        core.models[1].spec = Some(Arc::new(ModelSpec { inline, ..spec() }));
        submit(&mut core, 0, 1).unwrap();
        let (_, batch) = runs(core.take_commands()).remove(0);
        core.worker_drains(MS, sessions[0]);
        assert!(core.take_commands().is_empty(), "inline: {inline}");
        core.result(2 * MS, sessions[0], answer(&batch, || Ok(InferAnswer::default())));
        assert!(core.take_commands().iter().any(|command| matches!(command, Command::Drained { .. })));
    }
}

#[test]
fn a_frame_at_the_end_of_the_lease_does_not_leave_a_worker_between_alive_and_dead() {
    let (mut core, sessions) = core_with(&["a"]);
    core.suspect(MS, sessions[0], "silent", 300 * MS, false);
    core.tick(301 * MS);
    let closed = core.take_commands().iter().any(|command| matches!(command, Command::Close { link: 0, .. }));
    assert!(closed, "the carrier must be told, so that the worker joins anew");
    core.alive(302 * MS, sessions[0]);
    let joined = core.join(303 * MS, hello("a", 1), "grpc", 5).unwrap();
    core.start(303 * MS, joined.session);
    ready(&mut core, 304 * MS, joined.session);
    submit(&mut core, 305 * MS, 1).unwrap();
    assert_eq!(runs(core.take_commands()).len(), 1);
}

#[test]
fn reports_of_an_older_load_or_session_change_nothing() {
    let (mut core, sessions) = core_with(&["a"]);
    core.unwant(0, "m").unwrap();
    core.want(0, &ModelName::new("m").unwrap(), "/m".into(), false);
    inspected(&mut core, sessions[0]);
    let late = Report {
        name: "m".into(),
        device: "cpu0".into(),
        state: ModelState::Unloaded,
        error: String::new(),
        progress: 0.0,
        spec: None,
        curve: ServiceCurve::default(),
        order: 1,
        load_seconds: 0.0,
        peak_bytes: 0,
    };
    core.report(MS, sessions[0], late.clone());
    assert_eq!(core.model("m").unwrap().state, ModelState::Loading);
    core.report(MS, sessions[0] + 1000, Report { state: ModelState::Ready, ..late.clone() });
    assert_eq!(core.model("m").unwrap().state, ModelState::Loading);
    let commands = core.take_commands();
    let order = commands.iter().find_map(|command| match command {
        Command::Unload { order, .. } => Some(*order),
        _ => None,
    });
    core.report(2 * MS, sessions[0], Report { order: order.unwrap(), ..late.clone() });
    let loads = core.take_commands().iter().filter(|command| matches!(command, Command::Load { .. })).count();
    assert_eq!(loads, 1, "it was wanted again while it left");
    ready(&mut core, 2 * MS, sessions[0]);
    assert_eq!(core.model("m").unwrap().state, ModelState::Ready);
    core.take_commands();
    core.report(3 * MS, sessions[0], Report { name: "left-over".into(), state: ModelState::Ready, ..late });
    assert!(core.model("left-over").is_err());
    assert!(core.take_commands().iter().any(|c| matches!(c, Command::Unload { name, .. } if &**name == "left-over")));
}

#[test]
fn requests_of_a_model_that_is_unloaded_are_answered_and_a_change_is_told() {
    let (mut core, _) = core_with(&["a"]);
    for ticket in 0..3 {
        submit(&mut core, 0, ticket).unwrap();
    }
    core.take_commands();
    core.take_changed();
    core.unwant(0, "m").unwrap();
    assert!(core.take_changed());
    let settled = core.take_commands().iter().filter(|c| matches!(c, Command::Settle { outcome: Err(_), .. })).count();
    assert_eq!(settled, 2, "two wait, one runs");
}

#[test]
fn requests_whose_time_runs_short_in_the_queue_are_answered_so() {
    let (mut core, sessions) = core_with(&["a"]);
    submit(&mut core, 0, 1).unwrap();
    let (_, batch) = runs(core.take_commands()).remove(0);
    let admitted = Admitted {
        spec: Arc::new(spec()),
        request: Arc::new(InferRequest::default()),
        rows: 1,
        bytes: 0,
        deadline: Some(nanos(Duration::from_millis(1))),
        generation: None,
    };
    // It would be refused at the door: a worker that became slow after it was let in is what is left.
    let key = core.submit(0, Admitted { deadline: Some(9 * MS), ..admitted }, 2).unwrap();
    assert!(core.request(key).is_some());
    core.result(8 * MS + MS / 2, sessions[0], answer(&batch, || Ok(InferAnswer::default())));
    let expired = |command: &Command<u64, u64>| matches!(command, Command::Settle { ticket: 2, outcome: Err(e), .. } if e.code == Code::ResourceExhausted);
    assert!(core.take_commands().iter().any(expired), "what is left of its time is too short for any device");
}
