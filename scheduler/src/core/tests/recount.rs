//! Everything that the core keeps up to date with each change, counted anew.

use std::collections::BTreeMap;

use super::*;
use crate::core::{queue::Queue, work::Rank};

/// Where a request waits: so often in queues of models, so often in those of replicas.
fn waiting(core: &TestCore) -> BTreeMap<u64, (usize, usize)> {
    let mut places: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    let keys = |queue: &Queue| {
        let lanes = queue.lanes().iter().flat_map(|lane| lane.waiting.iter().map(|waiting| waiting.key));
        let groups = queue.groups.iter().flat_map(|group| group.waiting.iter().map(|waiting| waiting.key));
        let keys: Vec<RequestKey> = lanes.chain(groups).collect();
        assert_eq!(keys.len(), queue.len());
        let rows = keys.iter().filter_map(|key| core.request(*key)).map(|request| request.rows).sum::<usize>();
        assert_eq!(rows, queue.rows(), "rows of a queue");
        keys
    };
    for model in &core.models {
        keys(&model.queue).into_iter().for_each(|key| places.entry(key.serial).or_default().0 += 1);
    }
    for (_, replica) in &core.replicas {
        let bound = replica.bound.as_deref().map(keys).unwrap_or_default();
        bound.into_iter().for_each(|key| places.entry(key.serial).or_default().1 += 1);
    }
    places
}

/// Compares every incremental figure with a count from scratch.
pub(super) fn check(core: &TestCore) {
    requests(core);
    replicas(core);
    devices(core);
    models(core);
}

fn requests(core: &TestCore) {
    let (places, mut waits) = (waiting(core), 0);
    let mut tenants: BTreeMap<(u8, u32), usize> = BTreeMap::new();
    for (place, request) in &core.requests {
        let found = places.get(&request.serial).copied().unwrap_or_default();
        let later = request.sequence().is_some_and(|sequence| {
            let key = RequestKey { place, serial: request.serial };
            !core.models[request.model].sequences.is_current(sequence.key, key)
        });
        let expected = match (request.running, request.bound) {
            (Some(_), _) => (0, 0),
            (None, Some(_)) => (0, 1),
            (None, None) => (usize::from(!later), 0),
        };
        assert_eq!(found, expected, "request {}: {request:?}", request.ticket);
        waits += usize::from(request.running.is_none() && !later);
        if request.running.is_none() {
            *tenants.entry((request.lane.priority, request.lane.tenant)).or_default() += 1;
        }
        for (batch, attempt) in [request.running, request.hedge].into_iter().flatten() {
            let running = core.batches.get(&batch).unwrap_or_else(|| panic!("batch {batch} is not there"));
            assert!(running.attempts.iter().any(|(of, key)| *of == attempt && key.serial == request.serial));
        }
        assert!(request.running.is_some() || request.hedge.is_none());
    }
    assert_eq!(places.len(), waits);
    let abandoned: usize = core.batches.values().map(|running| running.abandoned_bytes).sum();
    let bytes = core.requests.iter().map(|(_, request)| request.bytes).sum::<usize>() + abandoned;
    assert_eq!(core.request_bytes, bytes);
    assert_eq!(core.tenants.waiting(), tenants, "tenants that wait");
}

fn replicas(core: &TestCore) {
    for (id, replica) in &core.replicas {
        let runs = core.batches.values().filter(|running| running.replica == id).count();
        assert_eq!(replica.running, runs, "batches that replica {id} runs");
        let of = |priority: usize| {
            let there = core.batches.values().filter(|running| running.replica == id);
            there.filter(|running| usize::from(running.priority) == priority).count()
        };
        assert_eq!(replica.by_priority, std::array::from_fn(of), "by priority, what replica {id} runs");
        let reading = core.batches.values().filter(|running| running.replica == id).map(|running| running.prefill);
        assert_eq!(replica.prompts.reading, reading.sum::<Nanos>(), "prompts that replica {id} reads");
        let bound = core.requests.iter().filter(|(_, request)| request.bound == Some(id)).count();
        assert_eq!(replica.outstanding, bound, "requests bound to replica {id}");
        assert!(core.devices[replica.device].residents.contains(&id));
        let counts = core.models[replica.model].replicas.contains(&id);
        assert_eq!(counts, replica.state != ModelState::Unloading, "replica {id} is {:?}", replica.state);
    }
    for (index, model) in core.models.iter().enumerate() {
        let leaving = core.replicas.iter().filter(|(_, r)| r.model == index && r.state == ModelState::Unloading);
        assert_eq!(model.leaving, leaving.count(), "replicas of {} that are being unloaded", model.name);
    }
    for (_, request) in &core.requests {
        assert!(request.bound.is_none_or(|id| core.replicas[id].model == request.model));
    }
}

fn devices(core: &TestCore) {
    for (id, device) in &core.devices {
        let here = || device.residents.iter().map(|id| &core.replicas[*id]);
        let weights: u64 = here().filter(|replica| replica.sent).map(|replica| replica.bytes).sum();
        assert_eq!(device.ledger.weights(), weights, "weights on {}", device.name);
        let peak = here().map(|replica| replica.peak.bytes).max().unwrap_or(0);
        assert_eq!(device.ledger.activations(), peak, "room for batches on {}", device.name);
        assert!(device.ledger.capacity() == 0 || weights <= device.ledger.capacity());
        let queued: Nanos = here().filter(|r| r.shares).map(|r| core.models[r.model].share).sum();
        assert_eq!(device.queued, queued, "work that waits for {}", device.name);
        assert!(device.loading.is_none_or(|id| core.replicas[id].state == ModelState::Loading));
        let batches = core.batches.iter().filter(|(_, running)| running.device == id);
        let (inline, others): (Vec<_>, Vec<_>) = batches.partition(|(_, running)| running.beside);
        assert_eq!(device.beside, inline.len());
        assert_eq!(device.batches, others.iter().map(|(number, _)| **number).collect::<Vec<_>>());
        let shortest = others.iter().map(|(_, running)| running.predicted.max(1)).min().unwrap_or(1);
        let ahead = core.workers[device.worker].lead.saturating_mul(2).div_ceil(shortest).min(64) as usize;
        assert!(others.len() <= 1 + ahead, "{} batches on {}, {ahead} ahead", others.len(), device.name);
        let mut models: Vec<usize> = here().map(|replica| replica.model).collect();
        models.sort_unstable();
        assert!(models.is_sorted_by(|a, b| a < b), "a model is twice on {}", device.name);
    }
    let alarms = core.devices.iter().filter_map(|(id, device)| Some((device.alarm?, id))).collect();
    assert_eq!(core.alarms, alarms);
    let busy = |(_, id): &(Nanos, usize)| !core.devices[*id].batches.is_empty();
    assert!(core.alarms.iter().all(busy), "an idle device has an alarm");
    assert_eq!(core.copying, core.devices.iter().filter(|(_, device)| device.loading.is_some()).count());
}

fn models(core: &TestCore) {
    assert_eq!(core.queued_work, core.models.iter().map(|model| model.work).sum::<Nanos>());
    let (mut homeless, mut wanting) = (Vec::new(), Vec::new());
    for (index, model) in core.models.iter().enumerate() {
        assert!(!model.queue.is_empty() || model.work == 0, "work of {}", model.name);
        let nowhere = !model.queue.is_empty() && core.staying(index) == 0;
        assert_eq!(nowhere, matches!(model.rank, Some(Rank::Homeless(_))), "{} is nowhere", model.name);
        match model.rank {
            Some(Rank::Homeless(density)) => homeless.push((density, index)),
            Some(Rank::Wanting(density)) => wanting.push((density, index)),
            None => {}
        }
        let shared = (1..=16).contains(&model.replicas.len());
        let holders = core.sharers(index);
        assert_eq!(model.share, if shared { model.work / holders as Nanos } else { 0 });
        let sharing = model.replicas.iter().filter(|id| core.replicas[**id].shares).count();
        assert_eq!(sharing, if shared { holders } else { 0 });
    }
    homeless.sort_unstable();
    wanting.sort_unstable();
    assert_eq!(core.homeless.iter().copied().collect::<Vec<_>>(), homeless);
    assert_eq!(core.wanting.iter().copied().collect::<Vec<_>>(), wanting);
}
