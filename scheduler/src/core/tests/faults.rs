//! Whose fault it was: a replica that fails must not win, a request that fails must not take others with it, and what is
//! tried again must not be more than the cluster bears.

use orion_proto::{ModelPolicy, Parameters};

use super::{
    failure::{drain, on},
    world::{Ask, Fate, World, model, ticket},
    *,
};

#[test]
fn a_replica_that_fails_fast_in_any_way_does_not_win() {
    for fate in [Code::Unavailable, Code::Internal, Code::ResourceExhausted] {
        for strategy in orion_net::Strategy::ALL {
            let policy = ModelPolicy { min_replicas: 3, balancer: strategy.name().into(), ..ModelPolicy::default() };
            let mut world = World::new(vec![model("m", 1, policy)], &[&[100][..]; 3]);
            let mut failed = 0;
            for _ in 0..300 {
                world.ask(0);
                while world.finish(0, Fate::All(fate)).is_some() {
                    failed += 1;
                    (1..3).for_each(|at| drop(world.finish(at, Fate::Ok)));
                }
                (1..3).for_each(|at| drop(world.finish(at, Fate::Ok)));
                world.pass(5 * MS);
            }
            let name = strategy.name();
            assert!(failed <= 10, "{failed} of 300 requests went to the replica that fails ({fate:?}, {name})");
            assert!(world.sent.values().all(|sent| sent.answers == [Ok(())]), "{fate:?}, {name}");
        }
    }
}

#[test]
fn a_request_that_fails_everywhere_is_to_blame_itself() {
    let mut world = on(2);
    for _ in 0..20 {
        let parameters = Parameters { routing_key: Some(13), ..Parameters::default() };
        let bad = world.submit(Ask { parameters, ..Ask::of(0) }).unwrap();
        let batches = drain(&mut world, Fate::Poison);
        assert_eq!((batches, world.outcome(bad)), (2, Some(Err(Code::Internal))), "once on each device");
        world.pass(100 * MS);
    }
    for id in [0, 1] {
        let replica = world.core.devices[world.core.workers[id].devices[0]].residents[0];
        assert!(world.core.replicas[replica].breaker.allows(world.now), "bad requests open no breaker");
    }
}

#[test]
fn bad_requests_do_not_use_up_what_lost_workers_need() {
    let mut world = on(3);
    for _ in 0..400 {
        let parameters = Parameters { routing_key: Some(13), ..Parameters::default() };
        world.submit(Ask { parameters, ..Ask::of(0) }).unwrap();
        (0..7).map(|_| world.ask(0)).for_each(|ticket| assert!(ticket > 0));
        drain(&mut world, Fate::Poison);
    }
    let runs: usize = world.ran.iter().map(|(_, _, tickets)| tickets.len()).sum();
    assert!(runs <= 2 * 3200 + 200, "{runs} runs of 3200 requests: looking for the bad ones at most doubles the work");
    let mut waits: Vec<u64> = (0..12).map(|_| world.ask(0)).collect();
    let at = world.ran.last().unwrap().0;
    let there: Vec<u64> = world.nodes[at].batches.iter().flat_map(|batch| &batch.attempts).map(ticket).collect();
    waits.retain(|waiting| there.contains(waiting));
    assert!(!waits.is_empty());
    world.core.suspect(world.now, world.nodes[at].session, "reset", 350 * MS, true);
    world.nodes[at].link = None;
    world.collect();
    drain_but(&mut world, at);
    assert!(waits.iter().all(|waiting| world.outcome(*waiting) == Some(Ok(()))), "its work was tried elsewhere");
}

/// Every batch of the other workers is answered.
fn drain_but(world: &mut World, but: usize) {
    while let Some(at) = (0..world.nodes.len()).find(|at| *at != but && !world.nodes[*at].batches.is_empty()) {
        world.finish(at, Fate::Ok);
    }
}

#[test]
fn halving_a_batch_leaves_its_requests_all_their_attempts() {
    let mut world = on(2);
    let blockers: Vec<u64> = (0..2).map(|_| world.ask(0)).collect();
    let bad = Parameters { routing_key: Some(13), ..Parameters::default() };
    world.submit(Ask { parameters: bad, ..Ask::of(0) }).unwrap();
    let innocent: Vec<u64> = (0..7).map(|_| world.ask(0)).collect();
    let at = world.ran.iter().find(|(_, _, tickets)| tickets == &[blockers[0]]).unwrap().0;
    world.finish(at, Fate::Ok);
    assert_eq!(world.nodes[at].batches[0].attempts.len(), 8);
    // Halved until pairs are left; then the worker is lost, and then a device fault happens.
    for _ in 0..2 {
        world.finish(at, Fate::Poison);
    }
    world.core.suspect(world.now, world.nodes[at].session, "reset", 350 * MS, true);
    world.nodes[at].link = None;
    world.pass(400 * MS);
    while world.nodes[1 - at].batches.front().is_some() {
        world.finish(1 - at, Fate::Poison);
    }
    assert!(innocent.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))));
}

#[test]
fn a_small_device_that_runs_out_of_memory_leaves_a_row_to_a_larger_one_and_is_tried_again_later() {
    let mut world = on(2);
    let asked: Vec<u64> = (0..2).map(|_| world.ask(0)).collect();
    let small = world.ran[0].0;
    world.finish(small, Fate::All(Code::ResourceExhausted));
    drain_but(&mut world, small);
    assert!(asked.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))));
    let device = world.core.workers[small].devices[0];
    let replica = world.core.devices[device].residents[0];
    world.core.replicas[replica].ran_out(world.now, 8);
    world.core.replicas[replica].ran_out(world.now, 4);
    assert_eq!(world.core.replicas[replica].most_rows(8), 1);
    for (seconds, most) in [(29, 1), (31, 2), (60, 2), (61, 4)] {
        let now = world.now + seconds * 1000 * MS;
        let rows = world.core.replicas[replica].most_rows(8);
        world.core.replicas[replica].fitted(now, rows);
        assert_eq!(world.core.replicas[replica].most_rows(8), most, "after {seconds} s");
    }
}

#[test]
fn a_replica_whose_stalled_batch_was_taken_back_runs_again() {
    let mut world = on(2);
    let first = world.ask(0);
    let at = world.ran[0].0;
    (0..12).for_each(|_| world.pass(1_000 * MS));
    drain_but(&mut world, at);
    assert_eq!(world.outcome(first), Some(Ok(())), "tried elsewhere");
    let session = world.nodes[at].session;
    world.core.suspect(world.now, session, "silent", 350 * MS, false);
    world.core.alive(world.now, session);
    world.collect();
    // Until what its failure costs is forgotten.
    world.pass(60_000 * MS);
    let given = world.ran.len();
    (0..2).map(|_| world.ask(0)).for_each(|ticket| assert!(ticket > 0));
    assert!(world.ran[given..].iter().any(|(on, ..)| *on == at), "it takes work again");
    // What it says of the batch that was taken from it is dropped, and that is counted.
    let dropped = world.core.totals().results_dropped;
    world.finish(at, Fate::Ok);
    assert_eq!(world.core.totals().results_dropped, dropped + 1);
}

#[test]
fn a_late_result_of_a_stalled_batch_is_counted() {
    let mut world = on(2);
    world.ask(0);
    let at = world.ran[0].0;
    (0..12).for_each(|_| world.pass(1_000 * MS));
    drain_but(&mut world, at);
    world.finish(at, Fate::Ok);
    assert_eq!((world.core.totals().succeeded, world.core.totals().results_dropped), (1, 1));
}

#[test]
fn a_retry_does_not_wait_for_a_replica_that_stands_still() {
    let mut world = on(2);
    world.ask(0);
    let hangs = world.ran[0].0;
    (0..12).for_each(|_| world.pass(1_000 * MS));
    drain_but(&mut world, hangs);
    let waits = world.ask(0);
    world.finish(1 - hangs, Fate::All(Code::Unavailable));
    world.pass(100 * MS);
    world.finish(1 - hangs, Fate::Ok);
    assert_eq!(world.outcome(waits), Some(Ok(())), "the one that failed is better than one that hangs");
}

#[test]
fn what_a_lost_worker_ran_runs_elsewhere_in_as_few_batches() {
    let mut world = on(2);
    let tickets: Vec<u64> = (0..18).map(|_| world.ask(0)).collect();
    (0..2).for_each(|at| drop(world.finish(at, Fate::Ok)));
    assert!(world.nodes.iter().all(|node| node.batches[0].attempts.len() == 8));
    world.core.suspect(world.now, world.nodes[0].session, "reset", 350 * MS, true);
    world.nodes[0].link = None;
    world.collect();
    world.finish(1, Fate::Ok);
    assert_eq!(world.nodes[1].batches[0].attempts.len(), 8, "together, as before");
    world.finish(1, Fate::Ok);
    assert!(tickets.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))));
}

#[test]
fn silence_takes_only_what_may_be_tried_again() {
    let mut world = on(2);
    world.core.limits.attempts = 1;
    let waits = world.ask(0);
    let at = world.ran[0].0;
    world.core.suspect(world.now, world.nodes[at].session, "silent", 350 * MS, false);
    world.collect();
    assert_eq!(world.outcome(waits), None, "its worker may come back with it");
    world.core.alive(world.now, world.nodes[at].session);
    world.collect();
    world.finish(at, Fate::Ok);
    assert_eq!(world.outcome(waits), Some(Ok(())));
}

#[test]
fn a_probe_that_says_nothing_does_not_shut_the_only_replica() {
    let mut world = on(1);
    world.core.limits.attempts = 1;
    for _ in 0..5 {
        world.ask(0);
        world.finish(0, Fate::All(Code::Unavailable));
    }
    world.pass(1_200 * MS);
    let bad = world.ask(0);
    assert_eq!(world.nodes[0].batches.len(), 1, "the probe");
    world.finish(0, Fate::All(Code::Internal));
    assert_eq!(world.outcome(bad), Some(Err(Code::Internal)));
    let good = world.ask(0);
    world.finish(0, Fate::Ok);
    assert_eq!(world.outcome(good), Some(Ok(())), "the next one is the probe");
}

#[test]
fn a_worker_that_is_back_is_told_what_nobody_waits_for() {
    let mut world = on(2);
    let ticket = world.ask(0);
    let at = world.ran[0].0;
    world.core.suspect(world.now, world.nodes[at].session, "silent", 350 * MS, false);
    let told = world.core.take_commands();
    let cancels = |commands: &[Command<u64, u64>], link: Option<u64>| {
        let to =
            |command: &&Command<u64, u64>| matches!(command, Command::Cancel { link: to, .. } if Some(*to) == link);
        commands.iter().filter(to).count()
    };
    assert_eq!(cancels(&told, world.nodes[at].link), 1, "its link is open: it need not begin");
    world.core.take_commands();
    world.core.suspect(world.now, world.nodes[at].session, "reset", 350 * MS, true);
    world.core.take_commands();
    let hello = session::Hello { holding: vec![world.nodes[at].batches[0].batch], ..world.hello(at) };
    let joined = world.core.join(world.now, hello, "grpc", 99).unwrap();
    world.core.take_commands();
    world.core.start(world.now, joined.session);
    let told = world.core.take_commands();
    assert_eq!(cancels(&told, Some(99)), 1, "{told:?}");
    assert_eq!(world.outcome(ticket), None);
}

#[test]
fn a_probe_whose_client_is_gone_does_not_shut_the_only_replica() {
    let mut world = World::new(vec![model("m", 1, ModelPolicy::default())], &[&[100]]);
    let id = world.core.models[world.core.index("m").unwrap()].replicas[0];
    (0..5).for_each(|_| world.core.replicas[id].failed(world.now));
    world.pass(1_200 * MS);
    let probe = world.ask(0);
    assert_eq!(world.nodes[0].batches.len(), 1, "it is let through");
    world.sent.get_mut(&probe).unwrap().cancelled = true;
    world.core.cancel(world.now, world.sent[&probe].key.unwrap());
    world.collect();
    world.finish(0, Fate::All(Code::Internal));
    world.ask(0);
    (0..200).for_each(|_| world.pass(25 * MS));
    assert_eq!(world.nodes[0].batches.len(), 1, "within 5 s the next is let through");
}

#[test]
fn a_row_that_is_too_much_for_the_only_device_is_run_once() {
    let mut world = World::new(vec![model("m", 1, ModelPolicy::default())], &[&[100]]);
    let asked = world.ask(0);
    world.finish(0, Fate::All(Code::ResourceExhausted));
    assert_eq!((world.outcome(asked), world.ran.len()), (Some(Err(Code::ResourceExhausted)), 1));
}
