//! Requests that wait for one replica: a balancer picked it on their arrival, or it has the state of their sequence.

use orion_net::Endpoint;

use super::{
    Core, Nanos, RequestKey,
    queue::{LaneKey, Waiting},
};

impl<T, L: Clone> Core<T, L> {
    /// Puts a request in a replica's own queue.
    pub(super) fn bind(&mut self, id: usize, key: RequestKey, lane: LaneKey, waiting: Waiting) {
        self.replicas[id].bound.get_or_insert_default().push(lane, waiting);
        self.replicas[id].outstanding += 1;
        if let Some(request) = self.request_mut(key) {
            request.bound = Some(id);
        }
    }

    /// The replica to which the model's balancer binds a request.
    pub(super) fn balance(&mut self, now: Nanos, index: usize, key: Option<u64>, rows: usize) -> Option<usize> {
        let serves = |id: &&usize| self.can_run(now, **id) && self.takes_requests(**id);
        let ids: Vec<usize> = self.models[index].replicas.iter().filter(serves).copied().collect();
        let endpoints: Vec<Endpoint> = ids.iter().map(|id| self.endpoint(now, *id, rows)).collect();
        let at = self.models[index].balancer.as_mut()?.pick(now, &endpoints, key)?;
        ids.get(at).copied()
    }

    fn endpoint(&self, now: Nanos, id: usize, rows: usize) -> Endpoint {
        let replica = &self.replicas[id];
        let (line, device) = (replica.line(0), &self.devices[replica.device]);
        let (single, ahead) = (line.predict(1).max(1), self.bound_work(id));
        Endpoint {
            id: device.hash,
            outstanding: u32::try_from(replica.outstanding).unwrap_or(u32::MAX),
            weight: 1e9 / single as f64,
            predicted: device.remaining(now).saturating_add(ahead).saturating_add(line.predict(rows)),
        }
    }

    /// A request that was bound to a replica runs on elsewhere alone.
    pub(super) fn unbind(&mut self, key: RequestKey, id: usize) {
        let Some(request) = self.request_mut(key).filter(|request| request.bound == Some(id)) else { return };
        request.bound = None;
        if let Some(replica) = self.replicas.get_mut(id) {
            replica.outstanding = replica.outstanding.saturating_sub(1);
        }
    }

    /// A replica takes no more work: its bound requests are bound to others, or wait for any; those that need a state that
    /// is there are answered.
    pub(super) fn rebind(&mut self, now: Nanos, id: usize) {
        let Some(mut queue) = self.replicas[id].bound.take() else { return };
        let model = self.replicas[id].model;
        for key in queue.drain() {
            let Some(request) = self.request_mut(key) else { continue };
            request.bound = None;
            let lane = request.lane;
            self.tenants.left(lane.priority, lane.tenant, key);
            self.replicas[id].outstanding = self.replicas[id].outstanding.saturating_sub(1);
            self.enqueue(now, key);
        }
        self.requeued(model);
    }
}
