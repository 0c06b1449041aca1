//! Workload B's replicas as they really are, and an oracle that knows it.

use crate::core::Nanos;

use super::world::MS;

/// Factor by which a slow episode stretches the work.
const SLOWED: f64 = 3.0;

/// Replicas with their speeds and slow episodes, in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Replicas {
    pub speed: Vec<f64>,
    pub episodes: Vec<Vec<(f64, f64)>>,
}

impl Replicas {
    /// When work that begins at `start` ends on a replica, milliseconds.
    pub(super) fn finish(&self, replica: usize, start: f64, work: f64) -> f64 {
        let episodes = &self.episodes[replica];
        let first = episodes.partition_point(|(_, end)| *end <= start);
        let (mut time, mut left) = (start, work / self.speed[replica]);
        for &(begins, ends) in &episodes[first..] {
            if time < begins {
                if time + left <= begins {
                    return time + left;
                }
                left -= begins - time;
                time = begins;
            }
            let needed = left * SLOWED;
            if time + needed <= ends {
                return time + needed;
            }
            left -= (ends - time) / SLOWED;
            time = ends;
        }
        time + left
    }

    /// Latencies when every request goes, on arrival, to the replica that will really finish it first.
    pub(super) fn oracle(&self, arrivals: &[f64], work: &[f64], one_way: f64) -> Vec<Nanos> {
        let mut free = vec![0.0f64; self.speed.len()];
        let place = |(&arrival, &work): (&f64, &f64)| {
            let mut best = (f64::MAX, 0);
            for (replica, free) in free.iter().enumerate() {
                let start = free.max(arrival + one_way);
                if start < best.0 {
                    let finish = self.finish(replica, start, work);
                    best = if finish < best.0 { (finish, replica) } else { best };
                }
            }
            free[best.1] = best.0;
            ((best.0 + one_way - arrival) * MS) as Nanos
        };
        arrivals.iter().zip(work).map(place).collect()
    }
}
