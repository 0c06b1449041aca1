//! Small models that push each other out without end, and a large one that needs the room of all of them.

use orion_proto::{ModelPolicy, Parameters, Priority};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    world::{Ask, Fate, World, model},
    *,
};

/// What a load of the tests takes.
const LOAD: Nanos = 150 * MS;

struct Thrash {
    world: World,
    random: StdRng,
    open: Vec<(u64, Nanos)>,
    /// The longest that one of the small models was waited for.
    small_waited: Nanos,
    small: usize,
    small_priority: Priority,
    batch_ends: Option<Nanos>,
    load_ends: Option<Nanos>,
}

impl Thrash {
    /// So many models of a quarter of the device, and one of this size.
    fn new((small, small_priority): (usize, Priority), large: u64, clients: usize) -> Self {
        let mut specs: Vec<ModelSpec> =
            (0..small).map(|at| model(&format!("s{at}"), 25, ModelPolicy::default())).collect();
        specs.push(model("large", large, ModelPolicy::default()));
        let mut world = World::new(specs, &[]);
        (world.prompt, world.load_seconds) = (false, LOAD as f64 / 1e9);
        world.add(&[100], 0.0);
        let random = StdRng::seed_from_u64(3);
        let mut thrash = Self {
            world,
            random,
            open: Vec::new(),
            small_waited: 0,
            small,
            small_priority,
            batch_ends: None,
            load_ends: None,
        };
        thrash.open = (0..clients).map(|_| (thrash.ask_small(), thrash.world.now)).collect();
        thrash
    }

    /// Of a model that is asked for as often as its place among them says (Zipf).
    fn ask_small(&mut self) -> u64 {
        let whole: f64 = (1..=self.small).map(|place| 1.0 / place as f64).sum();
        let mut left = self.random.random::<f64>() * whole;
        let found = (0..self.small).find(|at| {
            left -= 1.0 / (at + 1) as f64;
            left <= 0.0
        });
        let parameters = Parameters { priority: self.small_priority, ..Parameters::default() };
        self.world.submit(Ask { parameters, ..Ask::of(found.unwrap_or(0)) }).unwrap()
    }

    fn ask_large(&mut self, priority: Priority) -> u64 {
        let parameters = Parameters { priority, ..Parameters::default() };
        self.world.submit(Ask { parameters, ..Ask::of(self.small) }).unwrap()
    }

    /// A millisecond passes; who is answered asks again.
    fn step(&mut self) {
        let world = &mut self.world;
        world.pass(MS);
        while world.unloaded(0) {}
        let loads = world.nodes[0].residents.values().any(|resident| resident.state == ModelState::Loading);
        match self.load_ends {
            Some(end) if end <= world.now => {
                world.loaded(0, true);
                self.load_ends = None;
            }
            None if loads => self.load_ends = Some(world.now + LOAD),
            _ => {}
        }
        match (self.batch_ends, world.nodes[0].batches.front()) {
            (Some(end), Some(_)) if end <= world.now => {
                world.finish(0, Fate::Ok);
                self.batch_ends = None;
            }
            (None, Some(_)) => self.batch_ends = Some(world.now + 20 * MS),
            _ => {}
        }
        for at in 0..self.open.len() {
            let (ticket, since) = self.open[at];
            self.small_waited = self.small_waited.max(self.world.now - since);
            if self.world.outcome(ticket).is_some() {
                self.open[at] = (self.ask_small(), self.world.now);
            }
        }
    }

    /// The longest of several requests to the large model, one after the other, all within so long.
    fn longest_wait(&mut self, priority: Priority, within: Nanos) -> Nanos {
        (0..1_000).for_each(|_| self.step());
        let (until, mut longest) = (self.world.now + within, 0);
        while self.world.now < until {
            let (asked, ticket) = (self.world.now, self.ask_large(priority));
            while self.world.outcome(ticket).is_none() && self.world.now < until {
                self.step();
            }
            longest = longest.max(self.world.now - asked);
            (0..50).for_each(|_| self.step());
        }
        longest
    }
}

#[test]
fn a_model_that_needs_a_whole_device_gets_it_from_small_ones_that_are_loaded_without_end() {
    for (small, large, clients) in [(16, 100, 30), (6, 100, 30), (16, 100, 10), (5, 80, 30)] {
        for (priority, most) in [(Priority::Normal, 20_000), (Priority::Low, 20_000), (Priority::Realtime, 4_000)] {
            let mut thrash = Thrash::new((small, Priority::Normal), large, clients);
            let longest = thrash.longest_wait(priority, 40_000 * MS);
            let case = format!("{small} small models, {clients} clients, {large} bytes, {priority:?}");
            assert!(longest <= most * MS, "{case}: {} ms", longest / MS);
            let others = thrash.small_waited / MS;
            assert!(others <= 20_000, "{case}: a small one waited {others} ms");
        }
    }
}

#[test]
fn a_realtime_request_brings_its_model_whatever_waits_with_it() {
    let mut thrash = Thrash::new((16, Priority::Normal), 100, 30);
    (0..200).for_each(|_| _ = thrash.ask_large(Priority::Low));
    let longest = thrash.longest_wait(Priority::Realtime, 40_000 * MS);
    assert!(longest <= 4_000 * MS, "it waited {} ms", longest / MS);
}

#[test]
fn a_device_is_claimed_although_many_wait_longer_for_another() {
    let mut specs = vec![model("s", 60, ModelPolicy::default())];
    specs.extend((0..20).map(|at| model(&format!("b{at}"), 150, ModelPolicy::default())));
    specs.push(model("large", 100, ModelPolicy::default()));
    let mut world = World::new(specs, &[&[100]]);
    world.prompt = false;
    // A load that does not end.
    world.add(&[200], 0.0);
    (1..=20).for_each(|at| _ = world.ask(at));
    world.pass(500 * MS);
    (0..40).for_each(|_| _ = world.ask(0));
    let (asked, large) = (world.now, world.ask(21));
    while world.outcome(large).is_none() {
        assert!(world.now < asked + 20_000 * MS, "it is not brought");
        (0..8).for_each(|_| _ = world.ask(0));
        world.pass(20 * MS);
        while world.unloaded(0) {}
        world.loaded(0, true);
        world.finish(0, Fate::Ok);
    }
    assert_eq!(world.nodes[1].residents.len(), 1);
}

#[test]
fn small_ones_that_are_more_urgent_leave_the_savings_to_the_oldest() {
    let mut thrash = Thrash::new((16, Priority::Realtime), 100, 40);
    let longest = thrash.longest_wait(Priority::Low, 60_000 * MS);
    assert!(longest <= 30_000 * MS, "it waited {} ms", longest / MS);
}

#[test]
fn what_is_there_runs_while_another_load_must_end_first() {
    let specs = [("there", 25), ("pad", 50), ("slow", 25), ("large", 100)];
    let specs = specs.map(|(name, bytes)| model(name, bytes, ModelPolicy::default()));
    let mut world = World::new(specs.into(), &[&[100]]);
    let slow = world.core.index("slow").unwrap();
    world.core.unwant(world.now, "slow").unwrap();
    world.collect();
    world.prompt = false;
    world.core.want(world.now, &world.specs[2].name, "/slow".into(), true);
    world.collect();
    assert_eq!(world.core.model_state(slow), ModelState::Loading);
    let parameters = Parameters { priority: Priority::Realtime, ..Parameters::default() };
    let large = world.submit(Ask { parameters, ..Ask::of(3) }).unwrap();
    for _ in 0..100 {
        let ticket = world.ask(0);
        world.pass(20 * MS);
        world.finish(0, Fate::Ok);
        assert_eq!(world.outcome(ticket), Some(Ok(())));
    }
    world.settle_loads();
    for _ in 0..10 {
        world.ask(0);
        world.pass(20 * MS);
        world.finish(0, Fate::Ok);
        world.settle_loads();
    }
    assert_eq!(world.outcome(large), Some(Ok(())));
}
