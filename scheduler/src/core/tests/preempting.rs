//! Generations that take places from less urgent ones, and what becomes of those.

use orion_net::AttemptDelta;
use orion_proto::{Delta, Error, Parameters, Priority};

use proptest::prelude::*;

use super::{
    prefixes::{PLACES, ask_with, begins, ends, ends_after, words},
    resuming::{on, place},
    world::{World, ticket},
    *,
};
use crate::core::tenants::PRIORITIES;

const PLACES_OF_ONE: usize = PLACES as usize;

fn with(world: &mut World, number: usize, priority: Priority) -> u64 {
    ask_with(world, &words(number, 8), Parameters { priority, ..Parameters::default() }).unwrap()
}

/// Seconds that a generation is predicted to take on a worker's replica.
fn predicted(world: &World, replica: usize) -> f64 {
    let id = world.core.models[world.core.index("m").unwrap()].replicas[replica];
    world.core.replicas[id].line(0).predict(1) as f64 / 1e9
}

/// One more step of one that runs at a worker.
fn says(world: &mut World, at: usize, of: u64) {
    let batch = world.nodes[at].batches.iter().find(|batch| ticket(&batch.attempts[0]) == of).unwrap();
    let position = world.core.request(world.sent[&of].key.unwrap()).unwrap().generated.as_ref().unwrap().sent() as u32;
    let delta = Delta { position, tokens: vec![1], prompt_tokens: 8, ..Delta::default() };
    let deltas = vec![AttemptDelta { batch: batch.batch, attempt: batch.attempts[0].attempt, delta }];
    let epoch = batch.epoch;
    world.core.deltas(world.now, world.nodes[at].session, epoch, deltas);
    world.collect();
}

#[test]
fn what_was_preempted_teaches_nothing_when_those_that_took_its_place_have_ended_before() {
    let mut world = on(&["cpu"]);
    let low: Vec<u64> = (0..PLACES_OF_ONE).map(|number| with(&mut world, number, Priority::Low)).collect();
    low.iter().for_each(|ticket| begins(&mut world, *ticket, 0.0));
    let before = predicted(&world, 0);
    let urgent: Vec<u64> = (0..PLACES_OF_ONE).map(|number| with(&mut world, 50 + number, Priority::High)).collect();
    urgent.iter().for_each(|ticket| begins(&mut world, *ticket, 0.0));
    (0..500).for_each(|_| world.pass(100 * MS));
    urgent.iter().for_each(|ticket| ends(&mut world, *ticket));
    low.iter().for_each(|ticket| ends_after(&mut world, *ticket, 51.0));
    let after = predicted(&world, 0);
    assert!((after / before - 1.0).abs() < 0.1, "{before} s were predicted, now {after} s");
}

#[test]
fn what_was_preempted_before_its_first_step_teaches_nothing_of_prompts() {
    let mut world = on(&["cpu"]);
    let long = |world: &mut World, number: usize, priority: Priority| {
        ask_with(world, &words(number, 200), Parameters { priority, ..Parameters::default() }).unwrap()
    };
    let first = long(&mut world, 90, Priority::Normal);
    begins(&mut world, first, 0.0);
    ends(&mut world, first);
    let id = world.core.models[world.core.index("m").unwrap()].replicas[0];
    let before = world.core.prompt_token_time(&world.core.replicas[id]);
    let low: Vec<u64> = (0..PLACES_OF_ONE).map(|number| long(&mut world, number, Priority::Low)).collect();
    let urgent: Vec<u64> = (0..PLACES_OF_ONE).map(|number| with(&mut world, 50 + number, Priority::High)).collect();
    urgent.iter().for_each(|ticket| begins(&mut world, *ticket, 0.0));
    (0..500).for_each(|_| world.pass(100 * MS));
    urgent.iter().for_each(|ticket| ends(&mut world, *ticket));
    low.iter().for_each(|ticket| begins(&mut world, *ticket, 0.0));
    let after = world.core.prompt_token_time(&world.core.replicas[id]);
    assert!(after < 2.0 * before, "{before} ns a token were predicted, now {after} ns");
}

#[test]
fn a_replica_that_says_nothing_stands_still_however_many_urgent_ones_it_is_given() {
    let mut world = on(&["cpu"]);
    (0..PLACES_OF_ONE).for_each(|number| _ = with(&mut world, number, Priority::Low));
    let id = world.core.models[world.core.index("m").unwrap()].replicas[0];
    // It may get a copy; there is no place for its requests before.
    world.prompt = false;
    world.add(&[100], 0.0);
    for number in 0..3 {
        (0..500).for_each(|_| world.pass(100 * MS));
        with(&mut world, 50 + number, Priority::High);
    }
    let copies = world.core.models[world.core.index("m").unwrap()].replicas.len();
    assert!(world.core.is_stalled(id) || copies > 1, "for 150 s it has said nothing");
}

#[test]
fn what_waits_for_room_in_the_cache_does_not_stand_still_while_others_of_its_replica_speak() {
    let mut world = on(&["cpu", "cpu"]);
    let tickets: Vec<u64> = (0..2).map(|number| with(&mut world, number, Priority::Normal)).collect();
    let together: Vec<u64> = (2..20).map(|number| with(&mut world, number, Priority::Normal)).collect();
    let here: Vec<u64> = world.nodes[0].batches.iter().map(|batch| ticket(&batch.attempts[0])).collect();
    assert!(here.len() == PLACES_OF_ONE && tickets.len() + together.len() > PLACES_OF_ONE);
    // The cache has room for the first.
    for _ in 0..20 {
        (0..50).for_each(|_| world.pass(100 * MS));
        for at in 0..2 {
            let first = ticket(&world.nodes[at].batches[0].attempts[0]);
            says(&mut world, at, first);
        }
    }
    assert_eq!(world.core.totals().retried, 0, "nothing stands still");
    assert!(here.iter().all(|ticket| place(&world, *ticket).is_some()));
}

/// Fails the batch of a request at its worker, so that it is tried again.
fn fails(world: &mut World, at: usize, of: u64) {
    let found = world.nodes[at].batches.iter().position(|batch| ticket(&batch.attempts[0]) == of).unwrap();
    let batch = world.nodes[at].batches.remove(found).unwrap();
    let failed = answer(&batch, || Err(Error::new(Code::Unavailable, "the device failed")));
    world.core.result(world.now, world.nodes[at].session, failed);
    world.collect();
}

#[test]
fn one_that_was_begun_preempts_on_its_kind_though_another_kind_has_a_place() {
    let mut world = on(&["cuda", "cuda", "cpu"]);
    let urgent = with(&mut world, 99, Priority::High);
    begins(&mut world, urgent, 0.0);
    let home = place(&world, urgent).unwrap();
    assert_eq!(world.nodes[home].kind, "cuda");
    let low: Vec<u64> = (0..3 * PLACES_OF_ONE - 1).map(|number| with(&mut world, number, Priority::Low)).collect();
    // Places are free where it cannot go on, more than others take that were lost with it.
    let elsewhere: Vec<u64> = low.iter().copied().filter(|ticket| place(&world, *ticket) == Some(2)).collect();
    for ticket in elsewhere {
        begins(&mut world, ticket, 0.0);
        ends(&mut world, ticket);
    }
    world.core.suspect(world.now, world.nodes[home].session, "silent", 100 * MS, false);
    world.collect();
    assert_eq!(world.ran.iter().rfind(|(_, _, tickets)| *tickets == [urgent]).map(|ran| ran.0), Some(1 - home));
}

#[test]
fn those_that_find_no_place_of_their_kind_keep_none_of_another_kind_from_preempting() {
    let mut world = on(&["cuda", "cuda", "cpu", "cpu"]);
    let urgent: Vec<u64> = (0..4 * PLACES_OF_ONE).map(|number| with(&mut world, number, Priority::High)).collect();
    urgent.iter().for_each(|ticket| begins(&mut world, *ticket, 0.0));
    let of = |at: usize| urgent.iter().copied().filter(|ticket| place(&world, *ticket) == Some(at)).collect::<Vec<_>>();
    let (third, fourth) = (of(2), of(3));
    third[1..].iter().chain(&fourth).for_each(|ticket| ends(&mut world, *ticket));
    (0..2 * PLACES_OF_ONE - 1).for_each(|number| _ = with(&mut world, 100 + number, Priority::Low));
    assert!(world.nodes.iter().all(|node| node.batches.len() == PLACES_OF_ONE));
    for lost in [0, 2] {
        world.core.suspect(world.now, world.nodes[lost].session, "silent", 100 * MS, false);
        world.collect();
    }
    assert_eq!(world.ran.iter().rfind(|(_, _, tickets)| *tickets == [third[0]]).map(|ran| ran.0), Some(3));
}

/// One step of a random history of generations.
#[derive(Clone, Debug)]
enum Step {
    Ask(u8),
    Says(usize, usize),
    Ends(usize, usize),
    Fails(usize, usize),
    Cancel(usize),
    /// A worker is silent for so many milliseconds.
    Silence(usize, u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let which = || (0usize..3, 0usize..40);
    prop_oneof![
        12 => (0u8..5).prop_map(Step::Ask),
        8 => which().prop_map(|(at, nth)| Step::Says(at, nth)),
        8 => which().prop_map(|(at, nth)| Step::Ends(at, nth)),
        1 => which().prop_map(|(at, nth)| Step::Fails(at, nth)),
        2 => (0usize..40).prop_map(Step::Cancel),
        1 => (0usize..3, 1u64..150).prop_map(|(at, ms)| Step::Silence(at, ms)),
        3 => prop_oneof![1u64..100, 30_000u64..70_000].prop_map(Step::Wait),
    ]
}

/// The batches of a worker that it would still speak of.
fn wanted(world: &World, at: usize) -> Vec<u64> {
    let there = world.nodes[at].batches.iter().filter(|batch| {
        let running = world.core.batches.get(&batch.batch);
        running.is_some_and(|running| running.attempts.iter().any(|(_, key)| world.core.request(*key).is_some()))
    });
    there.map(|batch| ticket(&batch.attempts[0])).collect()
}

fn apply(world: &mut World, step: Step) {
    // What was called off is gone from its worker, which says so.
    for at in 0..world.nodes.len() {
        let wanted = wanted(world, at);
        let (kept, gone) = std::mem::take(&mut world.nodes[at].batches)
            .into_iter()
            .partition::<std::collections::VecDeque<_>, _>(|batch| wanted.contains(&ticket(&batch.attempts[0])));
        world.nodes[at].batches = kept;
        for batch in gone {
            let told = answer(&batch, || Err(Error::new(Code::Cancelled, "nobody waits for it")));
            world.core.result(world.now, world.nodes[at].session, told);
            world.collect();
        }
    }
    let nth = |tickets: &[u64], nth: usize| (!tickets.is_empty()).then(|| tickets[nth % tickets.len()]);
    match step {
        Step::Ask(priority) => {
            use Priority::{Critical, High, Low, Normal, Realtime};
            let priority = [Realtime, Critical, High, Normal, Low][usize::from(priority)];
            let number = world.sent.len();
            ask_with(world, &words(number, 8), Parameters { priority, ..Parameters::default() });
        }
        Step::Says(at, number) => {
            if let Some(of) = nth(&wanted(world, at), number) {
                says(world, at, of);
            }
        }
        Step::Ends(at, number) => {
            if let Some(of) = nth(&wanted(world, at), number) {
                says_last(world, at, of);
            }
        }
        Step::Fails(at, number) => {
            if let Some(of) = nth(&wanted(world, at), number) {
                fails(world, at, of);
            }
        }
        Step::Cancel(number) => {
            let open = |(_, sent): &(&u64, &world::Sent)| sent.answers.is_empty() && !sent.cancelled;
            let open: Vec<u64> = world.sent.iter().filter(open).map(|(ticket, _)| *ticket).collect();
            if let Some(of) = nth(&open, number) {
                world.core.cancel(world.now, world.sent[&of].key.unwrap());
                world.sent.get_mut(&of).unwrap().cancelled = true;
                world.collect();
            }
        }
        Step::Silence(at, ms) => {
            world.core.suspect(world.now, world.nodes[at].session, "silent", 400 * MS, false);
            world.collect();
            world.pass(ms * MS);
            world.core.alive(world.now, world.nodes[at].session);
            world.collect();
        }
        Step::Wait(ms) => (0..ms.div_ceil(1_000)).for_each(|_| world.pass(ms.min(1_000) * MS)),
    }
    let most = PRIORITIES * PLACES_OF_ONE;
    assert!(world.core.replicas.iter().all(|(_, replica)| replica.running <= most), "more than each priority's places");
}

/// The last step of one that runs at a worker.
fn says_last(world: &mut World, at: usize, of: u64) {
    let found = world.nodes[at].batches.iter().position(|batch| ticket(&batch.attempts[0]) == of).unwrap();
    let batch = world.nodes[at].batches.remove(found).unwrap();
    let position = world.core.request(world.sent[&of].key.unwrap()).unwrap().generated.as_ref().unwrap().sent() as u32;
    let finish = Some(orion_proto::FinishReason::Stop);
    let last = Delta { position, tokens: vec![2], finish, prompt_tokens: 8, ..Delta::default() };
    let result = answer(&batch, || Ok(InferAnswer { delta: Some(last.clone()), ..InferAnswer::default() }));
    world.core.result(world.now, world.nodes[at].session, result);
    world.collect();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(64)))]

    #[test]
    fn each_generation_is_settled_once_whatever_preempts_and_fails(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = on(&["cpu", "cpu", "cuda"]);
        steps.into_iter().for_each(|step| apply(&mut world, step));
        for round in 0..3_000 {
            apply(&mut world, Step::Wait(10));
            (0..3).for_each(|at| apply(&mut world, Step::Ends(at, 0)));
            if world.core.unsettled() == 0 {
                break;
            }
            assert!(round < 2_999, "{} are never answered", world.core.unsettled());
        }
        let answered = world.sent.values().all(|sent| sent.cancelled || sent.answers.len() == 1);
        prop_assert!(answered);
    }
}
