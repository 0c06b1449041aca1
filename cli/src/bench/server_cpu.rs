//! CPU that the server used: the scheduler's process and the workers outside it.

use std::collections::BTreeMap;

use orion_proto::cluster::{NodesRequest, StatusRequest};

use crate::{Failure, client::Client};

/// The carrier of a worker that shares the scheduler's process.
const IN_PROCESS: &str = "in-process";

/// CPU seconds so far.
#[derive(Clone, Debug)]
pub(crate) struct ServerCpu {
    scheduler: f64,
    /// By node and session, since a worker that was started again counts from 0.
    workers: BTreeMap<(String, u64), f64>,
}

/// CPU seconds of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CpuUsed {
    /// Seconds of all processes.
    pub(crate) seconds: f64,
    /// Whether a part comes from workers, which report once a second.
    pub(crate) from_workers: bool,
}

impl ServerCpu {
    /// Asks the server; `None` where it has no such service (another server of the same protocol).
    pub(crate) async fn read(client: &mut Client) -> Result<Option<Self>, Failure> {
        let status = match client.cluster.status(StatusRequest {}).await {
            Err(status) if status.code() == tonic::Code::Unimplemented => return Ok(None),
            answered => answered?.into_inner(),
        };
        let nodes = client.cluster.nodes(NodesRequest::default()).await?.into_inner().nodes;
        let outside = nodes.into_iter().filter(|node| node.carrier != IN_PROCESS);
        let workers = outside.filter_map(|node| Some(((node.name, node.session), node.telemetry?.cpu_seconds)));
        Ok(Some(Self { scheduler: status.cpu_seconds, workers: workers.collect() }))
    }

    /// What was used since `before`, by the workers seen both times.
    pub(crate) fn since(&self, before: &Self) -> CpuUsed {
        let used = |(key, now): (&(String, u64), &f64)| Some((now - before.workers.get(key)?).max(0.0));
        let workers: f64 = self.workers.iter().filter_map(used).sum();
        CpuUsed {
            seconds: (self.scheduler - before.scheduler).max(0.0) + workers,
            from_workers: !self.workers.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_was_started_again_does_not_count_backwards() {
        let at = |scheduler, workers: &[(&str, u64, f64)]| ServerCpu {
            scheduler,
            workers: workers.iter().map(|(name, session, cpu)| ((name.to_string(), *session), *cpu)).collect(),
        };
        let used = at(3.0, &[("a", 1, 7.0), ("b", 3, 0.5)]).since(&at(1.0, &[("a", 1, 5.0), ("b", 2, 9.0)]));
        assert_eq!(used, CpuUsed { seconds: 4.0, from_workers: true });
    }
}
