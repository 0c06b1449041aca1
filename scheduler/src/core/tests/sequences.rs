//! Sequences: their requests run in order, where the state is, or not at all.

use orion_proto::{Error, ModelPolicy, Parameters, Sequence};

use super::{
    world::{Ask, Fate, World, model},
    *,
};

const START: (bool, bool) = (true, false);
const ON: (bool, bool) = (false, false);
const END: (bool, bool) = (false, true);

fn on(workers: usize) -> World {
    let policy = ModelPolicy { min_replicas: workers as u32, sequences: true, ..ModelPolicy::default() };
    World::new(vec![model("m", 1, policy)], &vec![&[100][..]; workers])
}

fn ask(world: &mut World, key: u64, (start, end): (bool, bool)) -> Result<u64> {
    let sequence = Some(Sequence { key, start, end });
    let parameters = Parameters { sequence, idempotent: false, ..Parameters::default() };
    world.submit(Ask { parameters, ..Ask::of(0) })
}

/// Asks, and has it answered. Gives the worker.
fn answered(world: &mut World, key: u64, flags: (bool, bool)) -> usize {
    let ticket = ask(world, key, flags).unwrap();
    let at = world.ran.last().unwrap().0;
    world.finish(at, Fate::Ok);
    assert_eq!(world.outcome(ticket), Some(Ok(())));
    at
}

fn refused(world: &mut World, key: u64, flags: (bool, bool)) -> Error {
    ask(world, key, flags).unwrap_err()
}

#[test]
fn requests_of_a_sequence_run_one_by_one_where_it_began() {
    let mut world = on(3);
    let homes: Vec<usize> = (1..=3)
        .map(|key| {
            ask(&mut world, key, START).unwrap();
            world.ran.last().unwrap().0
        })
        .collect();
    (0..3).for_each(|at| drop(world.finish(at, Fate::Ok)));
    assert_eq!(homes.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "each idle device begins one");
    for round in 0..5 {
        for key in 1..=3 {
            assert_eq!(answered(&mut world, key, ON), homes[key as usize - 1], "round {round}");
        }
    }
    // Three that come at once, of another priority the last: one after the other.
    let first = ask(&mut world, 2, ON).unwrap();
    let second = ask(&mut world, 2, ON).unwrap();
    let sequence = Some(Sequence { key: 2, start: false, end: true });
    let priority = orion_proto::Priority::Realtime;
    let parameters = Parameters { sequence, priority, idempotent: false, ..Parameters::default() };
    let third = world.submit(Ask { parameters, ..Ask::of(0) }).unwrap();
    for ticket in [first, second, third] {
        assert_eq!(world.finish(homes[1], Fate::Ok), Some(vec![ticket]));
    }
    let over = refused(&mut world, 2, ON);
    assert!(over.code == Code::FailedPrecondition && over.message.contains("sequence_start"), "{over}");
    assert_eq!(refused(&mut world, 9, END).code, Code::FailedPrecondition);
}

#[test]
fn what_comes_after_the_end_must_begin_again() {
    let mut world = on(1);
    answered(&mut world, 5, START);
    let tickets: Vec<u64> = [END, ON, START, ON].iter().map(|flags| ask(&mut world, 5, *flags).unwrap()).collect();
    while world.finish(0, Fate::Ok).is_some() {}
    let outcomes: Vec<_> = tickets.iter().map(|ticket| world.outcome(*ticket).unwrap()).collect();
    assert_eq!(outcomes, [Ok(()), Err(Code::FailedPrecondition), Ok(()), Ok(())]);
}

#[test]
fn a_lost_state_is_told_and_a_silent_worker_is_waited_for() {
    let mut world = on(2);
    let home = answered(&mut world, 7, START);
    let session = world.nodes[home].session;
    world.core.suspect(world.now, session, "silent", 350 * MS, false);
    world.collect();
    let silent = refused(&mut world, 7, ON);
    assert!(silent.code == Code::Unavailable && silent.retry_after.is_some(), "{silent}");
    world.core.alive(world.now, session);
    world.collect();
    assert_eq!(answered(&mut world, 7, ON), home);
    // One runs and one waits when the worker is lost for good.
    let (runs, waits) = (ask(&mut world, 7, ON).unwrap(), ask(&mut world, 7, ON).unwrap());
    world.core.suspect(world.now, session, "silent", 350 * MS, true);
    world.collect();
    world.pass(400 * MS);
    assert_eq!(world.outcome(runs), Some(Err(Code::Unavailable)), "it may have run");
    assert_eq!(world.outcome(waits), Some(Err(Code::FailedPrecondition)));
    let lost = refused(&mut world, 7, ON);
    assert!(lost.code == Code::FailedPrecondition && lost.message.contains("lost"), "{lost}");
    assert_eq!(answered(&mut world, 7, START), 1 - home);
    assert_eq!(answered(&mut world, 7, ON), 1 - home);
}

#[test]
fn a_worker_that_drains_takes_its_states_with_it() {
    for cordoned in [true, false] {
        let mut world = on(2);
        let home = answered(&mut world, 7, START);
        match cordoned {
            true => drop(world.core.cordon(world.now, &format!("w{home}"), Cordon::Draining).unwrap()),
            false => world.core.worker_drains(world.now, world.nodes[home].session),
        }
        world.collect();
        let gone = refused(&mut world, 7, ON);
        assert!(gone.code == Code::FailedPrecondition && gone.message.contains("sequence_start"), "{gone}");
        assert_eq!(answered(&mut world, 7, START), 1 - home);
    }
}

#[test]
fn a_request_that_was_given_up_while_it_ran_breaks_its_sequence() {
    let mut world = on(1);
    answered(&mut world, 7, START);
    let (runs, waits) = (ask(&mut world, 7, ON).unwrap(), ask(&mut world, 7, ON).unwrap());
    // The one that waits leaves no trace.
    for (ticket, known) in [(waits, true), (runs, false)] {
        let key = world.sent[&ticket].key.unwrap();
        world.sent.get_mut(&ticket).unwrap().cancelled = true;
        world.core.cancel(world.now, key);
        world.collect();
        if known {
            ask(&mut world, 7, ON).unwrap();
        }
    }
    assert_eq!(world.sent.values().filter(|sent| sent.answers == [Err(Code::FailedPrecondition)]).count(), 1);
    while world.finish(0, Fate::Ok).is_some() {}
    assert_eq!(refused(&mut world, 7, ON).code, Code::FailedPrecondition);
    answered(&mut world, 7, START);
}

#[test]
fn a_request_that_its_model_refuses_leaves_the_state_as_it_is() {
    let mut world = on(1);
    answered(&mut world, 7, START);
    for (fate, code) in [(Fate::First, Code::InvalidArgument), (Fate::All(Code::Internal), Code::Internal)] {
        let ticket = ask(&mut world, 7, ON).unwrap();
        world.finish(0, fate);
        assert_eq!(world.outcome(ticket), Some(Err(code)));
        answered(&mut world, 7, ON);
    }
}

#[test]
fn sequences_are_forgotten_when_nobody_uses_them() {
    let mut world = on(1);
    answered(&mut world, 7, START);
    answered(&mut world, 8, START);
    world.pass(400_000 * MS);
    answered(&mut world, 8, ON);
    world.pass(400_000 * MS);
    assert_eq!(refused(&mut world, 7, ON).code, Code::FailedPrecondition);
    answered(&mut world, 8, ON);
    assert_eq!(world.core.models[1].sequences.held_by(world.core.models[1].replicas[0]), 1);
}

#[test]
fn models_without_states_take_sequences_as_any_request() {
    let mut world = World::new(vec![model("m", 1, ModelPolicy::default())], &[&[100]]);
    answered(&mut world, 7, ON);
    assert!(world.core.models[1].sequences.held_by(world.core.models[1].replicas[0]) == 0);
}

#[test]
fn of_a_sequence_the_last_makes_way() {
    let mut world = on(1);
    world.core.limits.requests = 6;
    let mut flood = vec![ask(&mut world, 1, START).unwrap()];
    flood.extend((1..6).map(|_| ask(&mut world, 1, ON).unwrap()));
    assert!(ask(&mut world, 1, ON).is_err());
    let sequence = Some(Sequence { key: 2, start: true, end: false });
    let priority = orion_proto::Priority::Realtime;
    let urgent = Parameters { sequence, priority, idempotent: false, ..Parameters::default() };
    let urgent = world.submit(Ask { parameters: urgent, ..Ask::of(0) }).unwrap();
    let refused: Vec<u64> = flood.iter().copied().filter(|ticket| world.outcome(*ticket).is_some()).collect();
    assert_eq!(refused, flood[5..]);
    // None makes way for what goes on from it.
    let sequence = Some(Sequence { key: 1, start: false, end: false });
    let next = Parameters { sequence, priority, idempotent: false, ..Parameters::default() };
    assert!(world.submit(Ask { parameters: next, ..Ask::of(0) }).is_err());
    while world.finish(0, Fate::Ok).is_some() {}
    assert_eq!(world.outcome(urgent), Some(Ok(())));
    assert!(flood[..5].iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))), "in order, without a gap");
}

#[test]
fn one_whose_turn_comes_after_its_model_was_unloaded_is_answered() {
    let mut world = on(1);
    let first = ask(&mut world, 5, (true, false)).unwrap();
    let second = ask(&mut world, 5, (true, false)).unwrap();
    world.core.unwant(world.now, "m").unwrap();
    world.collect();
    world.finish(0, Fate::Ok);
    assert_eq!((world.outcome(first), world.outcome(second)), (Some(Ok(())), Some(Err(Code::Unavailable))));
    assert!(world.core.homeless.is_empty(), "it keeps first copies of others from being made");
}

#[test]
fn a_node_that_is_drained_goes_on_with_what_waits_for_its_states() {
    let mut world = on(1);
    world.prompt = false;
    world.add(&[100], 0.0);
    answered(&mut world, 7, (true, false));
    // One of another sequence runs: this waits.
    ask(&mut world, 8, (true, false)).unwrap();
    let waits = ask(&mut world, 7, (false, false)).unwrap();
    world.core.cordon(world.now, "w0", Cordon::Draining).unwrap();
    world.collect();
    assert_eq!(world.outcome(waits), None);
    assert!(ask(&mut world, 8, (false, false)).is_ok());
    (0..2).for_each(|_| _ = world.finish(0, Fate::Ok));
    assert_eq!(world.outcome(waits), Some(Ok(())));
}
