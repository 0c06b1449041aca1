//! Emulated devices: what `orion worker --simulate FILE` offers in place of this machine's own. `docs/simulate.md` lists
//! the file's keys.

use std::{path::Path, sync::Arc};

use orion_models::Pace;
use orion_proto::session::Device;
use parking_lot::Mutex;

mod file;

/// Devices that are emulated.
#[derive(Clone, Debug)]
pub struct Simulation {
    pub(crate) devices: Vec<SimulatedDevice>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDevice {
    pub(crate) name: String,
    pub(crate) memory_bytes: u64,
    pub(crate) pace: Pace,
}

impl Simulation {
    /// Reads a file of devices.
    ///
    /// # Errors
    /// Every mistake in it, each naming the entry, the key, its value and what would be right.
    pub fn read(path: &Path) -> Result<Self, Vec<String>> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| vec![format!("cannot read {}: {}", path.display(), error.to_string().to_lowercase())])?;
        Self::parse(&text)
            .map_err(|mistakes| mistakes.iter().map(|mistake| format!("{}: {mistake}", path.display())).collect())
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// As [`Simulation::read`].
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        file::parse(text)
    }
}

impl SimulatedDevice {
    /// How it is told to a scheduler.
    pub(crate) fn described(&self) -> Device {
        Device {
            name: self.name.clone(),
            kind: "simulated".into(),
            model: format!("simulated, {} times slower than its models say", self.pace.slowdown),
            memory_total_bytes: self.memory_bytes,
            memory_free_bytes: self.memory_bytes,
            usable: true,
            datatypes: ["f32", "f16", "bf16"].map(str::to_owned).into(),
            ..Device::default()
        }
    }
}

/// The memory of an emulated device: what is reserved is gone until its [`Reservation`] is dropped.
#[derive(Debug)]
pub(crate) struct Ledger {
    capacity_bytes: u64,
    held_bytes: Mutex<u64>,
}

/// Memory that a model holds.
#[derive(Debug)]
pub(crate) struct Reservation {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl Ledger {
    pub(crate) fn new(capacity_bytes: u64) -> Arc<Self> {
        Arc::new(Self { capacity_bytes, held_bytes: Mutex::default() })
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        self.capacity_bytes - *self.held_bytes.lock()
    }

    /// Takes so many bytes, or says how many are free.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, u64> {
        let mut held = self.held_bytes.lock();
        let free = self.capacity_bytes - *held;
        if bytes > free {
            return Err(free);
        }
        *held += bytes;
        Ok(Reservation { ledger: self.clone(), bytes })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        *self.ledger.held_bytes.lock() -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_never_oversold_and_comes_back() {
        let ledger = Ledger::new(10);
        let six = ledger.reserve(6).unwrap();
        let four = ledger.reserve(4).unwrap();
        assert_eq!(ledger.reserve(1).unwrap_err(), 0);
        assert!(ledger.reserve(0).is_ok());
        drop(six);
        assert_eq!((ledger.free_bytes(), ledger.reserve(u64::MAX).unwrap_err()), (6, 6));
        drop(four);
        assert_eq!(ledger.free_bytes(), 10);
    }
}
