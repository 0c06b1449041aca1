//! How long what was seen is believed while nothing new is seen: a model that its prediction keeps from running could
//! never correct it.

use super::{Core, Nanos};

/// For so long it is believed in full.
const FRESH: Nanos = 10_000_000_000;
/// Models and replicas that are looked at as time passes once.
const LOOKED_AT: usize = 64;

/// What is left of it after this time, as a share: half after each `half_life`.
pub(super) fn left(idle: Nanos, half_life: Nanos) -> f64 {
    (-(idle.saturating_sub(FRESH) as f64) / half_life as f64).exp2()
}

impl<T, L: Clone> Core<T, L> {
    /// Beliefs that nothing has confirmed for a while go back to what was promised; a few with each call, in turn.
    pub(super) fn fade_beliefs(&mut self, now: Nanos) {
        for step in 0..LOOKED_AT {
            let turn = self.faded_from + step;
            if let Some(model) = turn.checked_rem(self.models.len()).map(|index| &mut self.models[index]) {
                model.known.iter_mut().for_each(|known| known.fade(now));
            }
            let place = turn.checked_rem(self.replicas.capacity());
            if let Some(replica) = place.and_then(|place| self.replicas.get_mut(place)) {
                replica.fade(now);
            }
        }
        self.faded_from = self.faded_from.wrapping_add(LOOKED_AT);
    }
}
