//! Models that workers fetch: what each of them lacks, what bringing it takes, and who brings it before it must.

use std::collections::{BTreeMap, BTreeSet};

use orion_net::{store::Reference, transfer::is_fetched};

use super::{Command, Core, Nanos, WorkerState};

/// A worker that could not bring a model is not asked for it again for so long.
const AGAIN: Nanos = 60_000_000_000;
/// One that does not say that it has brought it is not waited for longer.
const PATIENCE: Nanos = 1_800_000_000_000;
/// Workers are asked about so many models at once: their mailboxes are for other things too.
const LOOKS: usize = 64;
/// So many workers are asked about models in one go.
const ASKED: usize = 256;

/// What workers said of the models that they fetch.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    /// Of each worker, by path.
    by_worker: Vec<BTreeMap<String, Held>>,
    /// Who has all of a path.
    whole: BTreeMap<String, BTreeSet<usize>>,
}

/// What a worker has of a model.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Bytes that it lacks; none: all of them, how many that is it does not know.
    missing: Option<u64>,
    /// Whether it has answered since it was asked what it has.
    answered: bool,
    /// Whether it is to be asked again what it has.
    stale: bool,
    /// When it was asked to bring it, until it answers.
    pulling: Option<Nanos>,
    /// When it may be asked again.
    again: Nanos,
}

impl Fetching {
    fn held(&self, worker: usize, path: &str) -> Option<&Held> {
        self.by_worker.get(worker)?.get(path)
    }

    /// A worker's session began or ended: what it has may be something else.
    pub(super) fn forget(&mut self, worker: usize) {
        if let Some(held) = self.by_worker.get_mut(worker) {
            held.clear();
        }
        self.whole.retain(|_, workers| {
            workers.remove(&worker);
            !workers.is_empty()
        });
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Predicted time of bringing a model's files to a worker: what it lacks, over the links that it comes by. 0 where nothing
    /// is fetched or the link was not measured.
    pub(super) fn fetch_time(&self, index: usize, worker: usize) -> Nanos {
        let model = &self.models[index];
        let Some(path) = model.path.as_deref().filter(|path| !self.fetching.by_worker.is_empty() && is_fetched(path))
        else {
            return 0;
        };
        let missing = self.fetching.held(worker, path).and_then(|held| held.missing);
        let missing = missing.or(model.spec.as_ref().map(|spec| spec.memory_bytes)).unwrap_or(0);
        if missing == 0 {
            return 0;
        }
        let rate = self.fetch_rate(index, worker);
        if rate > 0.0 { (missing as f64 / rate * 1e9) as Nanos } else { 0 }
    }

    /// Whether a worker has all of a model's files.
    pub(super) fn has_files(&self, model: usize, worker: usize) -> bool {
        let path = self.models[model].path.as_deref();
        path.and_then(|path| self.fetching.whole.get(path)).is_some_and(|workers| workers.contains(&worker))
    }

    /// The workers that have all of a model's files in their stores.
    pub(super) fn keepers(&self, model: usize) -> impl Iterator<Item = usize> {
        let path = self.models[model].path.as_deref();
        path.and_then(|path| self.fetching.whole.get(path)).into_iter().flatten().copied()
    }

    /// Asks the workers that were not asked yet what they have of a model.
    pub(super) fn look_for(&mut self, index: usize) {
        let mut left = ASKED;
        self.look_for_some(index, &mut left);
    }

    fn look_for_some(&mut self, index: usize, left: &mut usize) {
        let model = &self.models[index];
        let Some(path) = model.path.clone().filter(|path| model.wanted && is_fetched(path)) else { return };
        let known = &mut self.fetching.by_worker;
        known.resize_with(self.workers.len().max(known.len()), BTreeMap::new);
        let holders = self.holder_addresses(index);
        for worker in 0..self.workers.len() {
            let at = &self.workers[worker];
            if *left == 0 {
                break;
            }
            if !at.is_connected() || self.fetching.held(worker, &path).is_some_and(|held| !held.stale) {
                continue;
            }
            let asked = self.fetching.by_worker[worker].values().filter(|held| !held.answered).count();
            let Some(link) = at.link.clone().filter(|_| asked < LOOKS) else { continue };
            let held = self.fetching.by_worker[worker].entry(path.clone()).or_default();
            (held.answered, held.stale) = (false, false);
            *left -= 1;
            let own = &self.workers[worker];
            let peers = holders.iter().filter(|address| !own.is_at(address)).cloned().collect();
            self.commands.push(Command::Pull { link, path: path.clone(), peers, fetch: false });
        }
    }

    /// A worker says what it lacks of a model; none: all.
    pub fn holds(&mut self, now: Nanos, session: u64, path: &str, missing: Option<u64>) {
        let Some(worker) = self.by_session(session) else { return };
        let Some(held) = self.fetching.by_worker.get_mut(worker).and_then(|held| held.get_mut(path)) else {
            return;
        };
        let failed = held.pulling.take().is_some() && missing != Some(0);
        (held.missing, held.answered, held.stale) = (missing, true, false);
        if failed {
            held.again = now.saturating_add(AGAIN);
        }
        self.changed = true;
        let whole = self.fetching.whole.entry(path.to_owned()).or_default();
        let is_new = missing == Some(0) && whole.insert(worker);
        if missing != Some(0) {
            whole.remove(&worker);
        }
        if is_new && Reference::is_path(path) {
            // They had nobody to ask how much it is.
            let others = self.fetching.by_worker.iter_mut().filter_map(|of| of.get_mut(path));
            others.for_each(|held| held.stale = held.answered && held.missing.is_none() && held.pulling.is_none());
        }
        if missing == Some(0) {
            // Who was asked what it is may have to fetch it first, or hang.
            for index in 0..self.models.len() {
                let model = &self.models[index];
                if model.spec.is_none() && model.wanted && model.path.as_deref() == Some(path) {
                    self.ask(index, worker);
                }
            }
        }
    }

    /// Has models brought to one worker more than serve them, one at a time: the next copy then waits for no link. Nobody
    /// begins before another has all of it, so that an origin is asked once.
    pub(super) fn prefetch(&mut self, now: Nanos) {
        if self.fetching.by_worker.is_empty() {
            return;
        }
        let mut left = ASKED;
        for index in 0..self.models.len() {
            self.look_for_some(index, &mut left);
            let model = &self.models[index];
            let Some(path) = model.path.clone().filter(|path| model.wanted && is_fetched(path)) else { continue };
            if model.spec.is_none() || self.is_pulled(now, &path) {
                continue;
            }
            let suitable = self.suitable(index);
            let mut workers: Vec<usize> = suitable.iter().map(|device| self.devices[*device].worker).collect();
            workers.sort_unstable();
            workers.dedup();
            let serves = |worker: &usize| {
                let replicas = self.models[index].replicas.iter().map(|id| &self.replicas[*id]);
                replicas.into_iter().any(|replica| self.devices[replica.device].worker == *worker)
            };
            let (having, lacking): (Vec<usize>, Vec<usize>) =
                workers.into_iter().partition(|worker| serves(worker) || self.has_files(index, *worker));
            let serving = having.iter().filter(|worker| serves(worker)).count();
            let there = having.iter().any(|worker| self.has_files(index, *worker));
            if serving == 0 || !there || having.len() > serving {
                continue;
            }
            let may = |worker: &usize| {
                let ready = self.workers[*worker].state == WorkerState::Ready;
                ready && self.fetching.held(*worker, &path).is_some_and(|held| held.answered && held.again <= now)
            };
            let next = lacking.into_iter().filter(may).min_by_key(|worker| self.fetch_time(index, *worker));
            let Some(link) = next.and_then(|worker| self.workers[worker].link.clone()) else { continue };
            let Some(worker) = next else { continue };
            if let Some(held) = self.fetching.by_worker[worker].get_mut(&path) {
                held.pulling = Some(now);
            }
            let peers = self.peers_of(index, worker);
            self.commands.push(Command::Pull { link, path, peers, fetch: true });
        }
    }

    fn is_pulled(&self, now: Nanos, path: &str) -> bool {
        let waits = |held: &Held| held.pulling.is_some_and(|since| now.saturating_sub(since) < PATIENCE);
        self.fetching.by_worker.iter().any(|held| held.get(path).is_some_and(waits))
    }
}
