//! The jobs that are queued, and which of them is to begin next.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use orion_proto::Priority;

use super::terms::Millis;

/// Of one priority and model: when each may begin, and its number.
type Lane = BTreeSet<(Millis, u64)>;

/// Queued jobs in the order in which they may begin. Those of a model that runs as much as it may are passed over, in a time
/// that grows with the number of such models, not with that of their jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Queue {
    lanes: BTreeMap<(Priority, Arc<str>), Lane>,
    /// The first of each lane.
    heads: BTreeMap<(Priority, Millis, u64), Arc<str>>,
}

impl Queue {
    /// A job of this model may begin at this time.
    pub(super) fn put(&mut self, priority: Priority, model: &Arc<str>, when: Millis, id: u64) {
        self.change(priority, model, |lane| _ = lane.insert((when, id)));
    }

    /// It is not queued any more.
    pub(super) fn take(&mut self, priority: Priority, model: &Arc<str>, when: Millis, id: u64) {
        self.change(priority, model, |lane| _ = lane.remove(&(when, id)));
    }

    /// The first that may begin by now, the most urgent before all others, of the models that may run more.
    pub(super) fn ready(&self, now: Millis, may: impl Fn(&str) -> bool) -> Option<u64> {
        let first = |of: Priority| self.heads.range((of, 0, 0)..=(of, now, u64::MAX)).find(|(_, model)| may(model));
        Priority::ALL.into_iter().find_map(first).map(|((_, _, id), _)| *id)
    }

    fn change(&mut self, priority: Priority, model: &Arc<str>, change: impl FnOnce(&mut Lane)) {
        let key = (priority, model.clone());
        let lane = self.lanes.entry(key.clone()).or_default();
        let before = lane.first().copied();
        change(lane);
        let after = lane.first().copied();
        if after.is_none() {
            self.lanes.remove(&key);
        }
        if before != after {
            before.map(|(when, id)| self.heads.remove(&(priority, when, id)));
            after.map(|(when, id)| self.heads.insert((priority, when, id), model.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MODELS: [&str; 3] = ["a", "b", "c"];

    proptest! {
        /// As a list in which all are looked at says.
        #[test]
        fn the_first_that_may_begin_is_found(
            jobs in prop::collection::vec((0usize..5, 0usize..3, 0u64..20, any::<bool>()), 0..60),
            now in 0u64..20, busy in 0usize..4,
        ) {
            let models = MODELS.map(Arc::<str>::from);
            let mut queue = Queue::default();
            let mut left = Vec::new();
            for (id, (priority, model, when, _)) in (0..).zip(&jobs) {
                queue.put(Priority::ALL[*priority], &models[*model], *when, id);
            }
            for (id, (priority, model, when, is_taken)) in (0..).zip(&jobs) {
                if *is_taken {
                    queue.take(Priority::ALL[*priority], &models[*model], *when, id);
                } else {
                    left.push((*priority, *when, id, MODELS[*model]));
                }
            }
            let may = |model: &str| MODELS.get(busy) != Some(&model);
            let expected = left.iter().filter(|(_, when, _, model)| *when <= now && may(model)).min().map(|job| job.2);
            prop_assert_eq!(queue.ready(now, may), expected);
            prop_assert_eq!(queue.heads.len(), queue.lanes.len());
        }
    }
}
