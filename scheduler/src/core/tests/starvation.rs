//! Nothing starves: whatever floods the devices, each request is answered within a time that what is older explains.

use orion_proto::{ModelPolicy, Parameters, Priority, ServiceCurve};
use proptest::prelude::*;

use super::{
    world::{Ask, Fate, World, model},
    *,
};

/// Share of a device's time that requests past their objective may claim, as one in so many.
const OVERDUE: f64 = 10.0;
/// Rows that the models take at once.
const MOST_ROWS: usize = 8;

/// Requests of one kind.
#[derive(Clone, Copy, Debug)]
struct Kind {
    model: usize,
    priority: usize,
    tenant: usize,
    rows: usize,
}

#[derive(Clone, Debug)]
struct Case {
    /// Milliseconds of a batch and of each row, and the balancer.
    models: Vec<(f64, f64, usize)>,
    workers: usize,
    /// So many of each kind wait at any time.
    floods: Vec<(Kind, usize)>,
    others: Vec<Kind>,
}

fn case() -> impl Strategy<Value = Case> {
    let kind = || {
        (0usize..3, 0usize..5, 0usize..3, 1usize..=MOST_ROWS).prop_map(|(model, priority, tenant, rows)| Kind {
            model,
            priority,
            tenant,
            rows,
        })
    };
    let models = prop::collection::vec((prop_oneof![1.0f64..40.0, 100.0f64..400.0], 0.1f64..4.0, 0usize..3), 3);
    let floods = prop::collection::vec((kind(), 8usize..80), 1..4);
    (models, 1usize..=2, floods, prop::collection::vec(kind(), 1..6))
        .prop_map(|(models, workers, floods, others)| Case { models, workers, floods, others })
}

impl Case {
    fn world(&self) -> World {
        let policy = |balancer: usize| ModelPolicy {
            min_replicas: self.workers as u32,
            balancer: ["", "round-robin", "least-connections"][balancer].into(),
            max_queue: Duration::from_secs(86_400),
            ..ModelPolicy::default()
        };
        let specs = self.models.iter().enumerate();
        let specs = specs.map(|(at, of)| model(["a", "b", "c"][at], 1, policy(of.2))).collect();
        let mut world = World::new(specs, &[]);
        for (curve, (base, row, _)) in world.curves.iter_mut().zip(&self.models) {
            *curve = ServiceCurve { base_seconds: base / 1e3, per_row_seconds: row / 1e3 };
        }
        (0..self.workers).for_each(|_| _ = world.add(&[100], 0.0));
        world
    }

    /// Seconds of the largest batch of a kind.
    fn batch(&self, kind: &Kind) -> f64 {
        let (base, row, _) = self.models[kind.model];
        (base + row * MOST_ROWS as f64) / 1e3
    }

    /// Seconds within which each of the others must be answered. It is past its objective then, and only what is older
    /// goes before it out of a tenth of the time: at most what waits of each flood, each alone in the largest batch.
    fn bound(&self) -> f64 {
        let floods = self.floods.iter().map(|(kind, waiting)| self.batch(kind) * *waiting as f64);
        let older: f64 = floods.chain(self.others.iter().map(|kind| self.batch(kind))).sum();
        let kinds = || self.floods.iter().map(|(kind, _)| kind).chain(&self.others);
        let longest = kinds().map(|kind| self.batch(kind)).fold(0.0, f64::max);
        let objective = (10.0 * longest).max(0.1);
        objective + (OVERDUE + 1.0) * (older + 2.0 * longest)
    }
}

fn ask(kind: &Kind) -> Ask {
    use Priority::{Critical, High, Low, Normal, Realtime};
    let parameters = Parameters {
        priority: [Realtime, Critical, High, Normal, Low][kind.priority],
        tenant: (kind.tenant > 0).then(|| Arc::from(format!("t{}", kind.tenant).as_str())),
        ..Parameters::default()
    };
    Ask { rows: kind.rows, parameters, ..Ask::of(kind.model) }
}

/// Tops every flood up.
fn flood(world: &mut World, case: &Case, open: &mut [Vec<u64>]) {
    for ((kind, waiting), open) in case.floods.iter().zip(open) {
        let waits = |ticket: &u64| {
            let request = world.sent[ticket].key.and_then(|key| world.core.request(key));
            request.is_some_and(|request| request.running.is_none())
        };
        open.retain(waits);
        while open.len() < *waiting {
            open.push(world.submit(ask(kind)).unwrap());
            open.retain(|ticket| world.sent[ticket].key.and_then(|key| world.core.request(key)).is_some());
        }
    }
}

/// The next batch that ends, each as long as its curve says, ends.
fn work(world: &mut World, ends: &mut [Option<Nanos>]) {
    for (at, end) in ends.iter_mut().enumerate() {
        if let (None, Some(batch)) = (&end, world.nodes[at].batches.front()) {
            let of = world.specs.iter().position(|spec| spec.name.as_str() == &*batch.model).unwrap();
            *end = Some(world.now + (world.curves[of].seconds(world.rows_of(batch)) * 1e9) as Nanos);
        }
    }
    let (end, at) = ends.iter().enumerate().filter_map(|(at, end)| Some(((*end)?, at))).min().unwrap();
    world.pass(end.saturating_sub(world.now));
    world.finish(at, Fate::Ok);
    ends[at] = None;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(48), ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered_within_what_is_older(case in case()) {
        let mut world = case.world();
        let mut open = vec![Vec::new(); case.floods.len()];
        let mut ends = vec![None; case.workers];
        flood(&mut world, &case, &mut open);
        let since = world.now;
        let others: Vec<u64> = case.others.iter().map(|kind| world.submit(ask(kind)).unwrap()).collect();
        while let Some(waits) = others.iter().position(|ticket| world.outcome(*ticket).is_none()) {
            work(&mut world, &mut ends);
            flood(&mut world, &case, &mut open);
            let seconds = (world.now - since) as f64 / 1e9;
            prop_assert!(seconds <= case.bound(), "request {} of the others waits for {} s", waits, seconds);
        }
        prop_assert!(others.iter().all(|ticket| world.outcome(*ticket) == Some(Ok(()))));
    }
}
