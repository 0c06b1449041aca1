//! Generators whose room a model needs that is nowhere.

use orion_proto::{GeneratorSpec, ModelPolicy, Parameters, Priority};

use super::{
    prefixes::{PLACES, ask, ask_with, begins, ends, words},
    world::{Ask, Told, World, model, ticket},
    *,
};
use crate::core::turn::Turn;

/// A device with a generator, and a model that fits beside it and one that does not.
fn world() -> World {
    let generator = GeneratorSpec { context_tokens: 8192, max_sequences: PLACES, cache_tokens: 0, chat: true };
    let small = |name: &str, bytes| model(name, bytes, ModelPolicy::default());
    let specs = vec![ModelSpec { generator: Some(generator), ..small("m", 40) }, small("s", 20), small("large", 95)];
    let mut world = World::new(specs, &[]);
    world.curves[0] = ServiceCurve { base_seconds: 0.8, per_row_seconds: 0.0 };
    world.add(&[100], 0.0);
    world
}

#[test]
fn a_model_that_needs_the_room_waits_for_generations_and_not_for_new_ones() {
    let mut world = world();
    let running: Vec<u64> = (0..3).map(|at| ask(&mut world, &words(at, 8))).collect();
    let parameters = Parameters { priority: Priority::Realtime, ..Default::default() };
    let large = world.submit(Ask { parameters, ..Ask::of(2) }).unwrap();
    // Past its objective.
    (0..20).for_each(|_| world.pass(25 * MS));
    let small = world.ask(1);
    world.finish_of(0, 1);
    assert_eq!(world.outcome(small), Some(Ok(())), "what else is there runs");
    let new = ask(&mut world, &words(9, 8));
    assert!(!world.ran.iter().any(|(_, _, tickets)| tickets.contains(&new)), "it begins after the turn");
    for ticket in running {
        begins(&mut world, ticket, 0.0);
        ends(&mut world, ticket);
    }
    world.pass(25 * MS);
    world.finish_of(0, 2);
    assert_eq!(world.outcome(large), Some(Ok(())));
}

#[test]
fn a_generator_that_is_never_idle_leaves_its_room_for_a_turn() {
    let mut world = world();
    let mut open: Vec<u64> = (0..3).map(|at| ask(&mut world, &words(at, 8))).collect();
    let large = world.ask(2);
    for number in 3..300 {
        let runs = |ticket: &u64| world.ran.iter().any(|(_, _, tickets)| tickets.contains(ticket));
        match open.iter().position(runs) {
            Some(at) => {
                let ticket = open.remove(at);
                begins(&mut world, ticket, 0.0);
                ends(&mut world, ticket);
                open.push(ask(&mut world, &words(number, 8)));
            }
            None => world.pass(25 * MS),
        }
        if world.nodes[0].batches.iter().any(|batch| &*batch.model == "large") {
            world.finish_of(0, 2);
        }
    }
    assert_eq!(world.outcome(large), Some(Ok(())));
    assert!(open.len() == 3 && world.core.totals().succeeded > 200, "{:?}", world.core.totals());
}

#[test]
fn a_more_urgent_generation_takes_a_place_from_one_that_is_less_urgent() {
    let mut world = world();
    let with = |world: &mut World, number: usize, priority: Priority| {
        let parameters = Parameters { priority, ..Parameters::default() };
        ask_with(world, &words(number, 8), parameters).unwrap()
    };
    let runs = |world: &World, of: u64| world.ran.iter().any(|(_, _, tickets)| tickets.contains(&of));
    let places = PLACES as usize;
    let low: Vec<u64> = (0..places + 2).map(|number| with(&mut world, number, Priority::Low)).collect();
    assert_eq!(low.iter().filter(|ticket| runs(&world, **ticket)).count(), places, "equals wait");
    let urgent: Vec<u64> = (0..places + 1).map(|number| with(&mut world, 50 + number, Priority::High)).collect();
    assert_eq!(urgent.iter().filter(|ticket| runs(&world, **ticket)).count(), places, "as many as have a place there");
    let most = with(&mut world, 99, Priority::Realtime);
    assert!(runs(&world, most), "before those that take places");
    assert_eq!(low.iter().filter(|ticket| runs(&world, **ticket)).count(), places, "no place is free");
    // What is preempted says nothing for minutes, while others of its replica do.
    world.add(&[100], 0.0);
    world.pass(25 * MS);
    world.settle_loads();
    let running: Vec<u64> = urgent.iter().filter(|ticket| runs(&world, **ticket)).copied().collect();
    for ticket in &running {
        (0..400).for_each(|_| world.pass(100 * MS));
        begins(&mut world, *ticket, 0.0);
    }
    let tries = |of: &u64| world.ran.iter().filter(|(_, _, tickets)| tickets.contains(of)).count();
    let tries: Vec<usize> = low.iter().map(tries).collect();
    assert!(tries.iter().all(|tries| *tries <= 1), "nothing stands still: {tries:?}");
    for ticket in running {
        ends(&mut world, ticket);
    }
    assert!(runs(&world, urgent[places]), "the last of the urgent has its place now");
}

/// The batch that runs a request now, as its worker has it.
fn batch_of(world: &World, of: u64) -> Option<&Batch> {
    world.nodes[0].batches.iter().rev().find(|batch| ticket(&batch.attempts[0]) == of)
}

#[test]
fn generations_without_end_are_interrupted_for_a_turn_and_go_on_after_it() {
    let mut world = world();
    let long: Vec<u64> = (0..3).map(|at| ask(&mut world, &words(at, 8))).collect();
    long.iter().for_each(|ticket| begins(&mut world, *ticket, 0.0));
    let parameters = Parameters { priority: Priority::Realtime, ..Parameters::default() };
    let large = world.submit(Ask { parameters, ..Ask::of(2) }).unwrap();
    let asked = world.now;
    while !world.nodes[0].batches.iter().any(|batch| &*batch.model == "large") {
        assert!(world.now < asked + 45_000 * MS, "the turn has not begun");
        let small = world.ask(1);
        world.pass(25 * MS);
        if world.nodes[0].batches.iter().any(|batch| &*batch.model == "s") {
            world.finish_of(0, 1);
        }
        assert!(!matches!(world.outcome(small), Some(Err(_))));
    }
    let told = world.told.iter().filter(|told| matches!(told, Told::Other("a cancellation"))).count();
    assert_eq!(told, 3, "their worker is told");
    world.nodes[0].batches.retain(|batch| &*batch.model == "large");
    world.prompt = false;
    world.finish_of(0, 2);
    assert_eq!(world.outcome(large), Some(Ok(())));
    // Their model's turn begins when it is there, however long its load took, and is not that of one of them.
    let loads = |world: &World| world.nodes[0].residents.values().any(|held| held.state == ModelState::Loading);
    while !loads(&world) {
        assert!(world.now < asked + 60_000 * MS, "the generator does not come back");
        world.pass(25 * MS);
        while world.unloaded(0) {}
    }
    let device = world.core.workers[0].devices[0];
    let replica = world.core.devices[device].loading.unwrap();
    world.core.devices[device].turn = Some(Turn { replica, stays: 100 * MS, ends: None });
    let parameters = Parameters { priority: Priority::Low, ..Parameters::default() };
    world.submit(Ask { parameters, ..Ask::of(2) }).unwrap();
    (0..40).for_each(|_| world.pass(25 * MS));
    while loads(&world) {
        world.loaded(0, true);
    }
    assert!(long.iter().all(|ticket| batch_of(&world, *ticket).is_some()), "the generations do not go on");
    for ticket in long {
        let generation = batch_of(&world, ticket).unwrap().attempts[0].request.generation.clone().unwrap();
        assert_eq!(generation.resume, [1], "from what was sent");
        ends(&mut world, ticket);
    }
    let totals = world.core.totals();
    assert_eq!((totals.retried, totals.failed), (0, 0), "nothing has failed");
}

#[test]
fn a_generator_that_is_unloaded_while_a_device_is_claimed_is_no_more_of_the_claim() {
    let mut world = world();
    let long = ask(&mut world, &words(0, 8));
    begins(&mut world, long, 0.0);
    let parameters = Parameters { priority: Priority::Realtime, ..Parameters::default() };
    world.submit(Ask { parameters, ..Ask::of(2) }).unwrap();
    let device = world.core.workers[0].devices[0];
    while world.core.devices[device].claim.is_none() {
        world.pass(25 * MS);
    }
    // A batch keeps the device from being asked again.
    world.ask(1);
    world.core.unwant(world.now, "m").unwrap();
    ends(&mut world, long);
    assert!(world.core.devices[device].claim.as_ref().is_none_or(|claim| claim.generators.is_empty()));
    (0..2_000).for_each(|_| world.pass(25 * MS));
}
