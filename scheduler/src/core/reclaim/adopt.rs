//! Going on with a batch that a worker has from another scheduler: from then on it is as any that this one gave out.

use orion_net::{AttemptDelta, BatchResult};
use orion_proto::JobAttempt;

use super::Held;
use crate::core::{Admitted, Core, Nanos, RequestKey, booking::Given, queue::LaneKey, tenants::PRIORITIES};

impl<T, L: Clone> Core<T, L> {
    /// Whether the worker of a batch is here, with its model.
    pub(super) fn is_at(&self, held: &Held, index: usize) -> bool {
        self.workers[held.worker].is_connected() && self.replica_at(held.device, index).is_some()
    }

    fn replica_at(&self, device: usize, index: usize) -> Option<usize> {
        let serves = |id: &usize| self.replicas[*id].model == index && self.replicas[*id].serves();
        self.devices.get(device)?.residents.iter().copied().find(serves)
    }

    /// The batch and the attempt in it that a worker holds of a job, once: whoever asks goes on with it. Of several the one that
    /// was given out last, since those before it failed; those are called off.
    pub(in crate::core) fn take_held(&mut self, now: Nanos, index: usize, job: JobAttempt) -> Option<(u64, u64)> {
        let at = |(number, held): (&u64, &Held)| {
            let place = held.attempts.iter().position(|(_, of)| *of == job)?;
            self.is_at(held, index).then_some((*number, place))
        };
        let (number, place) = self.reclaim.held.iter().rev().find_map(at)?;
        self.reclaim.expected.as_mut()?.remove(&job);
        let mut held = self.reclaim.held.remove(&number)?;
        let (attempt, _) = held.attempts.remove(place);
        // Not among those of which nothing is wanted.
        self.give_up_unexpected(now);
        self.reclaim.held.insert(number, held);
        Some((number, attempt))
    }

    /// A request goes on where a worker has it already.
    pub(in crate::core) fn go_on(
        &mut self,
        now: Nanos,
        index: usize,
        lane: LaneKey,
        (admitted, ticket): (Admitted, T),
        (number, attempt): (u64, u64),
    ) -> RequestKey {
        let (job, rows) = (admitted.request.parameters.job, admitted.rows);
        let key = self.insert_request(now, index, lane, admitted, ticket);
        if let Some(request) = self.request_mut(key) {
            request.start(now, number, attempt);
        }
        let Some(mut held) = self.reclaim.held.remove(&number) else { return key };
        if let Some(running) = self.batches.get_mut(&number) {
            running.adopted = true;
            match running.attempts.iter_mut().find(|(of, _)| *of == attempt) {
                Some((_, gone)) => *gone = key,
                None => {
                    running.attempts.push((attempt, key));
                    running.attempts.sort_unstable_by_key(|(attempt, _)| *attempt);
                    running.jobs.extend(job.map(|job| (attempt, job)));
                    running.rows = running.rows.saturating_add(rows);
                }
            }
        } else if let Some(id) = self.replica_at(held.device, index) {
            let priority = lane.priority.min(PRIORITIES as u8 - 1);
            let (epoch, attempts, bucket) = (held.epoch, vec![(attempt, key)], lane.bucket);
            let (hedged, adopted) = (false, true);
            self.count_batch(now, id, Given { number, epoch, attempts, rows, bucket, priority, hedged, adopted });
        }
        let session = self.workers[held.worker].session;
        let of_it = |delta: &AttemptDelta| delta.attempt == attempt;
        let (own, others) = held.steps.into_iter().partition(of_it);
        held.steps = others;
        self.deltas(now, session, held.epoch, own);
        // One that has ended answers each attempt when somebody goes on with it.
        if let Some(whole) = &held.result {
            let results = whole.results.iter().filter(|done| done.attempt == attempt).cloned().collect();
            self.result(now, session, BatchResult { results, ..whole.clone() });
        }
        if !held.attempts.is_empty() {
            self.reclaim.held.insert(number, held);
        }
        key
    }
}
