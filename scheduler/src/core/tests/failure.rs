//! What fails is tried again where that may help, alone where it may be to blame, and never without end.

use orion_proto::{ModelPolicy, Parameters, Priority};

use super::{
    world::{Ask, Fate, World, model, ticket},
    *,
};

pub(super) fn on(workers: usize) -> World {
    let policy = ModelPolicy { min_replicas: workers as u32, ..ModelPolicy::default() };
    World::new(vec![model("m", 1, policy)], &vec![&[100][..]; workers])
}

/// Every batch is answered until none is left.
pub(super) fn drain(world: &mut World, fate: Fate) -> usize {
    let mut batches = 0;
    while let Some(at) = (0..world.nodes.len()).find(|at| !world.nodes[*at].batches.is_empty()) {
        world.finish(at, fate);
        batches += 1;
        assert!(batches < 1000, "it goes on for ever");
    }
    batches
}

#[test]
fn a_poisonous_request_fails_alone_after_few_batches() {
    let mut world = on(1);
    world.ask(0);
    let tickets: Vec<u64> = (0..8)
        .map(|nth| {
            let parameters = Parameters { routing_key: Some(if nth == 5 { 13 } else { 0 }), ..Parameters::default() };
            world.submit(Ask { parameters, ..Ask::of(0) }).unwrap()
        })
        .collect();
    world.finish(0, Fate::Ok);
    assert_eq!(world.nodes[0].batches[0].attempts.len(), 8);
    let batches = drain(&mut world, Fate::Poison);
    assert_eq!(batches, 1 + 2 * 3, "one, and at each of log2(8) levels the half with it and the half without");
    for (nth, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(world.outcome(ticket), Some(if nth == 5 { Err(Code::Internal) } else { Ok(()) }), "request {nth}");
    }
}

#[test]
fn a_batch_that_is_more_than_the_memory_holds_is_halved_and_the_next_is_no_larger() {
    let mut world = on(1);
    (0..9).for_each(|_| {
        world.ask(0);
    });
    world.finish(0, Fate::Ok);
    assert_eq!(world.nodes[0].batches[0].attempts.len(), 8);
    world.finish(0, Fate::All(Code::ResourceExhausted));
    (0..20).for_each(|_| {
        world.ask(0);
    });
    let mut sizes = Vec::new();
    while let Some(batch) = world.nodes[0].batches.front() {
        sizes.push(batch.attempts.len());
        world.finish(0, Fate::Ok);
    }
    assert_eq!(sizes, [4, 4, 4, 4, 4, 4, 4]);
    assert!(world.sent.values().all(|sent| sent.answers == [Ok(())]));
}

#[test]
fn a_request_is_tried_on_other_devices_and_on_each_once() {
    let mut world = on(4);
    let ticket = world.ask(0);
    drain(&mut world, Fate::All(Code::Unavailable));
    let mut places: Vec<usize> = world.ran.iter().map(|(at, ..)| *at).collect();
    assert_eq!(places.len(), Limits::default().attempts as usize);
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 3, "three attempts on three devices");
    assert_eq!(world.outcome(ticket), Some(Err(Code::Unavailable)));
}

#[test]
fn what_may_not_run_twice_is_not_tried_again_and_its_batch_mates_are() {
    let mut world = on(2);
    let parameters = Parameters { idempotent: false, ..Parameters::default() };
    let blockers: Vec<u64> = (0..2).map(|_| world.ask(0)).collect();
    let once = world.submit(Ask { parameters, ..Ask::of(0) }).unwrap();
    let often = world.ask(0);
    let at = blockers.iter().position(|blocker| *blocker == 1).unwrap();
    let at = world.ran[at].0;
    world.finish(at, Fate::Ok);
    let both: Vec<u64> = world.nodes[at].batches[0].attempts.iter().map(ticket).collect();
    assert_eq!(both, [once, often]);
    // The worker falls silent, is heard again, and answers: the one that may run twice has been taken from it.
    world.core.suspect(world.now, world.nodes[at].session, "silent", 350 * MS, false);
    world.collect();
    world.finish(1 - at, Fate::Ok);
    assert_eq!(world.ran.last(), Some(&(1 - at, 0, vec![often])));
    world.core.alive(world.now, world.nodes[at].session);
    world.collect();
    world.finish(at, Fate::Ok);
    assert_eq!(world.outcome(once), Some(Ok(())), "its answer stands behind that of another");
    drain(&mut world, Fate::Ok);
    assert_eq!(world.outcome(often), Some(Ok(())));
}

#[test]
fn the_retry_budget_ends_a_storm() {
    let mut world = on(40);
    let (mut runs, mut asked) = (0, 0);
    while world.core.totals().retried < 2000 && asked < 1000 {
        asked += 1;
        let ticket = world.ask(0);
        while let Some(at) = (0..40).find(|at| !world.nodes[*at].batches.is_empty()) {
            world.finish(at, Fate::All(Code::Unavailable));
            runs += 1;
        }
        // So that breakers do not end the storm first.
        world.core.replicas.iter_mut().for_each(|(id, replica)| replica.breaker = orion_net::Breaker::new(id as u64));
        assert_eq!(world.outcome(ticket), Some(Err(Code::Unavailable)));
    }
    let retried = world.core.totals().retried;
    assert_eq!(runs, asked + retried);
    assert!((100..=100 + asked / 5).contains(&retried), "{retried} retries of {asked} requests at one time");
}

#[test]
fn a_breaker_opens_and_one_probe_closes_it() {
    let mut world = on(1);
    world.core.limits.attempts = 1;
    for _ in 0..5 {
        world.ask(0);
        world.finish(0, Fate::All(Code::Unavailable));
    }
    world.core.limits.attempts = 3;
    let waits = world.ask(0);
    assert!(world.nodes[0].batches.is_empty(), "it is open");
    world.pass(1_200 * MS);
    assert_eq!(world.nodes[0].batches.len(), 1, "one probe");
    world.finish(0, Fate::All(Code::Unavailable));
    world.pass(1_200 * MS);
    assert!(world.nodes[0].batches.is_empty(), "open for twice as long");
    world.pass(1_200 * MS);
    world.finish(0, Fate::Ok);
    assert_eq!(world.outcome(waits), Some(Ok(())));
    world.ask(0);
    assert_eq!(world.nodes[0].batches.len(), 1, "closed");
}

#[test]
fn a_queue_behind_breakers_that_stay_open_is_bounded_and_says_when_to_come_again() {
    let mut world = on(1);
    world.core.limits.attempts = 1;
    let mut waiting = 0;
    // Each failure alone, until the breaker opens; then nothing runs but probes.
    let refused = loop {
        match world.submit(Ask::of(0)) {
            Ok(_) => waiting += 1,
            Err(error) => break error,
        }
        world.finish(0, Fate::All(Code::Unavailable));
        assert!(waiting < 60, "requests pile up");
    };
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::ResourceExhausted, true), "{refused}");
    // It works again, and so does the queue.
    for _ in 0..200 {
        world.pass(1000 * MS);
        drain(&mut world, Fate::Ok);
    }
    assert!(world.submit(Ask::of(0)).is_ok());
}

#[test]
fn a_hedge_wins_and_the_straggler_is_dropped_and_counted() {
    let policy = ModelPolicy { min_replicas: 2, hedge: true, ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 1, policy)], &[&[100], &[100]]);
    let ticket = world.ask(0);
    let slow = world.ran[0].0;
    world.pass(6 * MS);
    assert_eq!(world.ran.len(), 1, "not late enough");
    world.pass(30 * MS);
    assert_eq!(world.ran.last(), Some(&(1 - slow, 0, vec![ticket])));
    world.pass(30 * MS);
    assert_eq!(world.ran.len(), 2, "it is hedged once");
    world.finish(1 - slow, Fate::Ok);
    assert_eq!(world.outcome(ticket), Some(Ok(())));
    world.finish(slow, Fate::Ok);
    let totals = world.core.totals();
    assert_eq!((totals.succeeded, totals.hedged, totals.results_dropped), (1, 1, 1));
}

#[test]
fn a_straggler_is_hedged_on_a_device_that_is_never_idle() {
    let policy = ModelPolicy { min_replicas: 2, hedge: true, ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 1, policy)], &[&[100], &[100]]);
    let straggler = world.ask(0);
    let (slow, began) = (world.ran[0].0, world.now);
    for _ in 0..4 {
        world.ask(0);
    }
    while world.outcome(straggler).is_none() && world.now < began + 200 * MS {
        world.pass(6 * MS);
        world.finish(1 - slow, Fate::Ok);
        world.ask(0);
        assert!(!world.nodes[1 - slow].batches.is_empty());
    }
    assert_eq!(world.outcome(straggler), Some(Ok(())), "{:?}", world.core.totals());
}

#[test]
fn a_hedge_goes_before_what_is_less_urgent_alone() {
    for (waits, hedged) in [(Priority::Realtime, 0), (Priority::Low, 1)] {
        let policy = |hedge| ModelPolicy { min_replicas: 2, hedge, ..ModelPolicy::default() };
        let specs = vec![model("m", 1, policy(true)), model("other", 1, policy(false))];
        let mut world = World::new(specs, &[&[100], &[100]]);
        world.ask(0);
        let slow = world.ran[0].0;
        let parameters = Parameters { priority: waits, ..Parameters::default() };
        let ask = |world: &mut World| world.submit(Ask { parameters: parameters.clone(), ..Ask::of(1) }).unwrap();
        // Where one runs, more wait when it ends, late enough to hedge.
        (0..9).for_each(|_| _ = ask(&mut world));
        world.now += 60 * MS;
        world.finish(1 - slow, Fate::Ok);
        assert_eq!(world.core.totals().hedged, hedged, "beside {waits:?}");
    }
}

#[test]
fn a_stalled_batch_that_may_not_run_twice_counts_against_its_device_once_at_most() {
    let mut world = on(2);
    let parameters = Parameters { idempotent: false, ..Parameters::default() };
    world.submit(Ask { parameters, ..Ask::of(0) }).unwrap();
    let at = world.ran[0].0;
    (0..20).for_each(|_| world.pass(1_000 * MS));
    let device = world.core.workers[at].devices[0];
    let replica = world.core.devices[device].residents[0];
    assert!(world.core.replicas[replica].breaker.allows(world.now), "time alone is no failure");
    world.finish(at, Fate::Ok);
    assert!(world.sent.values().all(|sent| sent.answers == [Ok(())]));
}

#[test]
fn what_queued_before_its_device_broke_is_answered_before_long() {
    let mut world = on(1);
    let tickets: Vec<u64> = (0..100).map(|_| world.ask(0)).collect();
    let began = world.now;
    // Each lets through one at a time, and pauses for up to 30 s in between.
    while world.now < began + 20_000 * MS {
        world.finish(0, Fate::All(Code::Unavailable));
        world.pass(100 * MS);
    }
    let answers: Vec<_> = tickets.iter().map(|ticket| world.outcome(*ticket)).collect();
    assert!(answers.iter().all(|answer| *answer == Some(Err(Code::Unavailable))), "{answers:?}");
    // Who comes later finds out whether it works again.
    let later = world.ask(0);
    for _ in 0..80 {
        world.finish(0, Fate::Ok);
        world.pass(100 * MS);
    }
    assert!(world.outcome(later).is_some());
    let last = (0..40).map(|_| {
        let ticket = world.ask(0);
        world.pass(1_000 * MS);
        world.finish(0, Fate::Ok);
        world.outcome(ticket)
    });
    assert_eq!(last.last(), Some(Some(Ok(()))));
}
