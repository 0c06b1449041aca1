//! Requests with much time, with little and with any in one queue.

use orion_proto::{ModelPolicy, ServiceCurve};

use super::{
    world::{Ask, Fate, World, model},
    *,
};

#[test]
fn one_request_that_has_hours_does_not_keep_a_busy_model_from_its_second_copy() {
    for patient in [false, true] {
        let mut world = World::new(vec![model("m", 60, ModelPolicy::default())], &[&[100], &[100]]);
        world.ask(0);
        if patient {
            world.submit(Ask { deadline: Some(3_600_000 * MS), ..Ask::of(0) }).unwrap();
        }
        let mut asked = 0;
        while world.loads == 1 && asked < 400 {
            world.ask(0);
            asked += 1;
        }
        assert_eq!(world.loads, 2, "patient: {patient}");
    }
}

#[test]
fn what_cannot_be_met_any_more_is_found_behind_what_has_no_deadline() {
    let mut world = World::new(vec![model("m", 1, ModelPolicy { min_replicas: 1, ..Default::default() })], &[&[100]]);
    world.ask(0);
    let soft: Vec<u64> = (0..6).map(|_| world.ask(0)).collect();
    // Due after the others' objective of 100 ms, so behind them.
    let hard = |world: &mut World, ms: Nanos| world.submit(Ask { deadline: Some(ms * MS), ..Ask::of(0) }).unwrap();
    let (lost, met) = (hard(&mut world, 150), hard(&mut world, 400));
    world.pass(148 * MS);
    world.finish(0, Fate::Ok);
    assert_eq!(world.outcome(lost), Some(Err(Code::ResourceExhausted)));
    let batch = world.finish(0, Fate::Ok).unwrap();
    assert!(batch.contains(&met) && soft.iter().all(|ticket| batch.contains(ticket)), "{batch:?}");
}

#[test]
fn rows_that_one_idle_device_leaves_to_another_run_there() {
    let policy = ModelPolicy { min_replicas: 2, ..Default::default() };
    let mut world = World::new(vec![model("m", 60, policy)], &[]);
    // The first is sooner done with a row, the second with eight.
    for (base_seconds, per_row_seconds) in [(0.001, 0.02), (0.03, 0.001)] {
        world.curves[0] = ServiceCurve { base_seconds, per_row_seconds };
        world.add(&[100], 0.0);
        world.pass(MS);
        world.settle_loads();
    }
    for (rows, at) in [(1, 0), (8, 1)] {
        let ticket = world.submit(Ask { rows, ..Ask::of(0) }).unwrap();
        assert_eq!(world.finish(at, Fate::Ok), Some(vec![ticket]), "{rows} rows");
    }
}
