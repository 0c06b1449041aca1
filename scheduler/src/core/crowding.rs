//! When as many requests are under way as may be, one that matters less makes way for one that comes: of a lower priority,
//! or of the tenant that has more waiting. Else one flood would keep everybody out.

use orion_proto::{Code, Error};

use super::{Core, Nanos, RequestKey, queue::LaneKey};

/// Requests that make way for one.
const MOST_PUSHED: usize = 64;
/// Requests of one tenant that are looked at for it.
const LOOKED_AT: usize = 256;

impl<T, L: Clone> Core<T, L> {
    /// Those that would make way for one more request, of so many bytes: none where there is room. `None` where there
    /// would be no room even so.
    /// Of the sequence `of`, which the request goes on with, none makes way.
    pub(super) fn making_way(&self, lane: LaneKey, bytes: usize, of: Option<(usize, u64)>) -> Option<Vec<RequestKey>> {
        let mut places = (self.requests.len() + 1).saturating_sub(self.limits.requests);
        let mut over = self.request_bytes.saturating_add(bytes).saturating_sub(self.limits.bytes);
        let mut keys = Vec::new();
        if places == 0 && over == 0 {
            return Some(keys);
        }
        if bytes > self.limits.bytes {
            return None;
        }
        for crowd in self.tenants.makes_way(lane.priority, lane.tenant, self.limits.requests) {
            let (newest, most) = crowd.newest();
            let may = newest.take(LOOKED_AT).filter_map(|key| Some((key, self.may_make_way(key, of)?)));
            for (key, freed) in may.take(most.min(MOST_PUSHED - keys.len())) {
                places = places.saturating_sub(1);
                over = over.saturating_sub(freed);
                keys.push(key);
                if places == 0 && over == 0 {
                    return Some(keys);
                }
            }
        }
        None
    }

    /// The bytes of a request that has not run, and on which nothing depends: of a sequence, the last.
    fn may_make_way(&self, key: RequestKey, of: Option<(usize, u64)>) -> Option<usize> {
        let request = self.request(key)?;
        let sequences = &self.models[request.model].sequences;
        let last = request
            .sequence()
            .is_none_or(|sequence| of != Some((request.model, sequence.key)) && sequences.ends_with(sequence.key, key));
        (request.running.is_none() && request.attempts == 0 && last).then_some(request.bytes)
    }

    /// Refuses requests that make way, as far as they still wait.
    pub(super) fn push_out(&mut self, now: Nanos, keys: Vec<RequestKey>) {
        for key in keys {
            let Some(request) = self.request(key).filter(|request| request.running.is_none()) else { continue };
            let after = self.drain_after(now, request.model);
            self.leave_queue(key);
            let text = "as many requests are under way as may be, and others matter more: of a higher priority, or of a \
                        tenant with fewer of them";
            self.fail(now, key, Error::new(Code::ResourceExhausted, text).retry_after(after));
        }
    }
}
