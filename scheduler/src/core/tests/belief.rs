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
    let usual = std::mem::replace(&mut world.curves[0], taking.unwrap_or(world.curves[0]));
    assert!(world.finish(at, Fate::Ok).is_some());
    world.curves[0] = usual;
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
    let slow = {
        run(&mut world, 0, Some(SLOW));
        let first = world.ran[0].0;
        run(&mut world, first, Some(SLOW));
        first
    };
    (0..20).for_each(|_| drop(world.ask(0)));
    assert!(world.ran[2..].iter().all(|(at, ..)| *at != slow), "{:?}", world.ran);
    while world.finish(1 - slow, Fate::Ok).is_some() {}
    pass_minutes(&mut world, 3);
    (0..20).for_each(|_| drop(world.ask(0)));
    assert!(!world.nodes[slow].batches.is_empty());
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
    let mut world = World::new(vec![], &[]);
    let curve = |base_seconds: f64| Remembered {
        model: "m".into(),
        path: "/m".into(),
        fingerprint: String::new(),
        device_kind: "cpu".into(),
        device_model: String::new(),
        base_seconds,
        per_row_seconds: 0.0,
    };
    for (remembered, believed) in [(4.0, 0.005), (0.012, 0.012)] {
        world.core.remember(vec![curve(remembered)]);
        let mut next = World::new(vec![], &[]);
        next.core.remember(vec![curve(remembered)]);
        next.specs = vec![Arc::new(model("m", 1, ModelPolicy::default()))];
        next.curves = vec![ServiceCurve { base_seconds: 0.004, per_row_seconds: 0.001 }];
        next.core.want(next.now, &next.specs[0].name.clone(), "/m".into(), false);
        next.add(&[100], 0.0);
        let cost = next.core.explain_model(next.now, "m").unwrap().places[0].cost.unwrap();
        assert!((cost.service_seconds - believed).abs() < 1e-6, "{cost:?}");
    }
}
