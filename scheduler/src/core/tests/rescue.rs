//! No request is refused, or given to a device that failed it, for want of a copy that another device could have.

use orion_proto::{ModelPolicy, Parameters, Sequence, ServiceCurve};

use super::{
    world::{Ask, Fate, World, model},
    *,
};

/// A model of which a row takes 200 ms, first on one of the workers.
fn on(workers: usize, policy: ModelPolicy) -> World {
    let mut world = World::new(vec![model("m", 60, policy)], &[]);
    world.curves[0] = ServiceCurve { base_seconds: 0.0, per_row_seconds: 0.2 };
    (0..workers).for_each(|_| _ = world.add(&[100], 0.0));
    world
}

fn copies(world: &World) -> usize {
    (0..world.nodes.len()).filter(|at| world.held(*at, 0) > 0).count()
}

#[test]
fn a_deadline_that_a_new_copy_meets_is_not_refused() {
    for (load_seconds, admitted) in [(0.05, true), (0.3, false)] {
        let mut world = on(0, ModelPolicy::default());
        world.load_seconds = load_seconds;
        (0..2).for_each(|_| _ = world.add(&[100], 0.0));
        world.ask(0);
        let (holder, copies_before) = (world.ran[0].0, copies(&world));
        let ask = Ask { deadline: Some(300 * MS), ..Ask::of(0) };
        match world.submit(ask) {
            Ok(ticket) => {
                assert!(admitted, "a load of {load_seconds} s");
                assert_eq!((world.ran[1].0, copies(&world)), (1 - holder, copies_before + 1));
                world.finish(1 - holder, Fate::Ok);
                assert_eq!(world.outcome(ticket), Some(Ok(())));
            }
            Err(error) => {
                assert!(!admitted, "a load of {load_seconds} s: {error}");
                assert_eq!((error.code, copies(&world)), (Code::ResourceExhausted, copies_before));
            }
        }
    }
}

#[test]
fn what_goes_on_with_a_sequence_makes_no_copy() {
    let mut world = on(2, ModelPolicy { sequences: true, ..ModelPolicy::default() });
    let ask = |start, deadline| {
        let sequence = Some(Sequence { key: 9, start, end: false });
        Ask { deadline, parameters: Parameters { sequence, idempotent: false, ..Parameters::default() }, ..Ask::of(0) }
    };
    let first = world.submit(ask(true, None)).unwrap();
    world.ask(0);
    let before = copies(&world);
    assert!(world.submit(ask(false, Some(300 * MS))).is_err());
    let unknown = Sequence { key: 8, start: false, end: false };
    let parameters = Parameters { sequence: Some(unknown), idempotent: false, ..Parameters::default() };
    let error = world.submit(Ask { parameters, deadline: Some(300 * MS), ..Ask::of(0) }).unwrap_err();
    assert_eq!((error.code, copies(&world)), (Code::FailedPrecondition, before));
    assert!(world.outcome(first).is_none());
}

#[test]
fn a_queue_is_not_full_while_a_device_could_take_a_copy() {
    let policy = ModelPolicy { max_queue: Duration::from_millis(500), ..ModelPolicy::default() };
    let mut world = on(3, policy);
    let asked: Vec<_> = (0..20).map(|_| world.submit(Ask::of(0))).collect();
    let refused = asked.iter().filter(|asked| asked.is_err()).count();
    assert_eq!(copies(&world), 3, "{refused} were refused");
    assert!(refused > 0, "what three devices cannot do in time is");
}

#[test]
fn what_a_balancer_binds_calls_for_copies_too() {
    let policy = ModelPolicy { balancer: "least-connections".into(), ..ModelPolicy::default() };
    let mut world = on(3, policy);
    (0..60).for_each(|_| _ = world.ask(0));
    assert_eq!(copies(&world), 3);
    let mut crowded =
        on(1, ModelPolicy { balancer: "round-robin".into(), max_replicas: Some(1), ..ModelPolicy::default() });
    crowded.add(&[100], 0.0);
    (0..60).for_each(|_| _ = crowded.ask(0));
    assert_eq!(copies(&crowded), 1, "its owner wants no more");
}

#[test]
fn a_request_goes_to_a_new_copy_before_it_goes_back_to_where_it_failed() {
    let mut world = on(3, ModelPolicy { min_replicas: 2, ..ModelPolicy::default() });
    assert_eq!(copies(&world), 2);
    let ticket = world.ask(0);
    for _ in 0..2 {
        let at = world.ran.last().unwrap().0;
        world.finish(at, Fate::All(Code::Unavailable));
    }
    let ran: std::collections::BTreeSet<usize> = world.ran.iter().map(|ran| ran.0).collect();
    assert_eq!((ran.len(), world.ran.len()), (3, 3), "{:?}", world.ran);
    let at = world.ran.last().unwrap().0;
    world.finish(at, Fate::Ok);
    assert_eq!(world.outcome(ticket), Some(Ok(())));
}

#[test]
fn a_node_that_is_back_keeps_no_more_copies_than_there_may_be() {
    let mut world = on(2, ModelPolicy { max_replicas: Some(1), ..ModelPolicy::default() });
    let holder = (0..2).find(|at| world.held(*at, 0) > 0).unwrap();
    let name = world.nodes[holder].name.clone();
    world.core.cordon(world.now, &name, Cordon::Draining).unwrap();
    world.collect();
    assert_eq!(copies(&world), 2, "moved, and still on the node that is emptied");
    world.core.cordon(world.now, &name, Cordon::No).unwrap();
    world.collect();
    assert_eq!((copies(&world), world.held(1 - holder, 0)), (1, 60));
}

#[test]
fn who_is_refused_is_told_why_and_can_ask_again() {
    let mut world = on(1, ModelPolicy::default());
    world.ask(0);
    let error = world.submit(Ask { deadline: Some(MS), ..Ask::of(0) }).unwrap_err();
    let refused = *world.sent.keys().last().unwrap();
    let told = world.core.explain_request(world.now, &refused.to_string()).unwrap();
    assert_eq!((&*told.outcome, told.attempts), (error.code.name(), 0));
    assert!(told.why.contains(&error.message), "{told:?}");
}
