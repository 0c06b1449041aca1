//! When as many requests are under way as may be, one that matters less makes way for one that comes: of a lower priority,
//! or of the tenant that has more waiting. Else one flood would keep everybody out.

use orion_proto::{Code, Error};

use super::{Core, Nanos, RequestKey, queue::LaneKey, request::Request};

/// Requests that make way for one.
const MOST_PUSHED: usize = 64;

impl<T, L: Clone> Core<T, L> {
    /// Those that would make way for one more request, of so many bytes: none where there is room. `None` where there
    /// would be no room even so.
    pub(super) fn making_way(&self, lane: LaneKey, bytes: usize) -> Option<Vec<RequestKey>> {
        let mut places = (self.requests.len() + 1).saturating_sub(self.limits.requests);
        let mut over = self.request_bytes.saturating_add(bytes).saturating_sub(self.limits.bytes);
        if places == 0 && over == 0 {
            return Some(Vec::new());
        }
        if bytes > self.limits.bytes || !self.tenants.makes_way(lane.priority, lane.tenant) {
            return None;
        }
        let mut pushed: Vec<&Request<T>> = Vec::new();
        let mut keys = Vec::new();
        for (place, request) in self.least_wanted(lane) {
            if (places == 0 && over == 0) || keys.len() == MOST_PUSHED {
                break;
            }
            // Of its own priority no tenant is left with fewer than the request's own would have.
            let of_same = pushed.iter().filter(|other| other.lane.tenant == request.lane.tenant).count();
            let left = self.tenants.waiting_of(request.lane.priority, request.lane.tenant).saturating_sub(of_same);
            let own = self.tenants.waiting_of(lane.priority, lane.tenant);
            if request.lane.priority == lane.priority && left <= own + 1 {
                continue;
            }
            places = places.saturating_sub(1);
            over = over.saturating_sub(request.bytes);
            keys.push(RequestKey { place, serial: request.serial });
            pushed.push(request);
        }
        (places == 0 && over == 0).then_some(keys)
    }

    /// Requests that may make way for one of this lane, the least wanted first: they have not run, and nothing depends on
    /// them.
    fn least_wanted(&self, lane: LaneKey) -> Vec<(usize, &Request<T>)> {
        let may = |request: &Request<T>| {
            let below = request.lane.priority > lane.priority;
            (below || (request.lane.priority == lane.priority && request.lane.tenant != lane.tenant))
                && request.running.is_none()
                && request.attempts == 0
                && request.sequence().is_none()
        };
        let mut waiting: Vec<_> = self.requests.iter().filter(|(_, request)| may(request)).collect();
        waiting.sort_by_cached_key(|(_, request)| {
            let of_tenant = self.tenants.waiting_of(request.lane.priority, request.lane.tenant);
            std::cmp::Reverse((request.lane.priority, of_tenant, request.serial))
        });
        waiting
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
