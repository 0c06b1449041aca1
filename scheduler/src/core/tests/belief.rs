//! What is believed of devices: one bad moment must not keep a model from running, or it could never be corrected.

use orion_proto::ModelPolicy;

use super::{
    world::{Ask, Fate, World, model},
    *,
};

const SLOW: ServiceCurve = ServiceCurve { base_seconds: 30.0, per_row_seconds: 0.0 };

fn soon(model: usize, deadline: Nanos) -> Ask {
    Ask { deadline: Some(deadline), ..Ask::of(model) }
}

/// One request is answered by a worker that takes as long as the model's curve says, or as `taking` does.
fn run(world: &mut World, at: usize, taking: Option<ServiceCurve>) {
    world.ask(0);
    let usual = world.curves[0];
    world.curves[0] = taking.unwrap_or(usual);
    assert!(world.finish(at, Fate::Ok).is_some());
    world.curves[0] = usual;
}

/// A curve of an earlier process.
fn of_the_past(bucket: u8, base_seconds: f64, inflation: f64) -> Remembered {
    Remembered {
        model: "m".into(),
        path: "/m".into(),
        fingerprint: String::new(),
        device_kind: "cpu".into(),
        device_model: String::new(),
        bucket,
        base_seconds,
        per_row_seconds: 0.0,
        inflation,
    }
}

fn pass_minutes(world: &mut World, minutes: usize) {
    (0..minutes * 60).for_each(|_| world.pass(1_000 * MS));
}

#[test]
fn one_slow_batch_locks_nobody_out() {
    let mut world = World::new(vec![model("m", 1, ModelPolicy::default())], &[&[100]]);
    (0..100).for_each(|_| run(&mut world, 0, None));
    run(&mut world, 0, Some(SLOW));
    world.submit(soon(0, 30 * MS)).unwrap();
}

#[test]
fn a_device_that_was_slow_is_tried_again() {
    let mut world = World::new(vec![model("m", 1, ModelPolicy::default())], &[&[100]]);
    (0..100).for_each(|_| run(&mut world, 0, None));
    (0..3).for_each(|_| run(&mut world, 0, Some(SLOW)));
    assert_eq!(world.submit(soon(0, 30 * MS)).unwrap_err().code, Code::DeadlineExceeded, "it is believed");
    pass_minutes(&mut world, 3);
    for _ in 0..3 {
        let ticket = world.submit(soon(0, 30 * MS)).unwrap();
        world.finish(0, Fate::Ok);
        assert_eq!(world.outcome(ticket), Some(Ok(())));
    }
}

#[test]
fn a_replica_that_was_slow_beside_a_fast_one_is_tried_again() {
    let policy = ModelPolicy { min_replicas: 2, ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 1, policy)], &[&[100], &[100]]);
    world.core.cordon(world.now, "w1", Cordon::Draining).unwrap();
    (0..2).for_each(|_| run(&mut world, 0, Some(SLOW)));
    world.core.cordon(world.now, "w1", Cordon::No).unwrap();
    (0..20).for_each(|_| {
        world.ask(0);
    });
    assert!(world.ran[2..].iter().all(|(at, ..)| *at == 1), "{:?}", world.ran);
    while world.finish(1, Fate::Ok).is_some() {}
    pass_minutes(&mut world, 3);
    (0..20).for_each(|_| {
        world.ask(0);
    });
    assert!(!world.nodes[0].batches.is_empty());
}

#[test]
fn one_slow_load_locks_nobody_out() {
    let specs = vec![model("a", 60, ModelPolicy::default()), model("b", 60, ModelPolicy::default())];
    let mut world = World::new(specs, &[&[100]]);
    let evict_with = |world: &mut World, index: usize| {
        let ticket = world.ask(index);
        world.pass(MS);
        world.finish(0, Fate::Ok);
        assert_eq!(world.outcome(ticket), Some(Ok(())));
    };
    evict_with(&mut world, 1);
    world.load_seconds = 60.0;
    evict_with(&mut world, 0);
    world.load_seconds = 0.1;
    evict_with(&mut world, 1);
    assert_eq!(world.submit(soon(0, 10_000 * MS)).unwrap_err().code, Code::DeadlineExceeded, "it is believed");
    pass_minutes(&mut world, 3);
    world.submit(soon(0, 10_000 * MS)).unwrap();
}

#[test]
fn a_remembered_curve_that_warm_up_finds_far_too_slow_is_not_believed() {
    for (remembered, believed) in [(4.0, 0.005), (0.012, 0.012)] {
        let mut next = World::new(vec![], &[]);
        next.core.remember(vec![of_the_past(0, remembered, 1.0)]);
        next.specs = vec![Arc::new(model("m", 1, ModelPolicy::default()))];
        next.curves = vec![ServiceCurve { base_seconds: 0.004, per_row_seconds: 0.001 }];
        next.core.want(next.now, &next.specs[0].name.clone(), "/m".into(), false);
        next.add(&[100], 0.0);
        let cost = next.core.explain_model(next.now, "m").unwrap().places[0].cost.unwrap();
        assert!((cost.service_seconds - believed).abs() < 1e-6, "{cost:?}");
    }
}

fn lines(world: &World, name: &str) -> Vec<curve::Line> {
    let id = world.core.models[world.core.index(name).unwrap()].replicas[0];
    (0..3).map(|bucket| world.core.replicas[id].line(bucket)).collect()
}

/// Batches of two length buckets that take twice what was promised, and now and then longer.
fn teach(world: &mut World) {
    let promised = std::mem::replace(&mut world.curves[0], ServiceCurve { base_seconds: 0.012, per_row_seconds: 0.0 });
    for round in 0..40 {
        world.row_bytes = if round % 2 == 0 { 8 } else { 300 };
        world.curves[0].base_seconds = if round % 5 == 0 { 0.02 } else { 0.012 };
        world.ask(0);
        world.finish(0, Fate::Ok);
    }
    (world.curves[0], world.row_bytes) = (promised, 8);
}

#[test]
fn what_batches_taught_outlives_an_eviction_and_holds_for_the_next_copy() {
    let inputs = vec![TensorSpec::new("x", Datatype::Fp32, [-1, -1])];
    let specs =
        vec![ModelSpec { inputs, ..model("m", 60, ModelPolicy::default()) }, model("b", 60, ModelPolicy::default())];
    let mut world = World::new(specs, &[&[100]]);
    teach(&mut world);
    let (before, saved) = (lines(&world, "m"), world.core.take_taught(9));
    assert!(before[0].inflation > 1.05 && before[0].predict(1) > 10 * MS && before[1] != before[0], "{before:?}");
    assert_eq!(saved.len(), 2, "a curve for each bucket");
    world.ask(1);
    world.pass(MS);
    world.finish(0, Fate::Ok);
    assert_eq!(world.held(0, 0), 60);
    let loads = world.loads;
    world.ask(0);
    world.pass(MS);
    assert_eq!((world.loads, lines(&world, "m")), (loads + 1, before.clone()));
    world.add(&[100], 0.0);
    let index = world.core.index("m").unwrap();
    let next = world.core.predicted_curves(index, world.core.workers[1].devices[0]);
    assert_eq!(next.iter().map(|curve| curve.line()).collect::<Vec<_>>(), before[..2]);
    let mut next = World::new(vec![], &[]);
    next.core.remember(saved);
    next.specs = world.specs.clone();
    next.curves = vec![ServiceCurve { base_seconds: 0.004, per_row_seconds: 0.001 }; 2];
    next.core.want(next.now, &next.specs[0].name.clone(), "/m".into(), false);
    next.add(&[100], 0.0);
    for (kept, was) in lines(&next, "m").iter().zip(&before) {
        assert!(
            (kept.base - was.base).abs() < 1.0 && (kept.inflation - was.inflation).abs() < 1e-9,
            "{kept:?} {was:?}"
        );
    }
}

#[test]
fn remembered_figures_that_cannot_be_are_left_out() {
    let mut world = World::new(vec![], &[]);
    let odd = [(0, -1.0, 1.0), (0, f64::NAN, 1.0), (0, 0.1, 0.5), (0, 0.1, f64::INFINITY), (2, 0.1, 1.0)];
    world.core.remember(odd.map(|(bucket, base, inflation)| of_the_past(bucket, base, inflation)).to_vec());
    world.specs = vec![Arc::new(model("m", 1, ModelPolicy::default()))];
    world.curves = vec![ServiceCurve { base_seconds: 0.004, per_row_seconds: 0.001 }];
    world.core.want(world.now, &world.specs[0].name.clone(), "/m".into(), false);
    world.add(&[100], 0.0);
    assert_eq!(lines(&world, "m")[0].predict(1), 5 * MS);
}
