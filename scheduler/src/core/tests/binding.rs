//! Admission by predicted seconds, and balancers that bind requests early.

use std::time::Duration;

use orion_proto::{ModelPolicy, Parameters};

use super::{
    world::{Ask, Fate, World, model},
    *,
};

fn bound(balancer: &str, workers: usize) -> World {
    let policy = ModelPolicy { min_replicas: workers as u32, balancer: balancer.into(), ..ModelPolicy::default() };
    World::new(vec![model("m", 1, policy)], &vec![&[100][..]; workers])
}

#[test]
fn a_deadline_that_cannot_be_met_is_told_from_one_that_other_work_stands_in_the_way_of() {
    let mut world = World::new(vec![model("m", 1, ModelPolicy::default())], &[&[100]]);
    let soon = |deadline: Nanos| Ask { deadline: Some(deadline), ..Ask::of(0) };
    let never = world.submit(soon(3 * MS)).unwrap_err();
    assert_eq!((never.code, never.retry_after), (Code::DeadlineExceeded, None), "one row takes 5 ms");
    world.submit(soon(8 * MS)).unwrap();
    let busy = world.submit(soon(8 * MS)).unwrap_err();
    assert_eq!(busy.code, Code::ResourceExhausted, "{busy}");
    assert!(busy.retry_after.is_some());
    world.submit(soon(30 * MS)).unwrap();
}

#[test]
fn a_queue_that_is_longer_than_its_owner_allows_is_full() {
    let policy = ModelPolicy { max_queue: Duration::from_millis(100), ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 1, policy)], &[&[100]]);
    let refused = (0..1000).find_map(|_| world.submit(Ask::of(0)).err()).unwrap();
    assert_eq!(refused.code, Code::ResourceExhausted);
    assert!(refused.message.contains("max_queue_s") && refused.retry_after.is_some(), "{refused}");
    // 100 ms hold about eight batches of eight in 12 ms.
    assert!((48..=80).contains(&world.core.unsettled()), "{} wait", world.core.unsettled());
    let retry_after = refused.retry_after.unwrap();
    assert!((80..=200).contains(&retry_after.as_millis()), "{retry_after:?}");
}

#[test]
fn bound_requests_go_elsewhere_with_their_replica() {
    for end in ["silent", "broken", "drain", "cordon", "breaker"] {
        let mut world = bound("round-robin", 2);
        let tickets: Vec<u64> = (0..12).map(|_| world.ask(0)).collect();
        assert_eq!(world.ran.len(), 2, "one runs on each, the others are bound");
        let session = world.nodes[0].session;
        match end {
            "silent" => world.core.suspect(world.now, session, "silent", 350 * MS, false),
            "broken" => world.core.suspect(world.now, session, "reset", 350 * MS, true),
            "drain" => world.core.worker_drains(world.now, session),
            "cordon" => drop(world.core.cordon(world.now, "w0", Cordon::Draining).unwrap()),
            _ => (0..5).for_each(|_| {
                world.finish(0, Fate::All(Code::Unavailable));
            }),
        }
        world.collect();
        while world.finish(1, Fate::Ok).is_some() {}
        let left = tickets.iter().filter(|ticket| world.outcome(**ticket).is_none()).count();
        // What runs on a worker that drains ends there; what a breaker's replica failed may have been given up.
        let runs_there = usize::from(matches!(end, "drain" | "cordon"));
        assert_eq!(left, runs_there, "{end}");
    }
}

#[test]
fn a_replica_that_fails_fast_does_not_win() {
    for strategy in orion_net::Strategy::ALL {
        let mut world = bound(strategy.name(), 3);
        world.core.limits.attempts = 10;
        let mut failed = 0;
        for _ in 0..300 {
            world.ask(0);
            while world.finish(0, Fate::All(Code::Unavailable)).is_some() {
                failed += 1;
            }
            (1..3).for_each(|at| {
                world.finish(at, Fate::Ok);
            });
            world.pass(5 * MS);
        }
        assert!(failed <= 10, "{failed} of 300 batches went to the replica that fails ({})", strategy.name());
        assert!(world.sent.values().all(|sent| sent.answers == [Ok(())]), "{}", strategy.name());
    }
}

#[test]
fn requests_of_one_key_go_to_one_replica() {
    let mut world = bound("consistent-hash", 4);
    let mut homes: HashMap<u64, usize> = HashMap::new();
    for round in 0..200u64 {
        let key = round % 10;
        let parameters = Parameters { routing_key: Some(key), ..Parameters::default() };
        world.submit(Ask { parameters, ..Ask::of(0) }).unwrap();
        let at = world.ran.last().unwrap().0;
        assert_eq!(*homes.entry(key).or_insert(at), at, "key {key}");
        world.finish(at, Fate::Ok);
    }
    assert!(homes.values().collect::<std::collections::BTreeSet<_>>().len() > 1);
}
