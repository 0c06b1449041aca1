//! Generations that take a place from what is less urgent: a replica that is given more than it has places for preempts the
//! least urgent, which goes on there when there is room.

use super::{Core, Nanos, RequestKey};

impl<T, L: Clone> Core<T, L> {
    /// Where all places are taken, the request that takes one from a less urgent one, off its queue, and the replica: one that
    /// was begun before those that were not, of these the most urgent; tenants take turns.
    pub(super) fn next_preempting(&mut self, now: Nanos, index: usize) -> Option<(usize, RequestKey)> {
        let lanes = self.models[index].queue.lanes().iter().filter(|lane| !lane.waiting.is_empty());
        let head = lanes.map(|lane| lane.key.priority).min();
        if let Some((at, id)) = self.group_preempting(now, index, head) {
            return Some((id, self.first_of_group(index, at)?));
        }
        let priority = head?;
        // Whose turn it is counts once, so it is asked only where there is a place.
        self.models[index].replicas.iter().any(|id| self.preempts(now, *id, priority)).then_some(())?;
        let lane = self.next_lane(now, index, Some(priority))?;
        let key = self.models[index].queue.lanes()[lane].waiting.front()?.key;
        let id = self.best_place(now, index, key, None, |id| self.preempts(now, id, priority))?;
        self.models[index].queue.pop(lane).map(|waiting| (id, waiting.key))
    }

    /// The most urgent group, of those as urgent as `least` if it is given, whose first finds one that is less urgent where it
    /// may go on, and the replica: others need not wait for one that finds none.
    pub(super) fn group_preempting(&self, now: Nanos, index: usize, least: Option<u8>) -> Option<(usize, usize)> {
        let groups = &self.models[index].queue.groups;
        let priority = |at: usize| Some(self.request(groups[at].waiting.first()?.key)?.lane.priority);
        let mut order: Vec<(u8, usize)> = (0..groups.len()).filter_map(|at| Some((priority(at)?, at))).collect();
        order.retain(|(priority, _)| least.is_none_or(|least| *priority <= least));
        order.sort_unstable();
        order.into_iter().find_map(|(priority, at)| {
            let key = groups[at].waiting.first()?.key;
            let id = self.best_place(now, index, key, Some(&groups[at]), |id| self.preempts(now, id, priority))?;
            Some((at, id))
        })
    }

    /// Whether a replica runs fewer generations that are as urgent than it has places.
    fn preempts(&self, now: Nanos, id: usize, priority: u8) -> bool {
        let replica = &self.replicas[id];
        let rivals: usize = replica.by_priority[..=usize::from(priority)].iter().sum();
        let takes = self.takes_requests(id) && self.can_run(now, id) && !self.is_held_back(now, id);
        takes && rivals < self.models[replica.model].places()
    }
}
