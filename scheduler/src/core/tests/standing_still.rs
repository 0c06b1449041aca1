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

#[test]
fn what_comes_later_for_a_model_that_only_it_holds_gets_a_copy() {
    let twice = ModelPolicy { min_replicas: 2, ..ModelPolicy::default() };
    let once = ModelPolicy { max_replicas: Some(1), ..ModelPolicy::default() };
    let mut world = World::new(vec![model("a", 5, twice), model("b", 5, once)], &[&[100], &[100]]);
    let home = (0..2).find(|at| world.nodes[*at].residents.contains_key(&(1, 0))).unwrap();
    while world.nodes[home].batches.is_empty() {
        world.ask(0);
        world.pass(MS);
    }
    let other = |world: &mut World, ticks: usize| {
        (0..ticks).for_each(|_| {
            world.pass(25 * MS);
            while world.finish(1 - home, Fate::Ok).is_some() {}
        });
    };
    // What hung is answered elsewhere by now.
    other(&mut world, 1_200);
    let later = world.ask(1);
    other(&mut world, 40);
    assert_eq!(world.outcome(later), Some(Ok(())));
    // It moves again: there are no more copies than there may be.
    world.finish(home, Fate::Ok);
    assert_eq!(world.core.models[world.core.index("b").unwrap()].replicas.len(), 1);
}

#[test]
fn what_was_given_ahead_does_not_stand_still_behind_another() {
    let specs = ["long", "short"].map(|name| model(name, 1, ModelPolicy::default()));
    let mut world = World::new(specs.to_vec(), &[]);
    world.curves[0] = ServiceCurve { base_seconds: 15.0, per_row_seconds: 0.0 };
    world.add(&[100], 0.02);
    let pass = |world: &mut World, seconds: usize| (0..seconds * 40).for_each(|_| world.pass(25 * MS));
    (0..2).for_each(|of| _ = world.ask(of));
    pass(&mut world, 15);
    assert_eq!(world.nodes[0].batches.len(), 2, "the second is there when the first should end");
    // The first takes 12 s more, as it may, and the second 4.
    let stalled = |world: &World| world.core.devices.iter().any(|(_, device)| device.stalled);
    pass(&mut world, 12);
    assert!(!stalled(&world));
    world.finish_of(0, 0);
    pass(&mut world, 4);
    assert!(!stalled(&world));
    // Of its own it has had enough after 10 s.
    pass(&mut world, 8);
    assert!(stalled(&world));
}

#[test]
fn what_was_given_ahead_behind_a_batch_that_hangs_runs_elsewhere() {
    let policy = ModelPolicy { min_replicas: 2, ..ModelPolicy::default() };
    let mut world = World::new(vec![ModelSpec { max_batch_rows: 1, ..model("m", 1, policy) }], &[]);
    (0..2).for_each(|_| _ = world.add(&[100], 0.02));
    let asked: Vec<u64> = (0..4).map(|_| world.ask(0)).collect();
    world.pass(20 * MS);
    assert!(world.nodes.iter().all(|node| node.batches.len() == 2));
    (0..1_200).for_each(|_| {
        world.pass(25 * MS);
        while world.finish(1, Fate::Ok).is_some() {}
    });
    assert!(asked.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))));
    // A result of what came after it does not say that it moves.
    world.finish_last(0);
    assert!(world.core.devices.iter().any(|(_, device)| device.stalled));
    world.finish(0, Fate::Ok);
    assert!(world.core.devices.iter().all(|(_, device)| !device.stalled));
}

#[test]
fn a_copy_that_is_not_loaded_yet_is_given_up_before_the_one_that_moves_again() {
    let once = ModelPolicy { max_replicas: Some(1), ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 1, once)], &[&[100]]);
    world.prompt = false;
    world.add(&[100], 0.0);
    world.ask(0);
    (0..440).for_each(|_| world.pass(25 * MS));
    let m = world.core.index("m").unwrap();
    assert_eq!(world.core.models[m].replicas.len(), 2);
    let at = world.core.models[m].replicas[0];
    world.finish(0, Fate::Ok);
    assert_eq!(world.core.models[m].replicas, [at]);
}
