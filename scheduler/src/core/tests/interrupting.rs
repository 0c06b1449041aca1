//! Generations that are interrupted for a turn: the device is not idle for that, and none is for a turn elsewhere.

use orion_net::AttemptDelta;
use orion_proto::{Delta, GeneratorSpec, ModelPolicy, Parameters, Priority};

use super::{
    prefixes::{PLACES, ask, ask_with, begins, words},
    world::{Ask, World, model},
    *,
};
use crate::core::{ageing::MOST_CREDIT, turn::Turn};

fn generator() -> ModelSpec {
    let generator = GeneratorSpec { context_tokens: 8192, max_sequences: PLACES, cache_tokens: 0, chat: true };
    ModelSpec { generator: Some(generator), ..model("m", 60, ModelPolicy::default()) }
}

fn world(others: Vec<ModelSpec>) -> (World, usize) {
    let mut world = World::new([vec![generator()], others].concat(), &[]);
    world.curves[0] = ServiceCurve { base_seconds: 0.08, per_row_seconds: 0.0 };
    world.load_seconds = 10.0;
    world.add(&[100], 0.0);
    let device = world.core.workers[0].devices[0];
    (world, device)
}

#[test]
fn the_device_goes_to_whom_it_was_cleared_for() {
    let (mut world, device) = world(vec![model("large", 95, ModelPolicy::default())]);
    let with = |priority| Parameters { priority, ..Parameters::default() };
    (0..8).for_each(|at| _ = ask_with(&mut world, &words(at, 8), with(Priority::Realtime)));
    world.core.devices[device].turn_credit = MOST_CREDIT as i64;
    let large = world.submit(Ask { parameters: with(Priority::Low), ..Ask::of(1) }).unwrap();
    let (mut idle, mut step) = (0, 0);
    while world.outcome(large).is_none() {
        assert!(step < 6_000, "not answered within 150 s");
        world.pass(25 * MS);
        if step % 2 == 0 {
            ask_with(&mut world, &words(8 + step, 8), with(Priority::Realtime));
        }
        step += 1;
        // Those that were called back end.
        let told: Vec<u64> = world.core.batches.keys().copied().collect();
        world.nodes[0].batches.retain(|batch| told.contains(&batch.batch));
        if world.nodes[0].batches.iter().any(|batch| &*batch.model == "large") {
            world.finish_of(0, 1);
        }
        let idles = world.core.batches.is_empty() && world.core.devices[device].loading.is_none();
        idle = if idles { idle + 1 } else { 0 };
        assert!(idle < 200, "with requests waiting the device idles for 5 s");
    }
}

#[test]
fn a_turn_that_is_over_keeps_a_generator_from_nothing_where_those_that_wait_are_for_other_devices() {
    let mut stuck = model("stuck", 95, ModelPolicy::default());
    stuck.policy.requirements.device_kinds = vec!["cuda".into()];
    let long = ModelSpec { name: ModelName::new("long").unwrap(), ..stuck.clone() };
    let (mut world, device) = world(vec![long, stuck]);
    let replica = world.core.models[world.core.index("m").unwrap()].replicas[0];
    world.core.devices[device].turn = Some(Turn { replica, stays: 0, ends: Some(world.now) });
    // The only device that it could go to loads another for long.
    (world.next_kind, world.prompt) = ("cuda", false);
    world.add(&[100], 0.0);
    let first = ask(&mut world, &words(0, 8));
    begins(&mut world, first, 0.0);
    world.ask(2);
    (0..40).for_each(|_| world.pass(25 * MS));
    assert!(!world.core.claims.is_empty());
    ask(&mut world, &words(1, 8));
    world.pass(25 * MS);
    assert_eq!(world.nodes[0].batches.len(), 2, "the next begins beside the first");
}

#[test]
fn generations_without_end_are_interrupted_for_a_move_that_nobody_waits_for() {
    let limited = |spec: ModelSpec| {
        let policy = ModelPolicy { max_replicas: Some(1), ..ModelPolicy::default() };
        ModelSpec { policy, ..spec }
    };
    let specs = vec![limited(generator()), limited(model("a", 60, ModelPolicy::default()))];
    let mut world = World::new(specs, &[&[100], &[100]]);
    world.curves[0] = ServiceCurve { base_seconds: 0.08, per_row_seconds: 0.0 };
    let at = (0..2).find(|at| world.nodes[*at].residents.contains_key(&(0, 0))).unwrap();
    let (long, home) = (ask(&mut world, &words(0, 8)), 1 - at);
    world.core.cordon(world.now, &format!("w{home}"), Cordon::Draining).unwrap();
    world.collect();
    let mut position = 0;
    for second in 0.. {
        if world.core.cordon_name(home) == "drained" {
            break;
        }
        assert!(second < 60, "the node is not drained within a minute");
        (0..10).for_each(|_| world.pass(100 * MS));
        // It goes on until it is called back.
        let told = |batch: &Batch| world.core.batches.contains_key(&batch.batch);
        let running = world.nodes[at].batches.iter().find(|batch| told(batch)).cloned();
        if let Some(batch) = running {
            let delta = Delta { position, tokens: vec![1], prompt_tokens: 8, ..Delta::default() };
            position += 1;
            let deltas = vec![AttemptDelta { batch: batch.batch, attempt: batch.attempts[0].attempt, delta }];
            world.core.deltas(world.now, world.nodes[at].session, batch.epoch, deltas);
            world.collect();
        }
    }
    assert_eq!(world.outcome(long), None);
}
