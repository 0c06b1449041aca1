//! Generations go on only on devices of the kind that they were begun on.

use orion_proto::{Error, GeneratorSpec, ModelPolicy};

use super::{
    prefixes::{PLACES, ask, begins, ends, words},
    world::{Told, World, model, ticket},
    *,
};

/// A generator on a device of each of these kinds.
pub(super) fn on(kinds: &[&'static str]) -> World {
    let policy = ModelPolicy { min_replicas: kinds.len() as u32, ..ModelPolicy::default() };
    let generator = GeneratorSpec { context_tokens: 8192, max_sequences: PLACES, cache_tokens: 0, chat: true };
    let mut world = World::new(vec![ModelSpec { generator: Some(generator), ..model("m", 1, policy) }], &[]);
    world.curves[0] = ServiceCurve { base_seconds: 0.8, per_row_seconds: 0.0 };
    for kind in kinds {
        world.next_kind = kind;
        world.add(&[100], 0.0);
    }
    world
}

/// The worker that runs a request.
pub(super) fn place(world: &World, of: u64) -> Option<usize> {
    (0..world.nodes.len()).find(|at| world.nodes[*at].batches.iter().any(|batch| ticket(&batch.attempts[0]) == of))
}

/// Another worker with a device of the kind that one has.
fn another(world: &mut World, at: usize) -> usize {
    world.next_kind = world.nodes[at].kind;
    world.add(&[100], 0.0)
}

fn begun(world: &mut World) -> (u64, usize) {
    let long = ask(world, &words(1, 8));
    begins(world, long, 0.0);
    (long, place(world, long).unwrap())
}

#[test]
fn one_that_failed_once_goes_on_there_where_all_others_are_of_another_kind() {
    let mut world = on(&["cuda", "cpu"]);
    let (long, at) = begun(&mut world);
    let batch = world.nodes[at].batches.pop_front().unwrap();
    let failed = answer(&batch, || Err(Error::new(Code::Unavailable, "the device failed")));
    world.core.result(world.now, world.nodes[at].session, failed);
    world.collect();
    assert_eq!(place(&world, long), Some(at));
}

#[test]
fn one_is_left_to_a_silent_worker_where_all_others_are_of_another_kind_and_answered_when_that_is_lost() {
    let mut world = on(&["cuda", "cpu"]);
    let (long, at) = begun(&mut world);
    world.core.suspect(world.now, world.nodes[at].session, "silent", 750 * MS, true);
    world.collect();
    assert!(!world.told.contains(&Told::Other("a cancellation")));
    world.pass(700 * MS);
    assert_eq!(world.outcome(long), None);
    world.pass(100 * MS);
    assert_eq!(world.outcome(long), Some(Err(Code::Unavailable)));
}

#[test]
fn one_that_no_copy_can_go_on_with_gets_a_copy_on_a_device_of_its_kind() {
    let mut world = on(&["cuda", "cpu"]);
    let (long, at) = begun(&mut world);
    let other = another(&mut world, at);
    world.core.suspect(world.now, world.nodes[at].session, "silent", 100 * MS, true);
    world.collect();
    (0..20).for_each(|_| world.pass(25 * MS));
    assert_eq!(world.ran.last().map(|(at, _, tickets)| (*at, tickets.clone())), Some((other, vec![long])));
}

#[test]
fn one_that_waits_is_answered_when_the_last_device_of_its_kind_is_gone() {
    let mut world = on(&["cuda", "cpu"]);
    let (long, at) = begun(&mut world);
    world.prompt = false;
    let other = another(&mut world, at);
    for lost in [at, other] {
        assert_eq!(world.outcome(long), None);
        world.core.suspect(world.now, world.nodes[lost].session, "silent", 100 * MS, true);
        (0..20).for_each(|_| world.pass(25 * MS));
    }
    assert_eq!(world.outcome(long), Some(Err(Code::Unavailable)));
}

#[test]
fn a_long_prompt_is_read_for_as_long_as_was_predicted() {
    let mut world = on(&["cpu", "cpu"]);
    for id in world.core.models[world.core.index("m").unwrap()].replicas.clone() {
        // 50 ms a token.
        world.core.replicas[id].prompts.time.add(5e7 * 1000.0, 1000.0);
    }
    ask(&mut world, &words(1, 2000));
    let pass = |world: &mut World, seconds: usize| (0..seconds * 40).for_each(|_| world.pass(25 * MS));
    pass(&mut world, 120);
    assert_eq!(world.core.totals().retried, 0, "100 s are predicted");
    pass(&mut world, 180);
    assert_eq!(world.core.totals().retried, 1, "now it stands still");
}

#[test]
fn one_that_stands_still_gets_a_copy_on_another_device_of_its_kind() {
    let mut world = on(&["cuda", "cpu"]);
    let (long, at) = begun(&mut world);
    let other = another(&mut world, at);
    (0..1_000).for_each(|_| world.pass(100 * MS));
    assert_eq!(world.ran.last().map(|(at, _, tickets)| (*at, tickets.clone())), Some((other, vec![long])));
}

#[test]
fn one_whose_model_may_have_one_copy_gets_that_on_its_kind() {
    let mut world = on(&["cuda"]);
    world.specs[0] = Arc::new(ModelSpec {
        policy: ModelPolicy { max_replicas: Some(1), ..ModelPolicy::default() },
        ..ModelSpec::clone(&world.specs[0])
    });
    let (long, _) = begun(&mut world);
    for kind in ["cpu", "cuda"] {
        world.next_kind = kind;
        world.add(&[100], 0.0);
    }
    world.core.suspect(world.now, world.nodes[0].session, "silent", 100 * MS, true);
    world.collect();
    (0..50).for_each(|_| world.pass(100 * MS));
    assert_eq!(world.ran.last().map(|(at, _, tickets)| (*at, tickets.clone())), Some((2, vec![long])));
}

#[test]
fn one_is_answered_where_copies_and_devices_of_its_kind_are_to_be_emptied() {
    for held in [true, false] {
        let mut world = if held { on(&["cuda", "cuda", "cpu"]) } else { on(&["cuda", "cpu"]) };
        let (long, at) = begun(&mut world);
        let other = match held {
            true => (0..3).find(|other| *other != at && world.nodes[*other].kind == world.nodes[at].kind),
            false => Some(another(&mut world, at)),
        };
        let Some(other) = other else { continue };
        world.core.cordon(world.now, &format!("w{other}"), Cordon::Draining).unwrap();
        world.core.suspect(world.now, world.nodes[at].session, "silent", 100 * MS, true);
        world.collect();
        (0..100).for_each(|_| world.pass(25 * MS));
        assert_eq!(world.outcome(long), Some(Err(Code::Unavailable)), "held: {held}");
    }
}

#[test]
fn the_last_of_several_long_prompts_does_not_stand_still() {
    let mut world = on(&["cpu", "cpu"]);
    for id in world.core.models[world.core.index("m").unwrap()].replicas.clone() {
        // 50 ms a token: each prompt takes 50 s, four of them on each worker.
        world.core.replicas[id].prompts.time.add(5e7 * 1000.0, 1000.0);
    }
    (0..8).for_each(|number| _ = ask(&mut world, &words(number, 1000)));
    for done in 0..4 {
        (0..500).for_each(|_| world.pass(100 * MS));
        assert_eq!(world.core.totals().retried, 0, "at {} s of 200 s that are predicted", 50 * (done + 1));
        for at in 0..2 {
            let first = ticket(&world.nodes[at].batches[0].attempts[0]);
            begins(&mut world, first, 1.0);
            ends(&mut world, first);
        }
    }
}

#[test]
fn one_that_finds_no_room_on_its_kind_is_answered_when_it_has_waited_as_long_as_any_may() {
    let mut world = on(&["cuda", "cpu"]);
    let (long, at) = begun(&mut world);
    // The only other device of its kind is never idle, and full.
    world.specs.push(Arc::new(model("b", 100, ModelPolicy::default())));
    world.curves.push(world.curves[0]);
    world.peaks.push(0);
    world.core.want(world.now, &world.specs[1].name, "/b".into(), false);
    let other = another(&mut world, at);
    (0..8).for_each(|_| world.pass(25 * MS));
    world.core.suspect(world.now, world.nodes[at].session, "silent", 100 * MS, true);
    world.collect();
    let mut waited = 0;
    while world.outcome(long).is_none() {
        assert!(waited < 60_000, "it waits for a minute");
        while world.core.unsettled() < 4 {
            world.ask(1);
        }
        world.pass(25 * MS);
        world.finish(other, world::Fate::Ok);
        waited += 25;
    }
    assert_eq!(world.outcome(long), Some(Err(Code::Unavailable)));
    assert!(waited > 29_000, "{waited} ms");
}
