//! One batch that hangs keeps nothing else from running where it can.

use orion_proto::ModelPolicy;

use super::{
    world::{Ask, Fate, World, model},
    *,
};

#[test]
fn what_waits_for_other_models_of_its_device_gets_a_copy() {
    let specs = ["a", "b"].map(|name| model(name, 5, ModelPolicy::default()));
    let mut world = World::new(specs.to_vec(), &[&[100]]);
    world.add(&[100], 0.0);
    world.ask(0);
    let waits: Vec<u64> = (0..4).map(|_| world.ask(1)).collect();
    (0..1_200).for_each(|_| {
        world.pass(25 * MS);
        while world.finish(1, Fate::Ok).is_some() {}
    });
    assert!(waits.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))), "30 s after a batch of 5 ms");
}

#[test]
fn nothing_stays_bound_to_its_device() {
    let bound = ModelPolicy { min_replicas: 2, balancer: "round-robin".into(), ..ModelPolicy::default() };
    let specs = vec![model("a", 5, ModelPolicy::default()), model("b", 5, bound)];
    let mut world = World::new(specs, &[&[100], &[100]]);
    world.ask(0);
    let at = world.ran.last().unwrap().0;
    let mut asked = Vec::new();
    for _ in 0..10 {
        asked.extend((0..2).filter_map(|_| world.submit(Ask::of(1)).ok()));
        (0..240).for_each(|_| {
            world.pass(25 * MS);
            while world.finish(1 - at, Fate::Ok).is_some() {}
        });
    }
    let open = asked.iter().filter(|ticket| world.outcome(**ticket).is_none()).count();
    assert_eq!((open, asked.len()), (0, 20));
    // It moves again: it is a device as others are.
    world.finish(at, Fate::Ok);
    (0..4).for_each(|_| _ = world.submit(Ask::of(1)));
    assert!(!world.nodes[at].batches.is_empty());
}

#[test]
fn what_was_bound_to_a_lost_replica_and_runs_elsewhere_is_bound_to_nothing() {
    let policy = ModelPolicy { min_replicas: 2, balancer: "round-robin".into(), hedge: true, ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 1, policy)], &[&[100], &[100]]);
    let asked = world.ask(0);
    let at = world.ran.last().unwrap().0;
    (0..40).for_each(|_| world.pass(5 * MS));
    assert_eq!(world.core.totals().hedged, 1);
    world.core.suspect(world.now, world.nodes[at].session, "silent", 100 * MS, true);
    world.collect();
    world.pass(200 * MS);
    recount::check(&world.core);
    world.finish(1 - at, Fate::Ok);
    assert_eq!(world.outcome(asked), Some(Ok(())));
}
