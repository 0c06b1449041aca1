//! Generations that take a place from what is less urgent: a replica that is given more than it has places for preempts the
//! least urgent, which goes on there when there is room.

use std::collections::HashMap;

use super::{Core, Nanos, RequestKey, nanos, order::WEIGHTS, stalled::MUTE};

impl<T, L: Clone> Core<T, L> {
    /// Where all places are taken, the request that takes one from a less urgent one, off its queue, and the replica: one that
    /// was begun before those that were not, of these the most urgent; tenants take turns.
    pub(super) fn next_preempting(&mut self, now: Nanos, index: usize) -> Option<(usize, RequestKey)> {
        let queue = &self.models[index].queue;
        let groups = queue.groups.iter().enumerate();
        let begun = groups.filter_map(|(at, group)| {
            let key = group.waiting.first()?.key;
            Some((at, self.request(key)?.lane.priority))
        });
        let begun = begun.min_by_key(|(_, priority)| *priority);
        let lanes = queue.lanes().iter().filter(|lane| !lane.waiting.is_empty());
        let head = lanes.map(|lane| lane.key.priority).min();
        if let Some((at, priority)) = begun.filter(|(_, priority)| head.is_none_or(|head| *priority <= head)) {
            let group = &self.models[index].queue.groups[at];
            let (key, rivals) = (group.waiting.first()?.key, self.rivals_of(index, priority)?);
            let place = self.best_place(now, index, key, Some(group), |id| self.preempts(now, id, &rivals));
            // Where none may go on with it, those that were not begun need not wait for it.
            if let Some(id) = place {
                return Some((id, self.first_of_group(index, at)?));
            }
        }
        let (priority, rivals) = (head?, self.rivals_of(index, head?)?);
        // Whose turn it is counts once, so it is asked only where there is a place.
        self.models[index].replicas.iter().any(|id| self.preempts(now, *id, &rivals)).then_some(())?;
        let lane = self.next_lane(now, index, Some(priority))?;
        let key = self.models[index].queue.lanes()[lane].waiting.front()?.key;
        let id = self.best_place(now, index, key, None, |id| self.preempts(now, id, &rivals))?;
        self.models[index].queue.pop(lane).map(|waiting| (id, waiting.key))
    }

    /// How many of each replica's generations are as urgent; none for what nothing is less urgent than.
    fn rivals_of(&self, index: usize, priority: u8) -> Option<HashMap<usize, usize>> {
        if usize::from(priority) + 1 >= WEIGHTS.len() {
            return None;
        }
        let mut rivals = HashMap::new();
        for running in self.batches.values().filter(|running| running.model == index) {
            let requests = running.attempts.iter().filter_map(|(_, key)| self.request(*key));
            // One whose request is gone has its place until its replica says so.
            if requests.map(|request| request.lane.priority).min().is_none_or(|other| other <= priority) {
                *rivals.entry(running.replica).or_default() += 1;
            }
        }
        Some(rivals)
    }

    /// Whether a replica runs fewer generations that are as urgent than it has places.
    fn preempts(&self, now: Nanos, id: usize, rivals: &HashMap<usize, usize>) -> bool {
        let places = self.models[self.replicas[id].model].places();
        let takes = self.takes_requests(id) && self.can_run(now, id) && !self.is_held_back(now, id);
        takes && rivals.get(&id).copied().unwrap_or(0) < places
    }

    /// Whether a replica has preempted generations, as far as is known here.
    fn has_preempted(&self, id: usize) -> bool {
        let Some(replica) = self.replicas.get(id) else { return false };
        self.models[replica.model].is_generator() && replica.running > self.models[replica.model].places()
    }

    /// One that is preempted says nothing. Nothing stands still while another of its replica does not.
    pub(super) fn wait_with_preempted(&mut self, now: Nanos) {
        let ids: Vec<usize> = self.replicas.iter().map(|(id, _)| id).filter(|id| self.has_preempted(*id)).collect();
        for id in ids {
            let told = |core: &Self| {
                let of = core.batches.values().filter(|running| running.replica == id);
                of.map(|running| running.given.max(running.begun)).max()
            };
            let Some(last) = told(self).filter(|last| now.saturating_sub(*last) <= nanos(MUTE)) else { continue };
            let all = self.batches.values_mut().filter(|running| running.replica == id);
            all.for_each(|running| running.given = running.given.max(last));
        }
    }
}
