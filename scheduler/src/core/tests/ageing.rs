//! Models that do not fit beside one that is never idle.

use orion_proto::{ModelPolicy, Parameters, Priority};

use super::{
    world::{Ask, Fate, World, model},
    *,
};

/// A device for one of these models at a time.
fn world(models: usize, round_trip: f64) -> World {
    let names = ["a", "b", "c"];
    let specs = names[..models].iter().map(|name| model(name, 60, ModelPolicy::default())).collect();
    let mut world = World::new(specs, &[]);
    world.add(&[100], round_trip);
    world
}

fn waiting(world: &World, model: usize) -> usize {
    let index = world.core.index(world.specs[model].name.as_str()).unwrap();
    world.core.models[index].queue.len()
}

/// Keeps more waiting for a model than its largest batch takes.
fn flood(world: &mut World, model: usize) {
    while waiting(world, model) < 32 {
        let parameters = Parameters { priority: Priority::Realtime, ..Parameters::default() };
        world.submit(Ask { parameters, ..Ask::of(model) }).unwrap();
    }
}

/// The device works until `until`; says how much of that each model had. `feed` is asked before each batch's end.
fn work(world: &mut World, until: Nanos, mut feed: impl FnMut(&mut World)) -> Vec<Nanos> {
    let mut had = vec![0; world.specs.len()];
    while world.now < until {
        feed(world);
        claims(&world.core);
        let Some(batch) = world.nodes[0].batches.front() else {
            world.pass(MS);
            continue;
        };
        let model = world.specs.iter().position(|spec| spec.name.as_str() == &*batch.model).unwrap();
        let service = (world.curves[model].seconds(batch.attempts.len()) * 1e9) as Nanos;
        had[model] += service;
        world.pass(service);
        world.finish(0, Fate::Ok);
    }
    had
}

/// The models that are nowhere are in the order in which they may claim a device.
fn claims(core: &TestCore) {
    let nowhere = |(index, model): (usize, &Model)| {
        let heads = model.queue.lanes().iter().filter_map(|lane| lane.waiting.front());
        let groups = model.queue.groups.iter().flat_map(|group| &group.waiting);
        let since = heads.chain(groups).map(|waiting| waiting.overdue_from(core.objective(index))).min();
        since.filter(|_| model.replicas.is_empty()).map(|since| (since, index))
    };
    let mut expected: Vec<_> = core.models.iter().enumerate().filter_map(nowhere).collect();
    expected.sort_unstable();
    assert_eq!(core.claims.iter().copied().collect::<Vec<_>>(), expected);
}

/// One request at a time of each model but the first, which floods the device.
struct Trickle {
    open: Vec<(u64, Nanos)>,
    answered: usize,
    worst: Nanos,
}

impl Trickle {
    fn new(world: &mut World) -> Self {
        let models = 1..world.specs.len();
        Self { open: models.map(|model| (low(world, model), world.now)).collect(), answered: 0, worst: 0 }
    }

    fn feed(&mut self, world: &mut World) {
        flood(world, 0);
        for (at, (ticket, since)) in self.open.iter_mut().enumerate() {
            self.worst = self.worst.max(world.now - *since);
            if world.outcome(*ticket).is_some() {
                self.answered += 1;
                (*ticket, *since) = (low(world, at + 1), world.now);
            }
        }
    }
}

fn low(world: &mut World, model: usize) -> u64 {
    let parameters = Parameters { priority: Priority::Low, ..Parameters::default() };
    world.submit(Ask { parameters, ..Ask::of(model) }).unwrap()
}

#[test]
fn a_model_that_does_not_fit_beside_one_that_is_never_idle_gets_its_turn() {
    // A device of the scheduler's process, and one that is given its next batch before it has answered the last.
    for round_trip in [0.0, 0.04] {
        for models in [2, 3] {
            let mut world = world(models, round_trip);
            flood(&mut world, 0);
            let mut trickle = Trickle::new(&mut world);
            let until = world.now + 60_000 * MS;
            let had = work(&mut world, until, |world| trickle.feed(world));
            let Trickle { answered, worst, .. } = trickle;
            let case = format!("{models} models, round trip {round_trip}: {answered} answered, device time {had:?}");
            assert!(worst <= 10_000 * MS, "one waited {} ms, {case}", worst / MS);
            assert!(had[0] > 48_000 * MS, "the others had more than is theirs, {case}");
        }
    }
}

#[test]
fn many_short_requests_past_their_objective_do_not_use_up_what_is_saved_for_an_older_one() {
    for fits in [false, true] {
        let bytes = if fits { 40 } else { 60 };
        let mut world = World::new(["a", "b"].map(|name| model(name, bytes, ModelPolicy::default())).into(), &[]);
        world.curves[1].base_seconds = 0.5;
        world.add(&[100], 0.0);
        let deep = |world: &mut World| {
            (waiting(world, 0)..200).for_each(|_| {
                world.ask(0);
            })
        };
        deep(&mut world);
        let slow = low(&mut world, 1);
        let until = world.now + 20_000 * MS;
        work(&mut world, until, deep);
        assert_eq!(world.outcome(slow), Some(Ok(())), "fits: {fits}");
    }
}

#[test]
fn two_models_that_both_flood_share_by_turns_that_are_worth_their_loads() {
    let mut world = world(2, 0.0);
    let until = world.now + 60_000 * MS;
    let had = work(&mut world, until, |world| (0..2).for_each(|model| flood(world, model)));
    // A turn costs two loads of 0.1 s and lasts as long.
    let (least, most) = (had[0].min(had[1]), had[0].max(had[1]));
    assert!(least > 1_500 * MS && least < most / 5, "{had:?}");
    assert!(least / world.loads > 50 * MS, "{} loads: {had:?}", world.loads);
}

#[test]
fn a_model_whose_turn_nobody_ends_is_one_as_others_are() {
    let mut world = world(2, 0.0);
    flood(&mut world, 0);
    let waits = low(&mut world, 1);
    let until = world.now + 10_000 * MS;
    work(&mut world, until, |world| {
        if world.outcome(waits).is_none() {
            flood(world, 0);
        }
    });
    assert_eq!(world.outcome(waits), Some(Ok(())));
    let until = world.now + 20_000 * MS;
    work(&mut world, until, |world| flood(world, 1));
    let device = &world.core.devices[world.core.workers[0].devices[0]];
    assert!(device.turn.is_none() && device.overdue_credit > 0, "{device:?}");
}

#[test]
fn a_turn_with_a_long_load_is_not_owed_for_by_what_is_there() {
    let specs = [("a", 50), ("b", 30), ("c", 95)].map(|(name, bytes)| model(name, bytes, ModelPolicy::default()));
    let mut world = World::new(specs.into(), &[]);
    world.load_seconds = 6.0;
    world.add(&[100], 0.0);
    flood(&mut world, 0);
    let turn = low(&mut world, 2);
    let (mut open, mut since, mut worst) = (low(&mut world, 1), world.now, 0);
    let until = world.now + 60_000 * MS;
    work(&mut world, until, |world| {
        flood(world, 0);
        if world.outcome(open).is_some() {
            worst = worst.max(world.now - since);
            (open, since) = (low(world, 1), world.now);
        }
    });
    worst = worst.max(world.now - since);
    assert_eq!(world.outcome(turn), Some(Ok(())), "it had its turn");
    assert!(worst < 15_000 * MS, "one waited {} ms for a device that holds its model", worst / MS);
}
