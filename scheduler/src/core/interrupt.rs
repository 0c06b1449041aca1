//! Generations that keep a device from a model's turn for long are interrupted: they go on from what was sent.

use super::{Command, Core, Nanos, RequestKey, claim::CLEARING, device::Device};

/// Devices with generations that are asked, as time passes, whether a model has a claim to them.
const ASKED: usize = 64;

impl<T, L: Clone> Core<T, L> {
    /// Time passes beside generations, of which no batch's end tells: models may have a claim to their devices, and those
    /// that have kept a turn from its beginning or its end for long are interrupted.
    pub(super) fn clear_generators(&mut self, now: Nanos) {
        let asked = !self.claims.is_empty();
        let generating =
            |(id, device): (usize, &Device)| (device.beside > 0 && (asked || device.claim.is_some())).then_some(id);
        let mut devices: Vec<usize> = self.devices.iter().filter_map(generating).collect();
        if devices.len() > ASKED {
            let from = self.turn(devices.len());
            devices.rotate_left(from);
        }
        for device in devices.into_iter().take(ASKED) {
            self.fill(now, device);
            let overstay = self.overstaying(now, device);
            if !overstay.is_empty() {
                overstay.into_iter().for_each(|id| self.interrupt(now, id));
                // Nothing runs there whose end would tell that it is clear.
                self.fill(now, device);
            }
        }
    }

    /// The generators whose generations have kept a turn from its beginning, or from its end, for long.
    fn overstaying(&self, now: Nanos, device: usize) -> Vec<usize> {
        let at = &self.devices[device];
        let ended = at.turn.filter(|turn| turn.is_over(now, CLEARING) && self.is_after_its_turn(now, turn.replica));
        let claim = at.claim.as_ref().filter(|claim| claim.loads && now.saturating_sub(claim.since) > CLEARING);
        let held = claim.map_or(&[][..], |claim| &claim.generators).iter().copied();
        let ended = ended.map(|turn| turn.replica);
        let ended = ended.filter(|id| self.models[self.replicas[*id].model].is_generator());
        held.filter(|id| self.is_held_back(now, *id)).chain(ended).collect()
    }

    /// Takes a replica's generations back: they go on from what was sent, here or elsewhere, once there is a place.
    fn interrupt(&mut self, now: Nanos, id: usize) {
        let of = self.batches.iter().filter(|(_, running)| running.replica == id);
        let numbers: Vec<u64> = of.map(|(number, _)| *number).collect();
        let taken: Vec<RequestKey> = numbers.into_iter().flat_map(|number| self.call_back(now, number)).collect();
        for key in taken {
            self.wait_again(now, vec![key], false);
        }
    }

    /// Calls a batch back, but for what may not be run twice. Gives its requests, which are in no queue.
    fn call_back(&mut self, now: Nanos, number: u64) -> Vec<RequestKey> {
        let repeats = |key| self.request(key).is_some_and(|request| request.request.parameters.idempotent);
        let Some(running) = self.batches.get(&number) else { return Vec::new() };
        let worker = running.worker;
        let (taken, kept): (Vec<_>, Vec<_>) = running.attempts.iter().partition(|(_, key)| repeats(*key));
        if taken.is_empty() {
            return Vec::new();
        }
        let (attempts, keys): (Vec<u64>, Vec<RequestKey>) = taken.into_iter().unzip();
        keys.iter().for_each(|key| self.stop(*key, number));
        match self.batches.get_mut(&number) {
            Some(running) if !kept.is_empty() => running.attempts = kept,
            _ => self.drop_batch(now, number),
        }
        if let Some(link) = self.workers[worker].link.clone() {
            self.commands.push(Command::Cancel { link, batch: number, attempts });
        }
        keys
    }
}
