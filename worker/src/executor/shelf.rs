//! The models of a device, by name, and what is under way of each.

use std::collections::{BTreeMap, HashMap};

use orion_models::GeneratorLoad;

use super::kept::{Held, Kept};

/// What a model's batches and its removal share.
#[derive(Default)]
pub(super) struct Shelf {
    pub(super) models: HashMap<String, Held>,
    /// How each generator is filled, whether or not it is on the shelf.
    pub(super) loads: BTreeMap<String, GeneratorLoad>,
    /// By model: jobs that wait for the device or are on it.
    pub(super) pending: HashMap<String, usize>,
    /// The memory that the batch may take which runs now: its model is off the shelf.
    pub(super) running: u64,
}

impl Shelf {
    /// Bytes that a batch of the hungriest model may still take, beside what the one that runs has or will have soon.
    pub(super) fn room(&self) -> u64 {
        self.models.values().map(Held::room).max().unwrap_or(0).saturating_sub(self.running)
    }

    pub(super) fn put(&mut self, name: String, held: Held) {
        if let Kept::Generator(sequences) = &held.kept {
            self.loads.insert(name.clone(), sequences.load());
        }
        self.models.insert(name, held);
    }

    pub(super) fn begun(&mut self, name: &str) {
        *self.pending.entry(name.to_owned()).or_default() += 1;
    }

    pub(super) fn ended(&mut self, name: &str) {
        if let Some(count) = self.pending.get_mut(name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.pending.remove(name);
            }
        }
    }

    /// The model of this load, off the shelf.
    pub(super) fn take(&mut self, name: &str, load: u64) -> Option<Held> {
        self.models.get(name).filter(|held| held.load == load)?;
        self.loads.remove(name);
        self.models.remove(name)
    }
}
