//! When as many requests are under way as may be, one that matters less makes way for one that comes: of a lower priority,
//! or of the tenant that has more waiting. Else one flood would keep everybody out.

use orion_proto::{Code, Error};

use super::{Core, Nanos, RequestKey, queue::LaneKey, request::Request};

/// Requests that make way for one.
const MOST_PUSHED: usize = 64;

impl<T, L: Clone> Core<T, L> {
    /// Whether one more request, of so many bytes, may be under way.
    pub(super) fn make_room(&mut self, now: Nanos, lane: LaneKey, bytes: usize) -> bool {
        for _ in 0..MOST_PUSHED {
            if self.has_room_for(bytes) {
                return true;
            }
            let Some(key) = self.least_wanted(lane).filter(|_| bytes <= self.limits.bytes) else { return false };
            let after = self.request(key).map(|request| request.model).map(|index| self.drain_after(now, index));
            self.leave_queue(key);
            let text = "as many requests are under way as may be, and others matter more: of a higher priority, or of a \
                        tenant with fewer of them";
            self.fail(now, key, Error::new(Code::ResourceExhausted, text).retry_after(after.unwrap_or_default()));
        }
        self.has_room_for(bytes)
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.requests.len() < self.limits.requests && self.request_bytes.saturating_add(bytes) <= self.limits.bytes
    }

    /// The newest request that makes way for one of this lane: it has not run, and nothing depends on it.
    fn least_wanted(&self, lane: LaneKey) -> Option<RequestKey> {
        let (priority, tenant) = self.tenants.makes_way(lane.priority, lane.tenant)?;
        let may = |request: &Request<T>| {
            (request.lane.priority, request.lane.tenant) == (priority, tenant)
                && request.running.is_none()
                && request.attempts == 0
                && request.sequence().is_none()
        };
        let waiting = self.requests.iter().filter(|(_, request)| may(request));
        let newest = waiting.max_by_key(|(_, request)| request.serial)?;
        Some(RequestKey { place: newest.0, serial: newest.1.serial })
    }
}
