//! How workers are, by their own account: delays, memory, speed.

use orion_proto::session;

use super::{Core, IN_PROCESS, ModelState, Nanos, cluster::Worker};

/// Decoding a batch and handing it to the executor.
const PREPARATION: Nanos = 100_000;

impl<L> Worker<L> {
    /// Bytes a second from the scheduler to it: as seen while they flowed, before that as it probed the other way; 0: not known.
    pub(super) fn down_rate(&self) -> f64 {
        if self.carries > 0.0 { self.carries } else { self.probed_rate() }
    }

    /// The same from it to the scheduler.
    pub(super) fn up_rate(&self) -> f64 {
        let seen = self.telemetry.bytes_per_second;
        if seen > 0.0 { seen } else { self.probed_rate() }
    }

    fn probed_rate(&self) -> f64 {
        self.measurement.as_ref().map_or(0.0, |figures| figures.scheduler_bytes_per_second)
    }
}

impl<T, L: Clone> Core<T, L> {
    /// Tells what a worker measured or how it is.
    pub fn telemetry(&mut self, now: Nanos, session: u64, telemetry: session::Telemetry) {
        let Some(index) = self.by_session(session) else { return };
        let worker = &mut self.workers[index];
        worker.last_frame = now;
        // Half the usual round trip, and what the slow ones add: the jitter.
        let seconds = telemetry.round_trip_p50_seconds / 2.0
            + (telemetry.round_trip_p99_seconds - telemetry.round_trip_p50_seconds).max(0.0) / 2.0;
        // A report between two beats tells of memory alone.
        let measured = telemetry.round_trip_p50_seconds > 0.0;
        if worker.carrier != IN_PROCESS && measured {
            let nanos = |seconds: f64| (seconds.clamp(0.0, 1.0) * 1e9) as Nanos + PREPARATION;
            worker.lead = nanos(seconds);
            worker.least_lead = nanos(telemetry.round_trip_p50_seconds / 2.0);
        }
        let devices = worker.devices.clone();
        for device in devices {
            // The way there may take less or more than it did.
            self.set_alarm(now, device);
            if self.devices[device].alarm.is_none() && !self.devices[device].batches.is_empty() {
                self.fill(now, device);
            }
            let name = self.devices[device].name.clone();
            let figures = telemetry.devices.iter().find(|figures| *figures.name == *name);
            if let Some(free) = figures.map(|figures| figures.memory_free_bytes).filter(|free| *free > 0) {
                let loading = self.devices[device].residents.iter().map(|id| &self.replicas[*id]);
                let loading = loading
                    .filter(|replica| replica.sent && replica.state == ModelState::Loading)
                    .map(|replica| replica.bytes)
                    .sum();
                self.devices[device].ledger.measured(free, loading);
            }
        }
        let known = &self.workers[index].telemetry;
        let round_trips = (known.round_trip_p50_seconds, known.round_trip_p99_seconds);
        self.workers[index].telemetry = telemetry;
        if !measured {
            let known = &mut self.workers[index].telemetry;
            (known.round_trip_p50_seconds, known.round_trip_p99_seconds) = round_trips;
        }
    }

    /// What the link to a worker carried while more waited than could go, bytes a second; 0: it was not busy lately.
    pub fn carries(&mut self, session: u64, bytes_per_second: f64) {
        if let Some(index) = self.by_session(session) {
            self.workers[index].carries = bytes_per_second;
        }
    }

    /// The place of a worker's device.
    pub(super) fn device_named(&self, worker: usize, name: &str) -> Option<usize> {
        self.workers[worker].devices.iter().copied().find(|device| &*self.devices[*device].name == name)
    }

    /// A worker's measured figures.
    pub fn measured(&mut self, session: u64, measurement: session::Measurement) {
        let Some(index) = self.by_session(session) else { return };
        self.workers[index].measurement = Some(measurement);
        for device in &self.workers[index].devices {
            let device = &self.devices[*device];
            if device.info.kind == "cpu" {
                self.classes[device.class].flops = measurement.f32_flops.max(0.0);
            }
        }
    }
}
