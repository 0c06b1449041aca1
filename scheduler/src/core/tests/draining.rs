//! Nodes that are emptied, and what becomes of what they held.

use orion_proto::ModelPolicy;

use super::{
    world::{Ask, Fate, Told, World, model},
    *,
};

fn models(count: usize, bytes: u64) -> Vec<ModelSpec> {
    (0..count).map(|at| model(&format!("m{at}"), bytes, ModelPolicy::default())).collect()
}

fn drain(world: &mut World, at: usize) {
    world.core.cordon(world.now, &format!("w{at}"), Cordon::Draining).unwrap();
    world.collect();
}

/// The node is drained, or its worker leaves.
fn empty(world: &mut World, at: usize, leaves: bool) {
    match leaves {
        false => drain(world, at),
        true => world.core.worker_drains(world.now, world.nodes[at].session),
    }
    world.collect();
}

/// Loads and unloads are answered one by one while time passes.
fn settle(world: &mut World) {
    for _ in 0..100 {
        for at in 0..world.nodes.len() {
            world.unloaded(at);
            world.loaded(at, true);
        }
        world.pass(25 * MS);
    }
}

#[test]
fn all_that_a_drained_node_held_is_moved_one_after_the_other() {
    for leaves in [false, true] {
        let mut world = World::new(models(20, 5), &[&[100]]);
        assert_eq!(world.held(0, 0), 100);
        world.prompt = false;
        world.add(&[100], 0.0);
        empty(&mut world, 0, leaves);
        settle(&mut world);
        assert_eq!(world.held(1, 0), 100, "leaves: {leaves}");
    }
}

#[test]
fn what_only_a_drained_node_can_run_is_run_there() {
    for bound in ["", "round-robin"] {
        let policy = ModelPolicy { balancer: bound.into(), ..ModelPolicy::default() };
        let mut world = World::new(vec![model("m", 5, policy)], &[&[100]]);
        let tickets: Vec<u64> = (0..30).map(|_| world.ask(0)).collect();
        drain(&mut world, 0);
        let refused = world.submit(Ask::of(0)).unwrap_err();
        assert_eq!(refused.code, Code::Unavailable);
        assert!(refused.message.contains("worker 'w0': ") && refused.message.contains("draining"), "{refused}");
        assert_eq!(world.core.cordon_name(0), "draining");
        while world.finish(0, Fate::Ok).is_some() {
            world.pass(MS);
        }
        assert!(tickets.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))), "{bound}");
        assert_eq!(world.core.cordon_name(0), "drained");
    }
}

#[test]
fn a_model_is_served_where_it_was_until_it_is_there_where_it_goes() {
    for (leaves, balancer) in [(false, ""), (true, ""), (false, "round-robin")] {
        let policy = ModelPolicy { balancer: balancer.into(), ..ModelPolicy::default() };
        let mut world = World::new(vec![model("m", 5, policy)], &[&[100]]);
        world.prompt = false;
        world.add(&[100], 0.0);
        empty(&mut world, 0, leaves);
        let released = |world: &World| world.told.iter().any(|told| matches!(told, Told::Other("leave to go")));
        for _ in 0..40 {
            let ticket = world.submit(Ask { deadline: Some(50 * MS), ..Ask::of(0) }).unwrap();
            world.pass(5 * MS);
            assert!(world.finish(0, Fate::Ok).is_some() && world.nodes[1].batches.is_empty());
            assert_eq!(world.outcome(ticket), Some(Ok(())), "leaves: {leaves}, {balancer}");
            assert_eq!((world.core.cordon_name(0) == "drained", released(&world)), (false, false));
            assert_eq!(world.core.model_state(world.core.index("m").unwrap()), ModelState::Ready);
        }
        let waits = world.ask(0);
        let last = world.ask(0);
        assert!(world.loaded(1, true));
        world.finish(0, Fate::Ok);
        world.pass(25 * MS);
        while world.finish(1, Fate::Ok).is_some() {}
        assert!([waits, last].iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))));
        world.pass(25 * MS);
        assert_eq!((world.core.cordon_name(0) == "drained", released(&world)), (!leaves, leaves));
        world.ask(0);
        assert!(world.nodes[0].batches.is_empty() && world.finish(1, Fate::Ok).is_some());
    }
}

#[test]
fn what_was_bound_to_a_drained_node_goes_where_its_model_is_served_again() {
    let policy = ModelPolicy { balancer: "round-robin".into(), min_replicas: 2, ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 5, policy)], &[&[100], &[100]]);
    drain(&mut world, 0);
    drain(&mut world, 1);
    let tickets: Vec<u64> = (0..40).filter_map(|_| world.submit(Ask::of(0)).ok()).collect();
    world.core.cordon(world.now, "w1", Cordon::No).unwrap();
    world.collect();
    for _ in 0..60 {
        world.pass(25 * MS);
        (0..2).for_each(|at| _ = world.finish(at, Fate::Ok));
    }
    assert!(tickets.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))));
}

#[test]
fn a_node_is_not_drained_while_it_loads_what_requests_wait_for() {
    let mut world = World::new(vec![model("m", 80, ModelPolicy::default())], &[]);
    world.prompt = false;
    world.add(&[100], 0.0);
    let waits = world.ask(0);
    drain(&mut world, 0);
    assert_eq!(world.core.cordon_name(0), "draining");
    assert!(world.loaded(0, true));
    world.finish(0, Fate::Ok);
    assert_eq!((world.outcome(waits), world.core.cordon_name(0)), (Some(Ok(())), "drained"));
}

#[test]
fn a_load_that_fails_once_takes_nobody_s_service() {
    let mut world = World::new(vec![model("m", 5, ModelPolicy::default())], &[&[100]]);
    world.prompt = false;
    world.add(&[100], 0.0);
    drain(&mut world, 0);
    assert!(world.loaded(1, false));
    for _ in 0..200 {
        let ticket = world.ask(0);
        (0..2).for_each(|at| _ = world.finish(at, Fate::Ok));
        assert_eq!(world.outcome(ticket), Some(Ok(())));
        world.pass(25 * MS);
        let moved = world.loaded(1, true);
        assert!(moved || world.core.cordon_name(0) != "drained" || !world.nodes[1].residents.is_empty());
    }
    assert_eq!(world.core.cordon_name(0), "drained");
}

#[test]
fn a_model_is_moved_to_a_node_that_is_never_idle() {
    let specs = vec![model("a", 60, ModelPolicy::default()), model("b", 60, ModelPolicy::default())];
    let mut world = World::new(specs, &[&[100], &[100]]);
    let home = (0..2).find(|at| world.nodes[*at].residents.contains_key(&(0, 0))).unwrap();
    (0..3).for_each(|_| _ = world.ask(1));
    drain(&mut world, home);
    for _ in 0..100 {
        world.pass(5 * MS);
        world.ask(1);
        world.finish(1 - home, Fate::Ok);
    }
    assert_eq!(world.core.cordon_name(home), "drained");
    assert!(world.loads > 2, "it was moved");
}

#[test]
fn what_another_node_can_take_is_not_run_on_a_drained_one() {
    let specs = vec![model("a", 60, ModelPolicy::default()), model("b", 60, ModelPolicy::default())];
    let mut world = World::new(specs, &[&[130]]);
    assert_eq!(world.held(0, 0), 120);
    world.add(&[100], 0.0);
    drain(&mut world, 0);
    settle(&mut world);
    for ticket in [world.ask(0), world.ask(1)] {
        settle(&mut world);
        assert!(world.nodes[0].batches.is_empty());
        while world.finish(1, Fate::Ok).is_some() {}
        settle(&mut world);
        while world.finish(1, Fate::Ok).is_some() {}
        assert_eq!(world.outcome(ticket), Some(Ok(())));
    }
}

#[test]
fn models_that_do_not_all_fit_do_not_push_each_other_out_without_end() {
    let mut world = World::new(models(20, 5), &[&[100]]);
    world.prompt = false;
    world.add(&[50], 0.0);
    drain(&mut world, 0);
    settle(&mut world);
    let loads = world.loads;
    assert!(loads <= 40, "{loads} loads of 20 models");
    settle(&mut world);
    assert_eq!((world.loads, world.held(1, 0)), (loads, 50));
}

#[test]
fn a_copy_on_a_drained_node_is_none_of_those_that_are_kept() {
    let kept = ModelPolicy { min_replicas: 1, ..ModelPolicy::default() };
    let specs = vec![model("kept", 60, kept), model("b", 60, ModelPolicy::default())];
    let mut world = World::new(specs, &[&[100], &[100]]);
    let home = (0..2).find(|at| world.nodes[*at].residents.contains_key(&(0, 0))).unwrap();
    world.ask(1);
    assert!(world.finish(1 - home, Fate::Ok).is_some());
    world.prompt = false;
    drain(&mut world, home);
    assert!(world.unloaded(1 - home), "the other makes room for it");
    assert!(world.loaded(1 - home, false));
    world.pass(1_500 * MS);
    assert!(world.loaded(1 - home, true), "it is tried again");
    let refused = world.submit(Ask::of(1)).unwrap_err();
    assert!(refused.message.contains("pinned or kept"), "{refused}");
    world.ask(0);
    assert!(world.finish(1 - home, Fate::Ok).is_some());
}

#[test]
fn a_node_that_is_taken_back_owes_nobody_a_move() {
    let mut world = World::new(models(2, 60), &[&[200], &[100]]);
    world.prompt = false;
    let home = |world: &World, model: usize| (0..2).find(|at| world.nodes[*at].residents.contains_key(&(model, 0)));
    let here = (0..2).find(|model| home(&world, *model) == Some(0)).unwrap();
    world.core.cordon(world.now, "w1", Cordon::Cordoned).unwrap();
    drain(&mut world, 0);
    assert!(world.core.models[world.core.index(&format!("m{here}")).unwrap()].demanded);
    world.core.cordon(world.now, "w0", Cordon::No).unwrap();
    world.collect();
    assert!(world.core.models.iter().all(|model| !model.demanded));
}

#[test]
fn a_worker_that_leaves_a_scheduler_that_stops_finishes_what_was_accepted() {
    let mut world = World::new(models(1, 1), &[&[100]]);
    let tickets: Vec<u64> = (0..20).map(|_| world.ask(0)).collect();
    world.core.drain();
    empty(&mut world, 0, true);
    let released = |world: &World| world.told.contains(&Told::Other("leave to go"));
    while world.finish(0, Fate::Ok).is_some() {
        assert_eq!(released(&world), world.core.unsettled() == 0);
    }
    assert!(tickets.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))));
}

#[test]
fn a_model_whose_only_worker_leaves_is_not_ready_and_says_why() {
    let mut world = World::new(models(1, 1), &[&[100]]);
    world.ask(0);
    empty(&mut world, 0, true);
    let refused = world.submit(Ask::of(0)).unwrap_err();
    assert!(refused.message.contains("worker 'w0'") && refused.message.contains("draining"), "{refused}");
    assert!(!world.core.model_state(world.core.index("m0").unwrap()).answers());
}
