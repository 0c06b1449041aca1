//! Busy devices are given their next batch so that it is there when they are idle, and not before.

use orion_proto::ModelPolicy;

use super::{
    world::{Fate, World, model},
    *,
};

/// A batch of one row takes so long.
const SERVICE: Nanos = 100 * MS;

/// A model whose requests run one by one, 20 ms there and back away; four requests came at once.
fn far_away() -> World {
    let one_by_one = ModelSpec { max_batch_rows: 1, ..model("m", 1, ModelPolicy::default()) };
    let mut world = World::new(vec![one_by_one], &[]);
    world.curves[0] = ServiceCurve { base_seconds: SERVICE as f64 / 1e9, per_row_seconds: 0.0 };
    world.add(&[100], 0.02);
    (0..4).for_each(|_| _ = world.ask(0));
    world
}

#[test]
fn the_next_batch_leaves_when_it_will_arrive_at_an_idle_device() {
    let mut world = far_away();
    assert_eq!(world.ran.len(), 1);
    for batches in 2..=4 {
        world.pass(SERVICE - MS);
        assert_eq!(world.ran.len(), batches - 1, "what waits is bound late");
        world.pass(MS);
        assert_eq!(world.ran.len(), batches, "no result has come");
        // The one before ends now, its result is under way.
        world.now += 10 * MS;
        world.finish(0, Fate::Ok);
        world.now -= 10 * MS;
    }
}

#[test]
fn there_is_no_alarm_where_nothing_waits_or_nothing_runs() {
    let mut world = far_away();
    for _ in 0..4 {
        assert_eq!(world.core.next_alarm().is_some(), world.ran.len() < 4);
        world.pass(SERVICE);
        world.finish(0, Fate::Ok);
    }
    assert_eq!((world.core.next_alarm(), world.core.alarms.len()), (None, 0));
    world.ask(0);
    let session = world.nodes[0].session;
    world.core.worker_left(world.now, session);
    assert_eq!(world.core.alarms.len(), 0, "its worker is gone");
}

#[test]
fn what_is_bound_to_a_replica_has_alarms_too() {
    let policy = ModelPolicy { balancer: "round-robin".into(), ..ModelPolicy::default() };
    let mut world = World::new(vec![ModelSpec { max_batch_rows: 1, ..model("m", 1, policy) }], &[]);
    world.add(&[100], 0.02);
    (0..2).for_each(|_| _ = world.ask(0));
    assert!(world.core.next_alarm().is_some());
}

#[test]
fn a_device_far_away_has_as_many_batches_ahead_as_results_are_under_way() {
    // A batch takes 5 ms, and 10 there and 10 back: the first result is known after 25 ms, when the fifth runs.
    let mut world = World::new(vec![ModelSpec { max_batch_rows: 1, ..model("m", 1, ModelPolicy::default()) }], &[]);
    world.add(&[100], 0.02);
    (0..40).for_each(|_| _ = world.ask(0));
    world.pass(24 * MS);
    assert!(world.ran.len() >= 5, "{} batches", world.ran.len());
}
