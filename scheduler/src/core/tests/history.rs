//! Random histories of clients, workers and operators: every admitted request settles exactly once, memory is never
//! promised twice, and what is kept up to date with each change is what a count from scratch gives.

use std::time::Duration;

use orion_proto::{ModelPolicy, Parameters, Priority, Sequence};
use proptest::prelude::*;

use super::{
    world::{Ask, Fate, Told, World, model},
    *,
};

const WORKERS: usize = 3;
const MODELS: usize = 8;

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        model: usize,
        priority: u8,
        tenant: u8,
        deadline: Option<u64>,
        idempotent: bool,
        rows: usize,
        sequence: Option<Sequence>,
    },
    Cancel(usize),
    Expire(usize),
    Finish(usize, Fate),
    /// The newest batch of a worker is answered before its older ones.
    FinishLast(usize),
    Loaded(usize, bool),
    Unloaded(usize),
    Silence(usize),
    /// A connection breaks, and what is sent by it is lost; the scheduler has not noticed.
    Cut(usize),
    Reset(usize),
    Hear(usize),
    Rejoin(usize, bool),
    Drain(usize),
    Leave(usize),
    Cordon(usize, Cordon),
    Want(usize, bool),
    Unwant(usize),
    Telemetry(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let worker = || 0usize..WORKERS;
    let fate = prop_oneof![
        6 => Just(Fate::Ok),
        2 => Just(Fate::All(Code::Unavailable)),
        1 => Just(Fate::All(Code::Internal)),
        1 => Just(Fate::All(Code::ResourceExhausted)),
        1 => Just(Fate::First),
    ];
    let deadline = prop::option::of(prop_oneof![5u64..60, 200u64..3000]);
    let sequence = (0u64..3, prop::bool::weighted(0.3), prop::bool::weighted(0.1));
    let sequence = sequence.prop_map(|(key, start, end)| Sequence { key, start, end });
    let cordon = prop_oneof![2 => Just(Cordon::No), 1 => Just(Cordon::Cordoned), 1 => Just(Cordon::Draining)];
    prop_oneof![
        14 => (0..MODELS, 0u8..5, 0u8..4, deadline, any::<bool>(), 1usize..6, prop::option::of(sequence)).prop_map(
            |(model, priority, tenant, deadline, idempotent, rows, sequence)| Step::Submit {
                model, priority, tenant, deadline, idempotent, rows, sequence,
            }
        ),
        1 => (0usize..8).prop_map(Step::Cancel),
        1 => (0usize..8).prop_map(Step::Expire),
        10 => (worker(), fate).prop_map(|(at, fate)| Step::Finish(at, fate)),
        1 => worker().prop_map(Step::FinishLast),
        6 => (worker(), prop::bool::weighted(0.85)).prop_map(|(at, ok)| Step::Loaded(at, ok)),
        4 => worker().prop_map(Step::Unloaded),
        1 => worker().prop_map(Step::Silence),
        1 => worker().prop_map(Step::Cut),
        1 => worker().prop_map(Step::Reset),
        2 => worker().prop_map(Step::Hear),
        2 => (worker(), any::<bool>()).prop_map(|(at, same)| Step::Rejoin(at, same)),
        1 => worker().prop_map(Step::Drain),
        1 => worker().prop_map(Step::Leave),
        1 => (worker(), cordon).prop_map(|(at, cordon)| Step::Cordon(at, cordon)),
        2 => (0..MODELS, any::<bool>()).prop_map(|(model, demanded)| Step::Want(model, demanded)),
        1 => (0..MODELS).prop_map(Step::Unwant),
        2 => worker().prop_map(Step::Telemetry),
        5 => prop_oneof![1u64..30, 30u64..500, 12_000u64..14_000].prop_map(Step::Wait),
    ]
}

/// Models of which the devices hold a part; one is built in.
fn models() -> Vec<ModelSpec> {
    let policy = ModelPolicy::default;
    vec![
        model("kept", 30, ModelPolicy { min_replicas: 2, ..policy() }),
        model("pinned", 40, ModelPolicy { pin: true, ..policy() }),
        model("single", 40, ModelPolicy { max_replicas: Some(1), ..policy() }),
        model("bound", 50, ModelPolicy { balancer: "least-connections".into(), ..policy() }),
        model("hedged", 20, ModelPolicy { hedge: true, ..policy() }),
        model("states", 20, ModelPolicy { sequences: true, ..policy() }),
        model("large", 90, ModelPolicy { slo: Some(Duration::from_millis(50)), ..policy() }),
        ModelSpec { inline: true, memory_bytes: 0, ..model("identity", 0, policy()) },
    ]
}

/// Bytes that a row of a batch takes beside the weights, for each model but the one that is built in.
fn peaks() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0u64..4, MODELS - 1)
}

fn world(peaks: &[u64]) -> World {
    let mut world = World::new(models(), &[]);
    world.peaks[..MODELS - 1].copy_from_slice(peaks);
    world.prompt = false;
    world.add(&[100], 0.0);
    world.add(&[70, 60], 0.02);
    world.add(&[90], 0.0);
    world
}

fn apply(world: &mut World, step: Step) {
    let (now, lease) = (world.now, 350 * MS);
    match step {
        Step::Submit { model, priority, tenant, deadline, idempotent, rows, sequence } => {
            use Priority::{Critical, High, Low, Normal, Realtime};
            let parameters = Parameters {
                priority: [Realtime, Critical, High, Normal, Low][priority as usize],
                tenant: (tenant > 0).then(|| Arc::from(format!("t{tenant}").as_str())),
                idempotent: idempotent && sequence.is_none(),
                sequence,
                ..Parameters::default()
            };
            let deadline = deadline.map(|after| after * MS);
            world.submit(Ask { model, rows, deadline, parameters }).ok();
        }
        Step::Cancel(nth) => {
            if let Some((key, ticket)) = unsettled(world, nth) {
                world.core.cancel(now, key);
                world.sent.get_mut(&ticket).unwrap().cancelled = true;
            }
        }
        Step::Expire(nth) => {
            if let Some((key, _)) = unsettled(world, nth) {
                world.core.expire(now, key);
            }
        }
        Step::Finish(at, fate) => {
            world.finish(at, fate);
        }
        Step::FinishLast(at) => {
            if let Some(batch) = world.nodes[at].batches.pop_back() {
                world.answer(at, batch, Fate::Ok);
            }
        }
        Step::Loaded(at, ok) => {
            world.loaded(at, ok);
        }
        Step::Unloaded(at) => {
            world.unloaded(at);
        }
        Step::Silence(at) => world.core.suspect(now, world.nodes[at].session, "silent", lease, false),
        Step::Cut(at) => world.nodes[at].link = None,
        Step::Reset(at) => {
            world.nodes[at].link = None;
            world.core.suspect(now, world.nodes[at].session, "reset", lease, true);
        }
        Step::Hear(at) => {
            if world.nodes[at].link.is_some() {
                world.core.alive(now, world.nodes[at].session);
            }
        }
        Step::Rejoin(at, true) => {
            world.join(at);
        }
        Step::Rejoin(at, false) => {
            world.restart(at);
        }
        Step::Drain(at) => {
            if world.nodes[at].link.is_some() {
                world.core.worker_drains(now, world.nodes[at].session);
            }
        }
        Step::Leave(at) => {
            if world.nodes[at].link.is_some() {
                world.core.worker_left(now, world.nodes[at].session);
            }
        }
        Step::Cordon(at, cordon) => {
            world.core.cordon(now, &world.nodes[at].name.clone(), cordon).unwrap();
        }
        Step::Want(model, demanded) => want(world, model, demanded),
        Step::Unwant(model) => {
            if !world.specs[model].inline {
                world.core.unwant(now, &world.specs[model].name.to_string()).unwrap();
            }
        }
        Step::Telemetry(at) => world.tell_telemetry(at),
        Step::Wait(ms) => world.pass(ms * MS),
    }
    world.collect();
}

fn want(world: &mut World, model: usize, demanded: bool) {
    let name = world.specs[model].name.clone();
    if !world.specs[model].inline {
        world.core.want(world.now, &name, format!("/{name}"), demanded);
    }
}

fn unsettled(world: &World, nth: usize) -> Option<(RequestKey, u64)> {
    let open = world.sent.iter().filter(|(_, sent)| sent.answers.is_empty() && !sent.cancelled);
    open.filter_map(|(ticket, sent)| Some((sent.key?, *ticket))).nth(nth)
}

/// The shell expires what is past its deadline.
fn expire(world: &mut World) {
    let late = |sent: &&world::Sent| sent.deadline.is_some_and(|deadline| deadline <= world.now);
    let late: Vec<_> = world.sent.values().filter(late).filter_map(|sent| sent.key).collect();
    late.into_iter().for_each(|key| world.core.expire(world.now, key));
    world.collect();
}

/// The workers come back and do what they are told; time passes.
fn heal(world: &mut World) {
    for at in 0..WORKERS {
        let name = world.nodes[at].name.clone();
        world.core.cordon(world.now, &name, Cordon::No).unwrap();
        world.core.suspect(world.now, world.nodes[at].session, "reset", 350 * MS, true);
        world.collect();
        world.join(at);
    }
    for round in 0..400 {
        for at in 0..WORKERS {
            let mut answers = 0;
            while world.finish(at, Fate::Ok).is_some() || world.unloaded(at) || world.loaded(at, true) {
                answers += 1;
                assert!(answers < 500, "models come and go without end: {:?}", world.nodes[at].residents);
            }
        }
        if world.core.unsettled() == 0 {
            return;
        }
        world.pass(if round < 100 { 20 * MS } else { 500 * MS });
        expire(world);
    }
}

/// A worker's telemetry and the reports of what it holds, once more.
fn tell_again(world: &mut World, at: usize) {
    world.tell_telemetry(at);
    let residents: Vec<_> = world.nodes[at].residents.iter().map(|(place, here)| (*place, *here)).collect();
    for ((model, device), here) in residents {
        if here.state != ModelState::Unloading {
            let report = world.report(at, model, device, here.state, here.order);
            world.tell(at, report);
        }
    }
}

/// Models, by their place in the world, of which another copy is wanted.
fn in_need(core: &TestCore) -> Vec<usize> {
    let ranked = core.homeless.iter().chain(&core.wanting).map(|(_, index)| *index);
    let of = |index: usize| models().iter().position(|spec| *spec.name.as_str() == *core.models[index].name);
    ranked.chain(core.unplaced.iter().copied()).filter_map(of).collect()
}

/// Whether a device's copy engine waits for memory.
fn makes_room(world: &World, link: u64, device: usize) -> bool {
    let Some(worker) = world.core.workers.iter().find(|worker| worker.link == Some(link)) else { return false };
    let loading = world.core.devices[worker.devices[device]].loading;
    loading.is_some_and(|id| !world.core.replicas[id].sent)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(192), ..ProptestConfig::default() })]

    #[test]
    fn every_admitted_request_settles_exactly_once(
        peaks in peaks(),
        steps in prop::collection::vec(step(), 1..160),
    ) {
        let mut world = world(&peaks);
        steps.into_iter().for_each(|step| apply(&mut world, step));
        heal(&mut world);
        let open: Vec<_> = world.core.requests.iter().map(|(_, request)| request).collect();
        prop_assert!(open.is_empty(), "{open:?}\n{:?}", world.nodes);
        prop_assert_eq!(world.core.request_bytes, 0);
        prop_assert!(world.core.batches.is_empty());
        for (ticket, sent) in &world.sent {
            prop_assert_eq!(sent.answers.len(), usize::from(!sent.cancelled), "ticket {}", ticket);
        }
    }

    #[test]
    fn what_was_decided_once_is_not_decided_again(
        peaks in peaks(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = world(&peaks);
        steps.into_iter().for_each(|step| apply(&mut world, step));
        expire(&mut world);
        // One look makes at most one copy of a model: a queue that needs several gets them with the next looks, and
        // nothing else is left for these.
        let mut loaded: Vec<Told> = Vec::new();
        for look in 0.. {
            let (from, before) = (world.told.len(), in_need(&world.core));
            (0..WORKERS).for_each(|at| tell_again(&mut world, at));
            world.pass(0);
            let after = in_need(&world.core);
            let news = world.told.split_off(from);
            for told in news.iter().filter(|_| look > 0) {
                match *told {
                    Told::Load(model, ..) => {
                        prop_assert!(before.contains(&model) || after.contains(&model), "look {}: {:?}", look, told);
                    }
                    Told::Unload(model, link, device) => {
                        prop_assert!(makes_room(&world, link, device), "look {}: {:?}", look, told);
                        let brought = loaded.contains(&Told::Load(model, link, device));
                        prop_assert!(!brought, "look {} undoes what an earlier one did: {:?}", look, told);
                    }
                    Told::Other(what) => prop_assert!(false, "look {} brings {}", look, what),
                }
            }
            if look > 0 && news.is_empty() {
                break;
            }
            loaded.extend(news.iter().filter(|told| matches!(told, Told::Load(..))));
            prop_assert!(look <= 12, "the same telemetry and reports bring new commands without end");
        }
    }
}
