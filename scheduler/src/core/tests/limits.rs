//! How long what waits takes, and who is refused for it.

use orion_proto::{ModelPolicy, Parameters, Priority};

use super::{
    world::{Ask, World, model},
    *,
};
use crate::core::{catalogue::Known, curve::Curve};

fn curve(base_ms: f64, per_row_ms: f64) -> Curve {
    Curve::new(ServiceCurve { base_seconds: base_ms / 1e3, per_row_seconds: per_row_ms / 1e3 })
}

fn limited(names: &[&str], max_queue_ms: u64) -> Vec<ModelSpec> {
    let max_queue = Duration::from_millis(max_queue_ms);
    let policy = ModelPolicy { max_queue, min_replicas: 1, ..ModelPolicy::default() };
    names.iter().map(|name| model(name, 1, policy.clone())).collect()
}

fn drain(world: &World, name: &str) -> f64 {
    world.core.explain_model(world.now, name).unwrap().drain_seconds
}

#[test]
fn a_queue_takes_as_long_as_on_the_devices_that_hold_the_model() {
    let mut world = World::new(limited(&["m"], 1_000), &[&[100]]);
    // A kind of device that was known before those that hold it, and is slow.
    let index = world.core.index("m").unwrap();
    let slow = Known { class: usize::MAX, curve: curve(4_000.0, 1_000.0), ..world.core.models[index].known[0].clone() };
    world.core.models[index].known.insert(0, slow);
    (0..81).for_each(|_| {
        world.ask(0);
    });
    // One runs, 80 wait: ten batches of eight in 12 ms.
    assert!((drain(&world, "m") - 0.125).abs() < 0.001, "{} s", drain(&world, "m"));
    assert_eq!(world.core.objective(index), 100 * MS);
}

#[test]
fn one_flood_does_not_keep_others_out() {
    let mut world = World::new(limited(&["m"], 1_000), &[&[100]]);
    world.core.limits.requests = 12;
    let ask = |priority, tenant: &str| {
        let tenant = Some(Arc::from(tenant));
        Ask { parameters: Parameters { priority, tenant, ..Parameters::default() }, ..Ask::of(0) }
    };
    use Priority::{High, Low, Normal};
    let flood: Vec<u64> = (0..12).map(|_| world.submit(ask(Normal, "a")).unwrap()).collect();
    let refused = world.submit(ask(Normal, "a")).unwrap_err();
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::ResourceExhausted, true));
    assert!(world.submit(ask(Low, "b")).is_err(), "nothing makes way for what matters less");
    // The newest makes way for a higher priority, and for a tenant with fewer until both have as many.
    world.submit(ask(High, "a")).unwrap();
    assert_eq!(world.outcome(flood[11]), Some(Err(Code::ResourceExhausted)));
    let others = (0..12).filter(|_| world.submit(ask(Normal, "b")).is_ok()).count();
    assert_eq!(others, 5, "of eleven that wait");
    assert_eq!(world.core.requests.len(), 12);
    // Of what matters less, a tenth of the places stays.
    world.core.limits.requests = 20;
    let low: Vec<u64> = (0..8).map(|_| world.submit(ask(Low, "c")).unwrap()).collect();
    (0..30).for_each(|_| _ = world.submit(ask(High, "d")));
    let left = low.iter().filter(|ticket| world.outcome(**ticket).is_none()).count();
    assert_eq!((left, world.core.requests.len()), (2, 20));
    world.core.limits.requests = world.core.requests.len();
    // For what is refused all the same nobody makes way.
    let hopeless = Ask { deadline: Some(1), ..ask(High, "b") };
    assert!(world.submit(hopeless).is_err());
    assert_eq!(world.core.requests.len(), 20);
    // By bytes too; what is too large by itself pushes nobody out.
    world.core.limits.bytes = world.core.request_bytes + world.row_bytes - 1;
    world.core.limits.requests = 100;
    assert!(world.submit(Ask { rows: 1_000_000, ..ask(High, "c") }).is_err());
    assert_eq!(world.core.requests.len(), 20);
    world.submit(ask(High, "c")).unwrap();
    assert_eq!(world.core.requests.len(), 20);
    // What all that may make way would not make room for pushes nobody out.
    let rows = world.core.request_bytes / world.row_bytes;
    assert!(world.submit(Ask { rows, ..ask(High, "c") }).is_err());
    assert_eq!(world.core.requests.len(), 20);
}

#[test]
fn unequal_holders_drain_a_queue_together() {
    let mut specs = limited(&["m"], 10_000);
    specs[0].policy.min_replicas = 2;
    specs[0].max_batch_rows = 1;
    let mut world = World::new(specs, &[&[100], &[100]]);
    let index = world.core.index("m").unwrap();
    for (at, per_row) in [10.0, 90.0].into_iter().enumerate() {
        let id = world.core.models[index].replicas[at];
        world.core.replicas[id].curves = vec![curve(0.0, per_row)];
    }
    // 101 wait while one runs on each.
    (0..103).for_each(|_| {
        world.ask(0);
    });
    let (least, seconds) = (101.0 / (1.0 / 0.010 + 1.0 / 0.090), drain(&world, "m"));
    assert!((least..least + 0.011).contains(&seconds), "{seconds} s, 101 rows take {least}");
}

#[test]
fn models_on_one_device_share_the_time_that_may_wait_for_it() {
    let names = ["a", "b", "c", "d", "e"];
    let mut world = World::new(limited(&names, 1_000), &[&[100]]);
    for round in 0.. {
        let refused = (0..names.len()).filter(|model| world.submit(Ask::of(*model)).is_err()).count();
        assert!(round < 10_000);
        if refused == names.len() {
            break;
        }
    }
    let device = &world.core.devices[world.core.workers[0].devices[0]];
    let waits = device.load(world.now);
    assert!((950 * MS..1_050 * MS).contains(&waits), "{} ms wait", waits / MS);
    let refused = world.submit(Ask::of(0)).unwrap_err();
    let retry_after = refused.retry_after.unwrap().as_nanos() as Nanos;
    assert!(retry_after.abs_diff(waits) < MS, "{retry_after} ns");
}

fn of(model: usize, priority: Priority, tenant: &str) -> Ask {
    let tenant = (!tenant.is_empty()).then(|| Arc::from(tenant));
    Ask { parameters: Parameters { priority, tenant, ..Parameters::default() }, ..Ask::of(model) }
}

/// Submits until one is refused; says how many were admitted.
fn fill(world: &mut World, ask: Ask) -> usize {
    (0..10_000).find(|_| world.submit(ask.clone()).is_err()).expect("a limit")
}

#[test]
fn what_waits_with_a_lower_priority_keeps_nobody_out() {
    use Priority::{High, Low, Normal, Realtime};
    for balancer in ["", "round-robin"] {
        // On the same model, and on another of the same device.
        for other in [0, 1] {
            let mut specs = limited(&["m", "other"], 1_000);
            specs.iter_mut().for_each(|spec| spec.policy.balancer = balancer.into());
            let mut world = World::new(specs, &[&[100]]);
            let low = fill(&mut world, of(0, Low, ""));
            for priority in [Normal, High, Realtime] {
                let more = fill(&mut world, of(other, priority, ""));
                assert!(more > low / 3, "{more} of {priority:?} after {low} of low, model {other} '{balancer}'");
                assert!(world.submit(of(other, Low, "")).is_err());
                if priority == High {
                    assert!(world.submit(of(other, Normal, "")).is_err());
                }
            }
        }
    }
}

#[test]
fn a_tenant_that_floods_keeps_no_other_out_and_each_waits_for_its_share_at_most() {
    let mut world = World::new(limited(&["m", "other"], 1_000), &[&[100]]);
    let first = fill(&mut world, of(0, Priority::Normal, "a"));
    // Of the second's second, half is the first's.
    let second = fill(&mut world, of(1, Priority::Normal, "b"));
    assert!(second > first / 3 && second < first * 3 / 4, "{first}, then {second}");
    assert!(world.submit(of(1, Priority::Normal, "a")).is_err(), "its requests wait, whatever the model");
    assert!(world.submit(of(0, Priority::Normal, "c")).is_ok());
    assert!(world.submit(of(0, Priority::Low, "c")).is_err(), "all of it goes before");
}

#[test]
fn a_model_that_is_nowhere_yet_has_a_limit_too() {
    let mut specs = limited(&["m", "other"], 1_000);
    specs.iter_mut().for_each(|spec| (spec.policy.min_replicas, spec.memory_bytes) = (0, 60));
    let mut world = World::new(specs, &[&[100]]);
    world.ask(0);
    let first = fill(&mut world, of(1, Priority::Low, ""));
    assert!(world.core.models[world.core.index("other").unwrap()].replicas.is_empty());
    // A second of batches of eight in 12 ms.
    assert!((640..690).contains(&first), "{first}");
    assert!(fill(&mut world, of(1, Priority::High, "")) > first / 3);
}

#[test]
fn who_sends_more_than_may_be_under_way_is_not_told_to_come_again() {
    let mut world = World::new(limited(&["m"], 1_000), &[&[100]]);
    world.core.limits.bytes = 7;
    let refused = world.submit(Ask::of(0)).unwrap_err();
    assert_eq!((refused.code, refused.retry_after), (Code::ResourceExhausted, None), "{refused}");
}
