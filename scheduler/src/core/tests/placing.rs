//! Where models are and are not, and what clients are told of it.

use orion_proto::{ModelPolicy, Parameters, Priority, Requirements};

use super::{
    world::{Ask, Fate, Told, World, model},
    *,
};

fn state(world: &World, name: &str) -> ModelState {
    world.core.model(name).unwrap().state
}

#[test]
fn an_evicted_model_comes_back_with_a_request_and_loads_are_single_flight() {
    let mut world =
        World::new(vec![model("a", 60, ModelPolicy::default()), model("b", 60, ModelPolicy::default())], &[&[100]]);
    assert_eq!((state(&world, "a"), state(&world, "b")), (ModelState::Ready, ModelState::Cold));
    world.prompt = false;
    for (index, name) in [(1, "b"), (0, "a")] {
        let before = world.loads;
        let tickets: Vec<u64> = (0..20).map(|_| world.ask(index)).collect();
        (0..5).for_each(|_| world.pass(MS));
        world.settle_loads();
        assert_eq!((state(&world, name), world.loads - before), (ModelState::Ready, 1), "{name}");
        while world.finish(0, Fate::Ok).is_some() {}
        assert!(tickets.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))), "{name}");
    }
}

#[test]
fn what_no_worker_has_comes_on_the_next_one_unasked() {
    let names = ["a", "b", "c"];
    let specs = names.map(|name| model(name, 30, ModelPolicy::default()));
    let mut world = World::new(specs.into(), &[&[100]]);
    let ready = |world: &World| names.map(|name| state(world, name) == ModelState::Ready);
    world.core.worker_left(world.now, world.nodes[0].session);
    world.collect();
    assert_eq!(ready(&world), [false; 3]);
    let at = world.add(&[100], 0.0);
    world.settle_loads();
    assert_eq!(ready(&world), [true; 3]);
    // What nothing could take when it was wanted, likewise.
    let name = world.nodes[at].name.clone();
    world.core.cordon(world.now, &name, Cordon::Cordoned).unwrap();
    world.core.unwant(world.now, "a").unwrap();
    world.settle_loads();
    world.core.want(world.now, &world.specs[0].name, "/a".into(), false);
    world.collect();
    world.settle_loads();
    assert_eq!(ready(&world), [false, true, true]);
    world.core.cordon(world.now, &name, Cordon::No).unwrap();
    world.collect();
    world.settle_loads();
    assert_eq!(ready(&world), [true; 3]);
}

#[test]
fn what_found_no_room_comes_unasked_where_memory_is_free_later() {
    let specs = ["a", "b", "c"].map(|name| model(name, 60, ModelPolicy::default()));
    let mut world = World::new(specs.into(), &[&[100]]);
    let ready = |world: &World| ["a", "b", "c"].map(|name| state(world, name) == ModelState::Ready);
    assert_eq!(ready(&world), [true, false, false]);
    world.add(&[100], 0.0);
    world.settle_loads();
    assert_eq!(ready(&world), [true, true, false]);
    // Or its owner gives back what another took.
    world.core.unwant(world.now, "a").unwrap();
    world.collect();
    world.settle_loads();
    assert_eq!(ready(&world), [false, true, true]);
}

#[test]
fn requests_that_cannot_wait_for_a_load_bring_their_model_for_later_ones() {
    let specs = || vec![model("a", 60, ModelPolicy::default()), model("b", 60, ModelPolicy::default())];
    let hurried = || Ask { deadline: Some(50 * MS), ..Ask::of(1) };
    let refused = |world: &mut World| world.submit(hurried()).unwrap_err().code;
    // In the place of what nobody asks for.
    let mut world = World::new(specs(), &[&[100]]);
    let index = world.core.index("b").unwrap();
    world.core.models[index].known.iter_mut().for_each(|known| known.load = 1_000 * MS);
    assert_eq!((state(&world, "b"), refused(&mut world)), (ModelState::Cold, Code::DeadlineExceeded));
    world.settle_loads();
    assert_eq!((state(&world, "a"), state(&world, "b")), (ModelState::Cold, ModelState::Ready));
    world.submit(hurried()).unwrap();
    // Not of what is asked for as often.
    let mut world = World::new(specs(), &[&[100]]);
    world.core.models[index].known.iter_mut().for_each(|known| known.load = 1_000 * MS);
    for _ in 0..20 {
        world.ask(0);
        world.finish(0, Fate::Ok);
        assert_eq!(refused(&mut world), Code::DeadlineExceeded);
        world.settle_loads();
        world.pass(100 * MS);
    }
    assert_eq!((state(&world, "a"), state(&world, "b")), (ModelState::Ready, ModelState::Cold));
    // Where memory is free it is made: what was evicted was larger than what came.
    let sizes = [("a", 90), ("b", 50), ("c", 40)];
    let specs = sizes.map(|(name, bytes)| model(name, bytes, ModelPolicy::default()));
    let mut world = World::new(specs.into(), &[&[100]]);
    world.ask(1);
    world.settle_loads();
    let index = world.core.index("c").unwrap();
    world.core.models[index].known.iter_mut().for_each(|known| known.load = 1_000 * MS);
    assert_eq!((state(&world, "b"), state(&world, "c")), (ModelState::Ready, ModelState::Cold));
    assert_eq!(world.submit(Ask { deadline: Some(50 * MS), ..Ask::of(2) }).unwrap_err().code, Code::DeadlineExceeded);
    world.settle_loads();
    assert_eq!((state(&world, "b"), state(&world, "c")), (ModelState::Ready, ModelState::Ready));
}

#[test]
fn a_measurement_during_a_load_drops_no_wish_that_fits() {
    let specs = vec![model("a", 50, ModelPolicy::default()), model("b", 40, ModelPolicy::default())];
    let mut world = World::new(specs, &[]);
    world.prompt = false;
    world.add(&[100], 0.0);
    for _ in 0..3 {
        world.tell_telemetry(0);
        world.pass(25 * MS);
    }
    world.settle_loads();
    world.tell_telemetry(0);
    world.pass(25 * MS);
    world.settle_loads();
    assert_eq!((state(&world, "a"), state(&world, "b")), (ModelState::Ready, ModelState::Ready));
}

#[test]
fn a_model_that_is_loaded_again_is_what_its_files_say_by_then() {
    let mut world =
        World::new(vec![model("a", 70, ModelPolicy::default()), model("b", 10, ModelPolicy::default())], &[&[100]]);
    assert_eq!((state(&world, "a"), state(&world, "b")), (ModelState::Ready, ModelState::Ready));
    world.core.unwant(world.now, "b").unwrap();
    world.settle_loads();
    world.specs[1] = Arc::new(model("b", 90, ModelPolicy::default()));
    world.core.want(world.now, &world.specs[1].name, "/b".into(), false);
    world.collect();
    assert_eq!(world.core.spec("b", "").unwrap().memory_bytes, 90);
    // It fits where the other one is evicted.
    let ticket = world.ask(1);
    world.settle_loads();
    assert_eq!((state(&world, "a"), state(&world, "b")), (ModelState::Cold, ModelState::Ready));
    world.finish(0, Fate::Ok);
    assert_eq!(world.outcome(ticket), Some(Ok(())));
}

#[test]
fn a_model_with_fewer_replicas_than_its_owner_wants_says_why() {
    let policy = ModelPolicy { min_replicas: 3, ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 60, policy)], &[&[100], &[50]]);
    let view = |world: &World| world.core.model("m").map(|view| (view.state, view.reason)).unwrap();
    let (state, reason) = view(&world);
    assert_eq!(state, ModelState::Ready);
    assert!(
        reason.starts_with("1 of 3 replicas (min_replicas): worker 'w1'") && reason.contains("60 bytes"),
        "{reason}"
    );
    for _ in 0..2 {
        world.add(&[100], 0.0);
    }
    assert_eq!(view(&world), (ModelState::Ready, String::new()));
}

#[test]
fn pinned_and_kept_models_are_never_evicted_and_clients_learn_that_no_room_is_left() {
    for policy in
        [ModelPolicy { pin: true, ..Default::default() }, ModelPolicy { min_replicas: 1, ..Default::default() }]
    {
        let specs = vec![model("kept", 60, policy), model("b", 60, ModelPolicy::default())];
        let mut world = World::new(specs, &[&[100]]);
        let refused = world.submit(Ask::of(1)).unwrap_err();
        assert_eq!((refused.code, refused.retry_after.is_some()), (Code::Unavailable, true));
        assert!(refused.message.contains("needs 60 bytes, 40 can be had beside what is pinned or kept"), "{refused}");
        world.pass(20_000 * MS);
        assert_eq!(state(&world, "kept"), ModelState::Ready);
        // Another device is tried where the first one is full of such models.
        world.add(&[100], 0.0);
        let ticket = world.ask(1);
        world.finish(1, Fate::Ok);
        assert_eq!(world.outcome(ticket), Some(Ok(())));
    }
}

#[test]
fn a_model_that_fits_nowhere_is_refused_with_every_nodes_reason() {
    let mut world = World::new(vec![model("huge", 200, ModelPolicy::default())], &[&[100, 150], &[120]]);
    assert_eq!(world.submit(Ask::of(0)).unwrap_err().code, Code::Unavailable);
    assert_eq!(state(&world, "huge"), ModelState::Failed);
    let reason = world.core.model("huge").unwrap().reason;
    for part in
        ["worker 'w0': d0", "worker 'w0': d1", "worker 'w1': d0", "needs 200 bytes", "has 100", "has 150", "has 120"]
    {
        assert!(reason.contains(part), "{part} is not in: {reason}");
    }
}

#[test]
fn every_filter_says_what_is_wanted_and_what_is_there() {
    let labels = [("rack".to_owned(), "7".to_owned())].into();
    let needs = Requirements::default;
    let table = [
        (
            Requirements { device_kinds: vec!["cuda".into(), "metal".into()], ..needs() },
            "kind cuda or metal, this is cpu",
        ),
        (Requirements { datatype: "bf16".into(), ..needs() }, "computes in bf16, the device in f32, f16"),
        (Requirements { roles: vec!["hybrid".into()], ..needs() }, "role is compute, the model runs on others"),
        (Requirements { zone: "north".into(), ..needs() }, "wants zone 'north', the worker is in 'south'"),
        (Requirements { labels, ..needs() }, "wants label rack=7, the worker has rack=8"),
        (Requirements { instruction_sets: vec!["avx512f".into()], ..needs() }, "has no avx512f"),
        (
            Requirements { compute_capability: Some((9, 0)), ..needs() },
            "wants compute capability 9.0, the device has 8.6",
        ),
    ];
    for (requirements, text) in table {
        let spec = model("m", 1, ModelPolicy { requirements, ..ModelPolicy::default() });
        let mut world = World::new(vec![], &[&[100]]);
        // What is too large for the device is refused for more than that, or its needs would stand for those of others.
        let huge = ModelSpec { name: ModelName::new("huge").unwrap(), memory_bytes: 1000, ..spec.clone() };
        for spec in [&huge, &spec] {
            world.specs.push(Arc::new(spec.clone()));
            world.curves.push(ServiceCurve::default());
        }
        let worker = &mut world.core.workers[0];
        worker.capability.zone = "south".into();
        worker.capability.labels.insert("rack".into(), "8".into());
        let info = &mut world.core.devices[world.core.workers[0].devices[0]].info;
        (info.datatypes, info.compute_capability) = (vec!["f32".into(), "f16".into()], "8.6".into());
        for spec in [&huge, &spec] {
            world.core.want(world.now, &spec.name, format!("/{}", spec.name), true);
            world.collect();
        }
        let reason = world.core.model("m").unwrap().reason;
        assert!(reason.contains(text), "'{text}' is not in: {reason}");
        assert_eq!((world.loads, state(&world, "m")), (0, ModelState::Failed), "{text}");
        let places = world.core.explain_model(world.now, "m").unwrap().places;
        assert!(places[0].refusal.contains(text), "{:?}", places[0]);
    }
}

#[test]
fn an_unload_waits_for_what_runs_and_the_next_load_for_the_unload() {
    let mut world = World::new(vec![model("m", 60, ModelPolicy::default())], &[&[100]]);
    let name = world.specs[0].name.clone();
    let first = world.ask(0);
    let since = world.told.len();
    let changes = |world: &World| -> Vec<bool> {
        let changes = world.told[since..].iter().filter(|told| !matches!(told, Told::Other(_)));
        changes.map(|told| matches!(told, Told::Load(..))).collect()
    };
    world.core.unwant(world.now, "m").unwrap();
    world.collect();
    assert_eq!(world.submit(Ask::of(0)).unwrap_err().code, Code::Unavailable);
    world.core.want(world.now, &name, "/m".into(), true);
    world.collect();
    let second = world.ask(0);
    assert!(changes(&world).is_empty(), "the batch may still be on its way");
    world.finish(0, Fate::Ok);
    assert_eq!(changes(&world), [false, true]);
    world.finish(0, Fate::Ok);
    assert_eq!([first, second].map(|ticket| world.outcome(ticket)), [Some(Ok(())); 2]);
}

#[test]
fn a_load_that_was_lost_with_its_connection_is_asked_for_again() {
    let mut world = World::new(vec![model("m", 60, ModelPolicy::default())], &[]);
    world.prompt = false;
    world.add(&[100], 0.0);
    world.settle_loads();
    let name = world.specs[0].name.clone();
    for wanted in [false, true] {
        world.nodes[0].link = None;
        match wanted {
            true => world.core.want(world.now, &name, "/m".into(), true),
            false => world.core.unwant(world.now, "m").unwrap(),
        }
        world.collect();
        let session = world.nodes[0].session;
        world.core.suspect(world.now, session, "reset", 350 * MS, true);
        assert!(world.join(0));
        world.settle_loads();
        assert_eq!(state(&world, "m"), if wanted { ModelState::Ready } else { ModelState::Unloaded });
        assert_eq!(world.held(0, 0), if wanted { 60 } else { 0 });
    }
}

#[test]
fn a_cordoned_node_gets_no_models_a_drained_one_no_batches_and_both_come_back() {
    let mut world = World::new(vec![model("m", 60, ModelPolicy::default())], &[&[100], &[100]]);
    let home = (0..2).find(|at| world.held(*at, 0) == 60).unwrap();
    let (here, other) = (format!("w{home}"), format!("w{}", 1 - home));
    world.core.cordon(world.now, &other, Cordon::Cordoned).unwrap();
    world.core.cordon(world.now, &here, Cordon::Draining).unwrap();
    world.collect();
    assert_eq!(world.held(1 - home, 0), 0, "the other is cordoned");
    assert_eq!(world.submit(Ask::of(0)).unwrap_err().code, Code::Unavailable, "nobody may run it");
    world.core.cordon(world.now, &other, Cordon::No).unwrap();
    world.collect();
    let moved = world.ask(0);
    world.pass(MS);
    assert_eq!(world.finish(1 - home, Fate::Ok), Some(vec![moved]));
    assert_eq!(world.core.cordon(world.now, &here, Cordon::Draining).unwrap(), "drained");
    world.core.cordon(world.now, &here, Cordon::No).unwrap();
    world.core.cordon(world.now, &other, Cordon::Draining).unwrap();
    world.collect();
    world.ask(0);
    assert!(world.finish(home, Fate::Ok).is_some());
    assert_eq!(world.core.cordon(world.now, "nobody", Cordon::No).unwrap_err().code, Code::NotFound);
}

#[test]
fn a_retry_makes_no_more_copies_than_the_owner_allows() {
    let policy = ModelPolicy { max_replicas: Some(1), ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 60, policy)], &[&[100], &[100]]);
    world.ask(0);
    while (0..2).any(|at| world.finish(at, Fate::All(Code::Unavailable)).is_some()) {}
    assert_eq!((0..2).filter(|at| world.held(*at, 0) > 0).count(), 1);
}

#[test]
fn what_batches_taught_is_where_the_next_process_begins() {
    let mut world = World::new(vec![model("m", 1, ModelPolicy::default())], &[&[100]]);
    world.curves[0] = ServiceCurve { base_seconds: 0.04, per_row_seconds: 0.01 };
    for _ in 0..50 {
        world.ask(0);
        world.finish(0, Fate::Ok);
    }
    let curves = world.core.take_taught(9);
    assert_eq!((curves.len(), world.core.take_taught(9)), (1, vec![]));
    let mut next = World::new(vec![], &[]);
    next.core.remember(curves);
    next.specs = world.specs.clone();
    next.curves = vec![ServiceCurve { base_seconds: 1.0, per_row_seconds: 1.0 }];
    next.core.want(next.now, &world.specs[0].name, "/m".into(), false);
    next.add(&[100], 0.0);
    let cost = next.core.explain_model(next.now, "m").unwrap().places[0].cost.unwrap();
    assert!((cost.service_seconds - 0.05).abs() < 0.005, "{cost:?}");
    assert_eq!(next.core.take_taught(9), [], "what is kept stays until something newer is seen");
}

#[test]
fn a_second_long_request_does_not_wait_where_a_copy_would_answer_it_sooner() {
    let long = |name: &str| ModelSpec { max_batch_rows: 1, ..model(name, 60, ModelPolicy::default()) };
    let mut world = World::new(vec![long("m")], &[]);
    world.curves[0].base_seconds = 10.0;
    world.add(&[100], 0.0);
    world.add(&[100], 0.0);
    let tickets = [world.ask(0), world.ask(0)];
    world.pass(MS);
    let running: Vec<usize> = world.nodes.iter().map(|node| node.batches.len()).collect();
    assert_eq!(running, [1, 1], "the second runs on a copy of its own");
    for at in 0..2 {
        world.finish(at, Fate::Ok);
    }
    assert!(tickets.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))));
}

#[test]
fn one_low_request_does_not_push_out_a_model_that_is_asked_urgently() {
    let specs = ["urgent", "cold"].map(|name| model(name, 60, ModelPolicy::default()));
    let mut world = World::new(specs.into(), &[]);
    world.load_seconds = 10.0;
    world.add(&[100], 0.0);
    let parameters = |priority| Parameters { priority, ..Parameters::default() };
    let (mut cold, mut gone_at) = (None, None);
    let began = world.now;
    for step in 0..5_000 {
        let urgent = world.submit(Ask { parameters: parameters(Priority::Realtime), ..Ask::of(0) });
        world.pass(10 * MS);
        world.finish(0, Fate::Ok);
        world.pass(10 * MS);
        if step == 100 {
            cold = Some(world.submit(Ask { parameters: parameters(Priority::Low), ..Ask::of(1) }).unwrap());
        }
        let here = world.core.model("urgent").unwrap().ready_replicas > 0;
        if !here && gone_at.is_none() {
            gone_at = Some((world.now - began) / MS);
        }
        assert!(gone_at.is_some() || urgent.is_ok());
    }
    // Its device is busy for a quarter of the time, a tenth of which pays for the load.
    assert!(gone_at.is_some_and(|at| at > 20_000), "it was pushed out after {gone_at:?} ms");
    assert_eq!(world.outcome(cold.unwrap()), Some(Ok(())), "and nothing starves");
}
