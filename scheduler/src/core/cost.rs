//! The one quantity that every decision compares: predicted seconds until a request is answered by a device.

use super::{
    Core, Nanos,
    catalogue::Known,
    curve::{Curve, Line},
    replica::Replica,
};

/// Replicas that are looked at: among so many, one is about as good as the best.
pub(super) const SAMPLE: usize = 64;

/// `max(work left there, loading the model, carrying the request) + prefill + service + carrying the answer`, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Until the device is done with what it runs and was given.
    pub work: Nanos,
    /// Until the model is on the device; 0 where it is.
    pub load: Nanos,
    /// Until the request is at the device.
    pub carriage: Nanos,
    /// Of a generation: for the part of its prompt that is not cached.
    pub prefill: Nanos,
    /// On the device; of a generation its first step.
    pub service: Nanos,
    /// Until the answer is back.
    pub answer: Nanos,
}

impl Cost {
    pub(super) fn total(&self) -> Nanos {
        let start = self.work.max(self.load).max(self.carriage);
        start.saturating_add(self.prefill).saturating_add(self.service).saturating_add(self.answer)
    }
}

impl<T, L: Clone> Core<T, L> {
    /// What is believed of a model on a device that may not hold it: measured there, or scaled by the devices' speeds.
    /// By length bucket.
    pub(super) fn predicted_curves(&self, model: usize, device: usize) -> Vec<Curve> {
        let class = self.devices[device].class;
        let Some(known) = self.models[model].known(class) else { return vec![Curve::default()] };
        if known.class == class {
            return known.curves().copied().collect();
        }
        let slower = self.slower(known.class, class);
        known.curves().map(|curve| curve.scaled(slower)).collect()
    }

    /// The same, as decisions read it.
    pub(super) fn predicted_line(&self, model: usize, device: usize) -> Line {
        let class = self.devices[device].class;
        let Some(known) = self.models[model].known(class) else { return Line::default() };
        match known.class == class {
            true => known.curve.line(),
            false => known.curve.line().stretched(self.slower(known.class, class)),
        }
    }

    /// How many times as long devices of one class take as those of another, by what they measured.
    fn slower(&self, known: usize, class: usize) -> f64 {
        match (self.classes[known].flops, self.classes[class].flops) {
            (there, here) if there > 0.0 && here > 0.0 => there / here,
            _ => 1.0,
        }
    }

    /// Predicted time of a load on a device, its files being fetched first where its worker lacks them.
    pub(super) fn load_time(&self, model: usize, device: usize) -> Nanos {
        let worker = self.devices[device].worker;
        self.load_alone(model, device).saturating_add(self.fetch_time(model, worker))
    }

    /// The same without fetching.
    fn load_alone(&self, model: usize, device: usize) -> Nanos {
        self.models[model].known(self.devices[device].class).map_or(0, |known: &Known| known.load)
    }

    /// Predicted time of a request of `rows` rows and `bytes` bytes, if it were given to this device now.
    pub(super) fn cost(&self, now: Nanos, model: usize, device: usize, rows: usize, bytes: usize) -> Cost {
        let holder = self.models[model].replicas.iter().map(|id| &self.replicas[*id]).find(|r| r.device == device);
        let line = holder.map_or_else(|| self.predicted_line(model, device), |replica| replica.line(0));
        let load = match holder {
            Some(replica) => self.load_left(now, replica),
            None => self.copying_left(now, device).saturating_add(self.load_time(model, device)),
        };
        self.cost_on(now, device, load, line.predict(rows), bytes)
    }

    /// Until a device's copy engine is free.
    fn copying_left(&self, now: Nanos, device: usize) -> Nanos {
        self.devices[device].loading.map_or(0, |id| self.load_left(now, &self.replicas[id]))
    }

    /// Until the first of these devices could begin to load another model. Of many, one can.
    fn first_engine(&self, now: Nanos, suitable: &[usize]) -> Nanos {
        if self.copying < suitable.len() || suitable.len() > SAMPLE {
            return 0;
        }
        suitable.iter().map(|device| self.copying_left(now, *device)).min().unwrap_or(0)
    }

    /// What is left of a replica's load.
    fn load_left(&self, now: Nanos, replica: &Replica) -> Nanos {
        match replica.serves() {
            true => 0,
            false => {
                // Its files may be there by now; the time that it began with counts.
                let whole = self.load_alone(replica.model, replica.device).saturating_add(replica.fetch);
                whole.saturating_sub(now.saturating_sub(replica.started))
            }
        }
    }

    /// The same where the time of the load and that of the batch are known.
    fn cost_on(&self, now: Nanos, device: usize, load: Nanos, service: Nanos, bytes: usize) -> Cost {
        let at = &self.devices[device];
        let answer = self.workers[at.worker].lead;
        Cost { work: at.remaining(now), load, carriage: self.carriage(device, bytes), prefill: 0, service, answer }
    }

    /// Until so many bytes given to a device now are there.
    pub(super) fn carriage(&self, device: usize, bytes: usize) -> Nanos {
        self.lead(device).saturating_add((self.time_per_byte(device) * bytes as f64) as Nanos)
    }

    /// What a byte takes on the way to a device, nanoseconds; 0 where that was not measured.
    pub(super) fn time_per_byte(&self, device: usize) -> f64 {
        let rate = self.workers[self.devices[device].worker].down_rate();
        if rate > 0.0 { 1e9 / rate } else { 0.0 }
    }

    /// The least that a request could cost anywhere: what admission holds against its deadline.
    pub(super) fn least_cost(
        &mut self,
        now: Nanos,
        model: usize,
        bucket: u8,
        rows: usize,
        bytes: usize,
    ) -> Option<Cost> {
        let engine = match self.models[model].replicas.is_empty() {
            true => {
                let suitable = self.suitable(model);
                self.first_engine(now, &suitable)
            }
            false => 0,
        };
        let of_replica = |id: &usize| {
            let replica = &self.replicas[*id];
            let ready = self.takes_requests(*id);
            let service = replica.least_line(bucket).predict(rows);
            let usual = self.cost_on(now, replica.device, self.load_left(now, replica), service, bytes);
            // Nothing is refused for the sake of a few slow round trips.
            let worker = &self.workers[self.devices[replica.device].worker];
            let carriage = usual.carriage.saturating_sub(worker.lead).saturating_add(worker.least_lead);
            let work = usual.work.max(replica.breaker.shut_for(now));
            ready.then_some(Cost { work, carriage, answer: worker.least_lead, ..usual })
        };
        let held = self.models[model].replicas.iter().take(SAMPLE).filter_map(of_replica).min_by_key(Cost::total);
        held.or_else(|| {
            let anew = |known: &Known| Cost {
                load: engine.saturating_add(known.load),
                service: known.curve.line().predict(rows),
                ..Cost::default()
            };
            self.models[model].known.iter().map(anew).min_by_key(Cost::total)
        })
    }
}
