//! What a deadline is held against, at the door and in the queue.

use std::collections::BTreeMap;

use orion_proto::{ModelPolicy, Parameters, Priority};

use super::{
    world::{Ask, Fate, Sent, World, model},
    *,
};

/// One model on one device, whose rows differ in length.
fn world() -> World {
    let mut spec = model("m", 1, ModelPolicy { min_replicas: 1, ..ModelPolicy::default() });
    spec.inputs = vec![TensorSpec::new("text", Datatype::Bytes, [-1])];
    World::new(vec![spec, model("other", 1, ModelPolicy::default())], &[&[100]])
}

/// A request of one row of so many bytes.
fn submit(world: &mut World, bytes: usize, within: Nanos) -> Result<u64> {
    let ticket = world.sent.len() as u64 + 1;
    let deadline = Some(world.now + within);
    let request = InferRequest { id: ticket.to_string(), ..InferRequest::default() };
    let admitted = Admitted {
        spec: world.specs[0].clone(),
        request: Arc::new(request),
        rows: 1,
        bytes,
        deadline,
        generation: None,
    };
    world.sent.insert(ticket, Sent { rows: 1, idempotent: true, deadline, ..Sent::default() });
    let submitted = world.core.submit(world.now, admitted, ticket);
    let sent = world.sent.get_mut(&ticket).unwrap();
    match submitted {
        Ok(key) => sent.key = Some(key),
        Err(_) => sent.cancelled = true,
    }
    world.collect();
    submitted.map(|_| ticket)
}

fn line(world: &World, bucket: u8) -> curve::Line {
    let index = world.core.index("m").unwrap();
    world.core.replicas[world.core.models[index].replicas[0]].line(bucket)
}

/// Batches of which one in eight takes six times as long, until predictions count for little.
fn shake(world: &mut World) {
    let usual = world.curves[0];
    for round in 0..400 {
        submit(world, 8, 1_000 * MS).unwrap();
        world.curves[0].base_seconds = usual.base_seconds * if round % 8 == 0 { 6.0 } else { 1.0 };
        world.pass(MS);
        world.finish(0, Fate::Ok);
    }
    world.curves[0] = usual;
}

#[test]
fn a_length_that_was_never_seen_is_tried_and_then_known() {
    let mut world = world();
    let twice = 2 * line(&world, 0).predict(1);
    assert!(line(&world, 2).predict(1) > twice);
    let tried = submit(&mut world, 600, twice).unwrap();
    world.curves[0].base_seconds *= 4.0;
    world.curves[0].per_row_seconds *= 4.0;
    world.pass(1);
    world.finish(0, Fate::Ok);
    assert_eq!(world.outcome(tried), Some(Ok(())));
    assert_eq!(submit(&mut world, 600, twice).unwrap_err().code, Code::DeadlineExceeded, "it is known by now");
    assert!(submit(&mut world, 8, twice).is_ok(), "short ones are as they were");
}

#[test]
fn an_idle_device_runs_what_is_admitted_and_refuses_the_rest_for_the_deadlines_sake() {
    let mut world = world();
    for shaken in [false, true] {
        if shaken {
            shake(&mut world);
            assert!(line(&world, 0).inflation > 1.6, "{:?}", line(&world, 0));
        }
        let (mut ran, mut refused) = (0, 0);
        for bytes in [8, 200, 600, 3000] {
            for tenths in 5..60 {
                let within = line(&world, 0).predict(1) / 10 * tenths;
                match submit(&mut world, bytes, within) {
                    Ok(ticket) => {
                        assert_eq!(world.finish(0, Fate::Ok), Some(vec![ticket]), "{bytes} bytes, {within} ns");
                        ran += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.code, Code::DeadlineExceeded, "{error}");
                        refused += 1;
                    }
                }
                world.pass(1_000 * MS);
            }
        }
        assert!(ran > 100 && refused > 10, "{ran} ran, {refused} were refused");
    }
}

#[test]
fn deadlines_that_predictions_put_in_doubt_are_tried_beside_other_work_until_predictions_are_trusted_again() {
    let mut world = world();
    shake(&mut world);
    world.curves[1] = ServiceCurve { base_seconds: 0.001, per_row_seconds: 0.0 };
    // What the other model takes is learnt first.
    (0..50).for_each(|_| {
        world.ask(1);
        world.finish(0, Fate::Ok);
    });
    let before = line(&world, 0).inflation;
    let within = line(&world, 0).predict(1) * 3 / 2;
    assert!(before > 1.6, "{before}");
    let (mut met, rounds) = (0, 1_000);
    for _ in 0..rounds {
        while world.core.requests.len() < 5 {
            let parameters = Parameters { priority: Priority::Low, ..Parameters::default() };
            world.submit(Ask { parameters, ..Ask::of(1) }).unwrap();
        }
        // It comes while the other model runs, and more of that waits.
        let asked = submit(&mut world, 8, within + 2 * MS).unwrap();
        world.pass(MS);
        world.finish(0, Fate::Ok);
        let tried = world.ran.last().is_some_and(|(_, _, tickets)| tickets.contains(&asked));
        world.pass(if tried { 5 * MS } else { MS });
        world.finish(0, Fate::Ok);
        met += usize::from(world.outcome(asked) == Some(Ok(())));
        world.core.expire(world.now, world.sent[&asked].key.unwrap());
        world.collect();
    }
    let after = line(&world, 0).inflation;
    assert!(met * 2 > rounds && after < before - 0.2, "{met} of {rounds} were tried, {before} became {after}");
}

#[test]
fn what_a_device_that_became_slow_cannot_do_in_time_is_refused_for_the_deadlines_sake() {
    let mut world = world();
    let usual = line(&world, 0).predict(1);
    submit(&mut world, 8, 1_000 * MS).unwrap();
    let waits = submit(&mut world, 8, 3 * usual).unwrap();
    world.curves[0].base_seconds *= 100.0;
    world.pass(usual);
    world.finish(0, Fate::Ok);
    assert_eq!(world.outcome(waits), Some(Err(Code::DeadlineExceeded)));
}

/// A device behind a link, on which batches that were given start in turn; says when each answer was back, and its deadline.
fn carry_out(world: &mut World, one_way: Nanos, per_byte: Nanos) -> Vec<(Nanos, Nanos)> {
    let (mut free, mut ends, mut back) = (0, BTreeMap::new(), Vec::new());
    while world.core.unsettled() > 0 {
        for batch in &world.nodes[0].batches {
            ends.entry(batch.batch).or_insert_with(|| {
                let given = world.core.batches[&batch.batch].given;
                let rows = batch.attempts.len();
                free = (given + one_way + per_byte * 8 * rows as Nanos).max(free);
                free += (world.curves[0].seconds(rows) * 1e9) as Nanos;
                free + one_way
            });
        }
        let first = world.nodes[0].batches.front().map(|batch| ends[&batch.batch]);
        if let Some(end) = first.filter(|end| *end <= world.now) {
            let tickets = world.finish(0, Fate::Ok).unwrap();
            back.extend(tickets.iter().filter_map(|ticket| Some((end, world.sent[ticket].deadline?))));
        }
        world.pass(MS / 10);
    }
    back
}

/// A model on a device that is 40 ms away, which each byte makes longer by so much.
fn far_away(per_byte: Nanos) -> World {
    let mut world = World::new(vec![model("m", 1, ModelPolicy { min_replicas: 1, ..Default::default() })], &[]);
    world.add(&[100], 0.08);
    let rate = if per_byte > 0 { 1e9 / per_byte as f64 } else { 0.0 };
    let measured = session::Measurement { scheduler_bytes_per_second: rate, ..session::Measurement::default() };
    world.core.workers[0].measurement = Some(measured);
    world
}

#[test]
fn answers_are_in_time_where_they_arrive_not_where_they_are_computed() {
    let mut world = far_away(0);
    world.ask(0);
    // More than the device can do in time, in a queue that is there at once.
    let asked = (0..160).filter(|at| {
        let deadline = Some((110 + 2 * at) * MS);
        world.submit(Ask { deadline, ..Ask::of(0) }).is_ok()
    });
    let asked = asked.count();
    let back = carry_out(&mut world, 40 * MS, 0);
    let late = back.iter().filter(|(at, deadline)| at > deadline).count();
    assert!(late == 0 && back.len() * 2 > asked, "{late} of {} answers are late, {asked} asked", back.len());
}

#[test]
fn a_batch_is_no_larger_than_its_bytes_can_be_carried_in_time() {
    // Rows of a batch that was to hold eight: each takes 1 ms there, and on the way nothing or 0.8 ms.
    for (per_byte, rows) in [(0, 8), (100_000, 6)] {
        let mut world = far_away(per_byte);
        world.ask(0);
        let deadline = Some(100 * MS);
        (0..8).for_each(|_| {
            world.submit(Ask { deadline, ..Ask::of(0) }).unwrap();
        });
        let back = carry_out(&mut world, 40 * MS, per_byte);
        let in_time = back.iter().filter(|(at, deadline)| at <= deadline).count();
        assert_eq!((in_time, back.len()), (rows, rows), "{per_byte} ns a byte: {back:?}");
    }
}

#[test]
fn a_request_that_only_the_way_makes_late_is_not_run() {
    let mut world = World::new(vec![model("m", 1, ModelPolicy { min_replicas: 1, ..Default::default() })], &[]);
    world.add(&[100], 0.08);
    world.ask(0);
    let waits = world.submit(Ask { deadline: Some(300 * MS), ..Ask::of(0) }).unwrap();
    let ran = world.ran.len();
    // What is left of its time is enough to compute it, not to bring it there and back.
    // The scheduler stood still meanwhile: it gave nothing ahead.
    world.now += 235 * MS;
    world.finish(0, Fate::Ok);
    assert_eq!((world.outcome(waits), world.ran.len()), (Some(Err(Code::ResourceExhausted)), ran));
}

#[test]
fn who_ran_out_of_time_behind_other_work_is_told_to_come_back() {
    for breaks in [false, true] {
        let mut world = world();
        let runs = submit(&mut world, 1, 300 * MS).unwrap();
        let waits = submit(&mut world, 1, 300 * MS).unwrap();
        let id = world.core.models[world.core.index("m").unwrap()].replicas[0];
        if breaks {
            (0..10).for_each(|_| world.core.replicas[id].failed(world.now));
        }
        world.now += 301 * MS;
        for ticket in [waits, runs] {
            world.core.expire(world.now, world.sent[&ticket].key.unwrap());
        }
        let settled = |ticket: u64| world.core.explain_request(world.now, &ticket.to_string()).unwrap().outcome;
        let behind_others = if breaks { Code::DeadlineExceeded } else { Code::ResourceExhausted };
        assert_eq!([settled(waits), settled(runs)], [behind_others, Code::DeadlineExceeded].map(|code| code.name()));
    }
}

#[test]
fn what_is_nowhere_is_not_promised_while_the_copy_engine_is_busy() {
    let specs = ["m", "long", "cold"].map(|name| model(name, 60, ModelPolicy::default()));
    let mut world = World::new(specs.into(), &[]);
    world.load_seconds = 5.0;
    world.add(&[100], 0.0);
    world.prompt = false;
    world.ask(1);
    world.pass(MS);
    let soon = |within: Nanos| Ask { deadline: Some(within), ..Ask::of(2) };
    let refused = world.submit(soon(8_000 * MS)).unwrap_err();
    assert_eq!(refused.code, Code::DeadlineExceeded, "{refused}");
    let told = world.core.explain_model(world.now, "cold").unwrap();
    let load = told.places[0].cost.unwrap().load_seconds;
    assert!((9.9..10.1).contains(&load), "{load} s");
    assert!(world.submit(soon(11_000 * MS)).is_ok());
}

#[test]
fn what_is_due_before_leaves_no_time() {
    let policy = ModelPolicy { min_replicas: 2, ..ModelPolicy::default() };
    let mut world = World::new(vec![model("m", 1, policy)], &[&[100], &[100]]);
    let ask = |world: &mut World| world.submit(Ask { rows: 8, deadline: Some(50 * MS), ..Ask::of(0) });
    // Each device takes eight rows in 12 ms: one batch runs on each, and three more are in time.
    let taken: Vec<u64> = (0..30).filter_map(|_| ask(&mut world).ok()).collect();
    let refused = ask(&mut world).unwrap_err();
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::ResourceExhausted, true), "{refused}");
    // It is the least, so a few may be too many, none too few.
    assert!((8..=20).contains(&taken.len()), "{} were taken", taken.len());
    while taken.iter().any(|ticket| world.outcome(*ticket).is_none()) {
        world.pass(12 * MS);
        (0..2).for_each(|at| _ = world.finish(at, Fate::Ok));
    }
    let answered = taken.iter().filter(|ticket| world.outcome(**ticket) == Some(Ok(()))).count();
    assert_eq!(answered, 8, "as many as without the refusals");
}

#[test]
fn what_cannot_be_in_time_itself_takes_no_time_of_what_is_due_later() {
    let policy = ModelPolicy { min_replicas: 1, ..ModelPolicy::default() };
    let mut spec = model("m", 1, policy);
    spec.max_batch_rows = 1;
    let mut world = World::new(vec![spec], &[&[100]]);
    // A row takes 5 ms. Each of these is in time behind those that are due before it, but not all of them are.
    for due in (10..100).rev() {
        _ = world.submit(Ask { deadline: Some(due * MS), ..Ask::of(0) });
    }
    let later = world.submit(Ask { deadline: Some(150 * MS), ..Ask::of(0) }).unwrap();
    while world.outcome(later).is_none() {
        world.pass(5 * MS);
        world.finish(0, Fate::Ok);
    }
    assert_eq!(world.outcome(later), Some(Ok(())));
}

#[test]
fn what_is_late_behind_the_batch_that_runs_takes_no_time_of_what_is_due_later() {
    let names = ["m", "other"];
    let one_by_one = names.map(|name| ModelSpec { max_batch_rows: 1, ..model(name, 1, ModelPolicy::default()) });
    let mut world = World::new(one_by_one.to_vec(), &[]);
    world.curves.fill(ServiceCurve { base_seconds: 0.05, per_row_seconds: 0.0 });
    world.add(&[100], 0.0);
    let urgent = |deadline| {
        let parameters = Parameters { priority: Priority::Realtime, ..Parameters::default() };
        Ask { parameters, deadline, ..Ask::of(1) }
    };
    world.submit(urgent(None)).unwrap();
    world.submit(Ask { deadline: Some(120 * MS), ..Ask::of(0) }).unwrap();
    world.submit(urgent(Some(150 * MS))).unwrap();
    world.pass(50 * MS);
    world.finish(0, Fate::Ok);
    world.pass(10 * MS);
    // The device is busy for 40 ms more: the one that waits would take until 150 ms, and is due at 120.
    let later = world.submit(Ask { deadline: Some(100 * MS), ..Ask::of(0) }).expect("150 ms are in time for 160");
    world.pass(40 * MS);
    world.finish(0, Fate::Ok);
    world.pass(50 * MS);
    world.finish(0, Fate::Ok);
    assert_eq!(world.outcome(later), Some(Ok(())));
}

#[test]
fn a_deadline_before_the_next_probe_of_an_open_breaker_is_refused_at_once() {
    let mut world = World::new(vec![model("m", 1, ModelPolicy::default())], &[&[100]]);
    let id = world.core.models[world.core.index("m").unwrap()].replicas[0];
    (0..5).for_each(|_| world.core.replicas[id].failed(world.now));
    let pause = world.core.replicas[id].breaker.shut_for(world.now);
    let refused = world.submit(Ask { deadline: Some(pause / 2), ..Ask::of(0) }).unwrap_err();
    assert!(refused.code == Code::ResourceExhausted && refused.retry_after.is_some(), "{refused}");
    world.submit(Ask { deadline: Some(pause * 2), ..Ask::of(0) }).unwrap();
}
