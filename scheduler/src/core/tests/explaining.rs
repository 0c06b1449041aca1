//! What is told of a request or a model is what happened to it, and what would.

use orion_proto::{ModelPolicy, Parameters, cluster};

use super::{
    world::{Ask, Fate, WAITED, World, model},
    *,
};

fn on(workers: usize) -> World {
    let policy = ModelPolicy { min_replicas: workers as u32, ..ModelPolicy::default() };
    World::new(vec![model("m", 1, policy)], &vec![&[100][..]; workers])
}

/// A request's explanation.
fn told(world: &World, ticket: u64) -> cluster::RequestExplanation {
    world.core.explain_request(world.now, &ticket.to_string()).unwrap()
}

/// Its stages in milliseconds: queue, earlier attempts, under way, carriage, worker queue, service.
fn stages(of: &cluster::RequestExplanation) -> [f64; 6] {
    let all = [
        of.queued_seconds,
        of.earlier_seconds,
        of.underway_seconds,
        of.carriage_seconds,
        of.worker_queue_seconds,
        of.service_seconds,
    ];
    assert!((all.iter().sum::<f64>() - of.total_seconds).abs() < 1e-9, "they are not the total: {of:?}");
    all.map(|seconds| (seconds * 1e6).round() / 1e3)
}

fn worker(of: &cluster::RequestExplanation) -> &str {
    of.chosen.as_ref().map_or("", |chosen| &chosen.worker)
}

/// Milliseconds of a batch of one row on the worker, before the device and on it.
fn worked() -> [f64; 2] {
    [WAITED * 1e3, 5.0]
}

#[test]
fn a_request_of_an_inline_model_ran_somewhere() {
    let mut world = World::new(vec![ModelSpec { inline: true, ..model("identity", 0, ModelPolicy::default()) }], &[]);
    world.add(&[100], 0.0);
    let ticket = world.ask(0);
    world.pass(8 * MS);
    world.finish(0, Fate::Ok);
    let told = told(&world, ticket);
    assert_eq!((worker(&told), told.batch_requests, &*told.outcome), ("w0", 1, "ok"));
    assert!(told.chosen.as_ref().unwrap().cost.is_none() && told.why.contains("costs nothing"), "{told:?}");
    assert_eq!(stages(&told), [0.0, 0.0, 0.0, 8.0 - worked()[0] - 5.0, worked()[0], 5.0]);
}

#[test]
fn a_request_that_its_client_gave_up_is_remembered() {
    let mut world = World::new(vec![model("m", 1, ModelPolicy::default())], &[&[100]]);
    let tickets = [world.ask(0), world.ask(0)];
    world.pass(3 * MS);
    for (ticket, ran) in tickets.into_iter().zip(["w0", ""]) {
        let key = world.core.requests.iter().find(|(_, request)| *request.request.id == *ticket.to_string());
        let (place, request) = key.unwrap();
        let key = RequestKey { place, serial: request.serial };
        world.core.cancel(world.now, key);
        let told = told(&world, ticket);
        assert_eq!((&*told.outcome, worker(&told), told.total_seconds), ("cancelled", ran, 0.003));
    }
}

#[test]
fn a_request_that_a_balancer_bound_went_where_it_said() {
    for balancer in ["", "round-robin"] {
        let policy = ModelPolicy { min_replicas: 2, balancer: balancer.into(), ..ModelPolicy::default() };
        let mut world = World::new(vec![model("m", 1, policy)], &[&[100], &[100]]);
        let ticket = world.ask(0);
        let why = told(&world, ticket).why;
        let expected = if balancer.is_empty() { "the lowest predicted seconds" } else { "the balancer 'round-robin'" };
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn time_with_a_device_that_failed_is_no_carriage() {
    let mut world = on(2);
    let ticket = world.ask(0);
    let at = world.ran[0].0;
    world.pass(7 * MS);
    world.finish(at, Fate::All(Code::Unavailable));
    world.pass(9 * MS);
    let running = told(&world, ticket);
    assert_eq!((&*running.outcome, stages(&running)), ("running", [0.0, 7.0, 9.0, 0.0, 0.0, 0.0]));
    world.finish(1 - at, Fate::Ok);
    let told = told(&world, ticket);
    assert_eq!((worker(&told), told.attempts), (format!("w{}", 1 - at).as_str(), 2));
    assert_eq!(stages(&told), [0.0, 7.0, 0.0, 9.0 - worked()[0] - 5.0, worked()[0], 5.0]);
    assert_eq!(told.why, "tried again where it had not failed");
}

#[test]
fn a_request_of_a_lost_worker_waits_and_is_where_it_ran_last() {
    let mut world = on(1);
    let ticket = world.ask(0);
    world.pass(20 * MS);
    world.core.suspect(world.now, world.nodes[0].session, "reset", 30 * MS, true);
    world.pass(40 * MS);
    world.pass(25 * MS);
    let waiting = told(&world, ticket);
    assert_eq!((&*waiting.outcome, worker(&waiting), &*waiting.why), ("waiting", "", "no device has taken it again"));
    assert_eq!(stages(&waiting), [25.0, 60.0, 0.0, 0.0, 0.0, 0.0]);
    world.add(&[100], 0.0);
    world.pass(6 * MS);
    world.finish(1, Fate::Ok);
    let told = told(&world, ticket);
    assert_eq!((worker(&told), &*told.outcome), ("w1", "ok"));
    assert_eq!(stages(&told), [25.0, 60.0, 0.0, 1.0 - worked()[0], worked()[0], 5.0]);
}

#[test]
fn a_request_that_failed_has_run_where_it_failed() {
    for (fate, outcome) in
        [(Fate::First, "INVALID_ARGUMENT"), (Fate::All(Code::Unavailable), "UNAVAILABLE"), (Fate::Ok, "UNAVAILABLE")]
    {
        let mut world = on(1);
        world.core.limits.attempts = 1;
        let parameters = Parameters { idempotent: fate != Fate::Ok, ..Parameters::default() };
        let ticket = world.submit(Ask { parameters, ..Ask::of(0) }).unwrap();
        world.pass(7 * MS);
        let expected = match fate {
            Fate::Ok => {
                world.core.suspect(world.now, world.nodes[0].session, "reset", 10 * MS, true);
                world.pass(20 * MS);
                [0.0, 0.0, 27.0, 0.0, 0.0, 0.0]
            }
            fate => {
                world.finish(0, fate);
                [0.0, 0.0, 0.0, 2.0 - worked()[0], worked()[0], 5.0]
            }
        };
        let told = told(&world, ticket);
        assert_eq!((&*told.outcome, worker(&told), stages(&told)), (outcome, "w0", expected), "{fate:?}");
    }
}

#[test]
fn of_two_runs_that_which_answered_is_told() {
    let policy = ModelPolicy { min_replicas: 2, hedge: true, ..ModelPolicy::default() };
    for winner in ["hedge", "straggler", "hedge after the straggler failed"] {
        let mut world = World::new(vec![model("m", 1, policy.clone())], &[&[100], &[100]]);
        let ticket = world.ask(0);
        let slow = world.ran[0].0;
        world.pass(40 * MS);
        world.pass(8 * MS);
        assert_eq!(worker(&told(&world, ticket)), format!("w{slow}"));
        if winner == "hedge after the straggler failed" {
            world.finish(slow, Fate::All(Code::Unavailable));
            let told = told(&world, ticket);
            assert_eq!(
                (worker(&told), stages(&told)[..3].to_vec()),
                (&*format!("w{}", 1 - slow), vec![0.0, 40.0, 8.0])
            );
        }
        let at = if winner == "straggler" { slow } else { 1 - slow };
        world.finish(at, Fate::Ok);
        let told = told(&world, ticket);
        let (earlier, left, why) = match winner {
            "straggler" => (0.0, 48.0, "the lowest predicted seconds"),
            _ => (40.0, 8.0, "a second run, because the first was late"),
        };
        assert_eq!((worker(&told), &*told.why), (&*format!("w{at}"), why), "{winner}");
        assert_eq!(stages(&told), [0.0, earlier, 0.0, left - worked()[0] - 5.0, worked()[0], 5.0], "{winner}");
    }
}

#[test]
fn a_probe_and_a_part_of_a_batch_are_told_apart_from_a_choice() {
    let mut world = on(1);
    world.core.limits.attempts = 1;
    for _ in 0..5 {
        world.ask(0);
        world.finish(0, Fate::All(Code::Unavailable));
    }
    let probe = world.ask(0);
    assert_eq!(told(&world, probe).why, "no device has taken it");
    world.pass(1_200 * MS);
    assert!(told(&world, probe).why.contains("works again"), "{}", told(&world, probe).why);

    let mut world = on(1);
    world.ask(0);
    let tickets: Vec<u64> = (0..4).map(|_| world.ask(0)).collect();
    world.finish(0, Fate::Ok);
    world.finish(0, Fate::All(Code::Internal));
    world.finish(0, Fate::Ok);
    let of = told(&world, tickets[0]);
    assert_eq!((of.batch_requests, &*of.why), (2, "tried again with a part of its batch, which failed as a whole"));
}

#[test]
fn the_next_best_is_the_best_of_those_that_take_work() {
    let policy = ModelPolicy { min_replicas: 6, ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 1, policy)], &[]);
    for at in 0..6 {
        world.add(&[100], 0.06 - 0.01 * f64::from(at));
    }
    let next = |world: &World, ticket| told(world, ticket).next_best.map(|place| place.worker);
    let first = world.ask(0);
    assert_eq!((worker(&told(&world, first)), next(&world, first).as_deref()), ("w5", Some("w4")));
    assert_eq!(told(&world, first).other_replicas, 5);
    world.core.suspect(world.now, world.nodes[4].session, "silent", 350 * MS, false);
    world.finish(5, Fate::Ok);
    let second = world.ask(0);
    assert_eq!(next(&world, second).as_deref(), Some("w3"), "what is silent takes no work");

    let mut world = on(2);
    world.core.suspect(world.now, world.nodes[1].session, "silent", 350 * MS, false);
    let ticket = world.ask(0);
    assert_eq!((&*told(&world, ticket).why, next(&world, ticket)), ("the only replica that takes work", None));
    let mut world = on(20);
    let ticket = world.ask(0);
    assert_eq!(told(&world, ticket).why, "the lowest predicted seconds of the 17 replicas that were compared");
}

#[test]
fn a_request_without_a_name_cannot_be_asked_about() {
    let (mut core, _) = core_with(&["a"]);
    submit(&mut core, 0, 1).unwrap();
    assert_eq!(core.explain_request(0, "").unwrap_err().code, Code::NotFound);
}

/// A model's explanation, and of each place its worker, its cost's work in milliseconds, and its refusal.
fn places(world: &World) -> (cluster::ModelExplanation, Vec<(String, Option<f64>, String)>) {
    let told = world.core.explain_model(world.now, "m").unwrap();
    let work = |place: &cluster::PlaceCost| place.cost.map(|cost| (cost.work_seconds * 1e6).round() / 1e3);
    let mut places: Vec<_> =
        told.places.iter().map(|place| (place.worker.clone(), work(place), place.refusal.clone())).collect();
    places.sort_by(|a, b| a.0.cmp(&b.0));
    (told, places)
}

#[test]
fn what_a_balancer_has_bound_is_queued_and_stands_before_the_next() {
    let policy = ModelPolicy { min_replicas: 2, balancer: "round-robin".into(), ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 1, policy)], &[&[100], &[100]]);
    (0..11).for_each(|_| _ = world.ask(0));
    let (told, places) = places(&world);
    // One row runs on each for 5 ms; of the others five wait for the first and four for the second.
    assert_eq!((told.queued, (told.queued_work_seconds * 1e3).round()), (9, 9.0 + 8.0));
    assert_eq!(places.iter().map(|place| place.1).collect::<Vec<_>>(), [Some(14.0), Some(13.0)]);
}

#[test]
fn a_device_that_gets_no_copy_has_a_reason_and_no_cost() {
    let policy = ModelPolicy { max_replicas: Some(1), ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 60, policy)], &[&[100], &[100]]);
    world.prompt = false;
    let refusals = |world: &World| places(world).1.into_iter().map(|place| (place.1.is_none(), place.2));
    let of: Vec<_> = refusals(&world).collect();
    assert_eq!(of.iter().filter(|(refused, _)| *refused).count(), 1, "{of:?}");
    assert!(of.iter().any(|(_, why)| why == "1 copies are there, at most 1 may be (max_replicas)"), "{of:?}");
    world.core.unwant(world.now, "m").unwrap();
    assert_eq!(refusals(&world).collect::<Vec<_>>(), vec![(true, "unloaded".to_owned()); 2]);
    // Wanted again while its copy leaves: only the other device may take it.
    let (name, home) = (world.specs[0].name.clone(), (0..2).find(|at| world.held(*at, 0) > 0).unwrap());
    world.core.cordon(world.now, &format!("w{}", 1 - home), Cordon::Cordoned).unwrap();
    world.core.want(world.now, &name, "/m".into(), false);
    world.collect();
    let of: Vec<_> = refusals(&world).collect();
    assert_eq!(of[home], (true, "its copy there is being unloaded".to_owned()));
    assert!(of[1 - home].0 && of[1 - home].1.contains("cordon"), "{of:?}");
}

#[test]
fn a_replica_that_stands_still_is_given_nothing_and_that_is_said() {
    let mut world = on(2);
    world.ask(0);
    let at = world.ran[0].0;
    world.pass(11_000 * MS);
    let (_, places) = places(&world);
    assert_eq!(places[at].2, "a batch of it stands still there");
    assert!(places[at].1.is_none() && places[1 - at].1.is_some(), "{places:?}");
}

#[test]
fn who_waited_for_a_load_is_told_so() {
    let specs = ["a", "b"].map(|name| model(name, 60, ModelPolicy::default()));
    let mut world = World::new(specs.into(), &[&[100]]);
    let tickets = [world.ask(0), world.ask(1)];
    for _ in 0..5 {
        world.pass(10 * MS);
        world.finish(0, Fate::Ok);
    }
    let why = tickets.map(|ticket| told(&world, ticket).why);
    assert!(!why[0].contains("the load") && why[1].ends_with("it waited for the load too"), "{why:?}");
}
