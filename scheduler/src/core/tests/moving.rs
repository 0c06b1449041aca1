//! Models that a drained node leaves to others that are busy, and back.

use orion_proto::ModelPolicy;

use super::{
    world::{Ask, Fate, World, model},
    *,
};

fn limited(name: &str, max_replicas: u32) -> ModelSpec {
    model(name, 60, ModelPolicy { max_replicas: Some(max_replicas), ..ModelPolicy::default() })
}

fn cordon(world: &mut World, at: usize, cordon: Cordon) {
    world.core.cordon(world.now, &format!("w{at}"), cordon).unwrap();
    world.collect();
}

/// The worker that holds the first model.
fn home(world: &World) -> usize {
    (0..world.nodes.len()).find(|at| world.nodes[*at].residents.contains_key(&(0, 0))).unwrap()
}

/// Two models that fill a device each; requests for the second are never out, but for those that are refused.
fn keep_asking(world: &mut World) {
    while world.core.unsettled() < 80 && world.submit(Ask::of(1)).is_ok() {}
}

#[test]
fn a_model_that_only_a_drained_node_holds_has_its_turn_where_another_is_never_idle() {
    let mut world = World::new(vec![limited("a", 1), limited("b", 1)], &[&[100], &[100]]);
    let home = home(&world);
    (0..3).for_each(|_| _ = world.ask(1));
    cordon(&mut world, home, Cordon::Draining);
    // The first is moved, and the second takes its place.
    for _ in 0..400 {
        world.pass(5 * MS);
        world.ask(1);
        world.finish(1 - home, Fate::Ok);
    }
    let (asked, waits) = (world.now, world.ask(0));
    while world.outcome(waits).is_none() {
        assert!(world.now < asked + 120_000 * MS, "not answered within two minutes");
        world.pass(5 * MS);
        keep_asking(&mut world);
        (0..2).for_each(|at| _ = world.finish(at, Fate::Ok));
    }
    assert_eq!(world.outcome(waits), Some(Ok(())));
}

#[test]
fn a_device_behind_a_link_that_always_has_a_batch_ahead_is_cleared_for_what_leaves_another() {
    let mut world = World::new(vec![limited("a", 1), limited("b", 1)], &[]);
    (0..2).for_each(|_| _ = world.add(&[100], 0.02));
    let home = home(&world);
    (0..60).for_each(|_| _ = world.ask(1));
    cordon(&mut world, home, Cordon::Draining);
    let (begun, mut ends) = (world.now, BTreeMap::new());
    while world.core.cordon_name(home) != "drained" {
        assert!(world.now < begun + 60_000 * MS, "not drained within a minute, {} loads", world.loads);
        world.pass(MS);
        keep_asking(&mut world);
        for batch in &world.nodes[1 - home].batches {
            let running = &world.core.batches[&batch.batch];
            ends.entry(batch.batch).or_insert(running.expected + 10 * MS);
        }
        let over = |batch: &Batch, now: Nanos| ends.get(&batch.batch).is_some_and(|end| *end <= now);
        while world.nodes[1 - home].batches.front().is_some_and(|batch| over(batch, world.now)) {
            world.finish(1 - home, Fate::Ok);
        }
    }
}

#[test]
fn a_node_that_is_taken_back_while_a_second_copy_waits_for_memory_keeps_what_may_be() {
    let several = ModelPolicy { min_replicas: 1, max_replicas: Some(2), ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 60, several), model("x", 60, ModelPolicy::default())], &[]);
    world.prompt = false;
    world.add(&[100, 100], 0.0);
    world.settle_loads();
    let m = world.core.index("m").unwrap();
    (0..300).for_each(|_| _ = world.ask(0));
    for _ in 0..40 {
        world.pass(5 * MS);
    }
    let copies: Vec<bool> = world.core.models[m].replicas.iter().map(|id| world.core.replicas[*id].sent).collect();
    assert_eq!(copies, [true, false], "the second waits for x to leave");
    world.add(&[100], 0.0);
    cordon(&mut world, 0, Cordon::Draining);
    cordon(&mut world, 0, Cordon::No);
    assert!(world.core.models[m].replicas.len() <= 2);
}

#[test]
fn a_node_that_is_cordoned_after_it_was_drained_keeps_no_more_copies_than_there_may_be() {
    let mut world = World::new(vec![limited("m", 1)], &[&[100], &[100]]);
    let home = home(&world);
    for state in [Cordon::Draining, Cordon::Cordoned] {
        cordon(&mut world, home, state);
        (0..100).for_each(|_| world.pass(25 * MS));
    }
    assert_eq!(world.core.models[world.core.index("m").unwrap()].replicas.len(), 1);
}

#[test]
fn a_drained_holder_takes_no_share_of_what_may_wait() {
    let accepted = |drained: bool| {
        let kept = ModelPolicy { min_replicas: 1 + u32::from(drained), ..ModelPolicy::default() };
        let mut world = World::new(vec![model("m", 60, kept)], &[]);
        world.curves[0] = ServiceCurve { base_seconds: 0.1, per_row_seconds: 0.0 };
        (0..=usize::from(drained)).for_each(|_| _ = world.add(&[100], 0.0));
        if drained {
            cordon(&mut world, 0, Cordon::Draining);
        }
        (0..10_000).take_while(|_| world.submit(Ask::of(0)).is_ok()).count()
    };
    assert_eq!(accepted(true), accepted(false));
}

#[test]
fn what_may_wait_for_a_model_is_no_more_while_it_moves() {
    let accepted = |drained: bool| {
        let policy = ModelPolicy { max_queue: Duration::from_secs(5), max_replicas: Some(1), ..ModelPolicy::default() };
        let mut world = World::new(vec![model("m", 60, policy)], &[]);
        world.curves[0] = ServiceCurve { base_seconds: 0.1, per_row_seconds: 0.0 };
        world.load_seconds = 60.0;
        world.add(&[100], 0.0);
        world.prompt = false;
        world.add(&[100], 0.0);
        if drained {
            cordon(&mut world, 0, Cordon::Draining);
        }
        (0..10_000).take_while(|_| world.submit(Ask::of(0)).is_ok()).count()
    };
    let (kept, moved) = (accepted(false), accepted(true));
    assert!(moved <= kept + kept / 10, "{moved}, without a move {kept}");
}
