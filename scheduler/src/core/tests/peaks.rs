//! The memory that batches take beside the weights.

use orion_proto::ModelPolicy;

use super::{
    world::{Fate, World, model},
    *,
};

fn activations(world: &World) -> u64 {
    world.core.devices[world.core.workers[0].devices[0]].ledger.activations()
}

/// A batch of so many requests is answered; says whether the worker told that it took so much.
fn run(world: &mut World, index: usize, rows: usize, peak_bytes: u64) {
    let filler = world.ask(index);
    world.pass(MS);
    (1..=rows).for_each(|_| {
        world.ask(index);
    });
    if world.nodes[0].batches.front().is_some_and(|batch| batch.attempts.len() == 1) {
        world.finish(0, Fate::Ok);
    }
    assert_eq!(world.outcome(filler), Some(Ok(())));
    world.peak_bytes = peak_bytes;
    assert_eq!(world.finish(0, Fate::Ok).map(|tickets| tickets.len()), Some(rows));
    world.peak_bytes = 0;
}

#[test]
fn a_figure_that_cannot_be_does_not_block_a_class_of_devices() {
    let specs = [("a", 20), ("b", 30), ("c", 60)].map(|(name, bytes)| model(name, bytes, ModelPolicy::default()));
    let mut world = World::new(specs.into(), &[&[100]]);
    run(&mut world, 0, 4, u64::MAX);
    assert_eq!(activations(&world), 50, "the weights of two models were there");
    run(&mut world, 2, 1, 0);
    assert_eq!(activations(&world), 0, "it was pushed out");
    run(&mut world, 0, 4, 5);
    run(&mut world, 1, 1, 0);
    assert_eq!((activations(&world), world.held(0, 0)), (5, 50), "a later batch knew better");
}

#[test]
fn a_batch_of_fewer_rows_does_not_know_better() {
    let mut world = World::new(vec![model("a", 20, ModelPolicy::default())], &[&[100]]);
    for (rows, told, kept) in [(4, 40, 40), (2, 10, 40), (2, 45, 45), (4, 30, 30), (8, 60, 60), (8, 0, 60)] {
        run(&mut world, 0, rows, told);
        assert_eq!(activations(&world), kept, "{rows} rows, {told} told");
    }
}

#[test]
fn a_session_that_comes_back_does_not_tell_of_its_warm_up_anew() {
    let mut world = World::new(vec![model("a", 20, ModelPolicy::default())], &[&[100]]);
    run(&mut world, 0, 8, 70);
    run(&mut world, 0, 8, 30);
    let here = world.nodes[0].residents[&(0, 0)];
    let report = Report { peak_bytes: 70, ..world.report(0, 0, here.state, here.order) };
    world.tell(0, report);
    assert_eq!(activations(&world), 30);
}

#[test]
fn room_for_batches_is_kept_where_other_processes_hold_memory() {
    let specs = [("a", 20), ("b", 30)].map(|(name, bytes)| model(name, bytes, ModelPolicy::default()));
    let mut world = World::new(specs.into(), &[]);
    world.core.unwant(world.now, "b").unwrap();
    world.add(&[100], 0.0);
    run(&mut world, 0, 8, 25);
    let figures =
        session::DeviceTelemetry { name: "d0".into(), memory_free_bytes: 50, ..session::DeviceTelemetry::default() };
    let telemetry = session::Telemetry { devices: vec![figures], ..session::Telemetry::default() };
    world.core.telemetry(world.now, world.nodes[0].session, telemetry);
    let name = world.specs[1].name.clone();
    world.core.want(world.now, &name, format!("/{name}"), false);
    world.collect();
    assert_eq!(world.held(0, 0), 20, "25 of the 50 that are free are for the batches of the first");
}
