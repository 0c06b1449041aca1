//! A disk in memory whose power fails: what was not synced is lost, kept, or torn.

use std::{io, sync::Arc};

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use redb::StorageBackend;

/// Bytes that a disk writes as a whole.
const SECTOR: usize = 512;

/// A disk. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What would be there after a loss of power, for certain.
    durable: Vec<u8>,
    /// What is read: with all that was written.
    seen: Vec<u8>,
    unsynced: Vec<Write>,
    /// Operations so far, and the one during which the power fails.
    operations: u64,
    fails_at: u64,
    /// Every so many syncs one does nothing; 0: none. To see that the checks notice.
    lies: u64,
    syncs: u64,
}

#[derive(Clone, Debug)]
enum Write {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Disk {
    /// An empty disk whose power fails during the operation of this number. Each so many syncs one lies; 0: none does.
    pub(crate) fn new(fails_at: u64, lies: u64) -> Self {
        Self(Arc::new(Mutex::new(State { fails_at, lies, ..State::default() })))
    }

    /// Whether the power has failed.
    pub(crate) fn is_dead(&self) -> bool {
        let state = self.0.lock();
        state.operations >= state.fails_at
    }

    /// What is found when the power is back: of each unsynced write all, nothing, or some sectors.
    pub(crate) fn after_loss(&self, seed: u64, fails_at: u64) -> Self {
        let state = self.0.lock();
        let (mut bytes, mut random) = (state.durable.clone(), StdRng::seed_from_u64(seed));
        for write in &state.unsynced {
            match (random.random_range(0..3), write) {
                (0, _) => {}
                (_, Write::Length(length)) => bytes.resize(*length, 0),
                (kind, Write::Bytes(at, written)) => {
                    for (place, sector) in sectors(*at, written) {
                        if kind == 1 || random.random_bool(0.5) {
                            put(&mut bytes, place, sector);
                        }
                    }
                }
            }
        }
        let (seen, durable, lies) = (bytes.clone(), bytes, state.lies);
        Self(Arc::new(Mutex::new(State { seen, durable, fails_at, lies, ..State::default() })))
    }
}

/// The parts of what is written at `at` that lie in one sector each, and where.
fn sectors(at: usize, written: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut place = at;
    let mut rest = written;
    std::iter::from_fn(move || {
        let count = rest.len().min(SECTOR - place % SECTOR);
        let (sector, left) = rest.split_at(count);
        let here = place;
        (place, rest) = (place + count, left);
        (count > 0).then_some((here, sector))
    })
}

fn put(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    if bytes.len() < at + written.len() {
        bytes.resize(at + written.len(), 0);
    }
    bytes[at..at + written.len()].copy_from_slice(written);
}

impl State {
    /// One operation more; an error from the loss of power on.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.operations >= self.fails_at { Err(io::Error::other("the power failed")) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let mut state = self.0.lock();
        state.operate()?;
        let from = offset as usize;
        let found = state.seen.get(from..from + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::other("read beyond the end"))?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        let mut state = self.0.lock();
        state.unsynced.push(Write::Length(length as usize));
        state.seen.resize(length as usize, 0);
        state.operate()
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.0.lock();
        state.operate()?;
        state.syncs += 1;
        if state.lies > 0 && state.syncs.is_multiple_of(state.lies) {
            return Ok(());
        }
        let State { durable, unsynced, .. } = &mut *state;
        for write in unsynced.drain(..) {
            match write {
                Write::Length(length) => durable.resize(length, 0),
                Write::Bytes(at, written) => put(durable, at, &written),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut state = self.0.lock();
        state.unsynced.push(Write::Bytes(offset as usize, data.to_vec()));
        put(&mut state.seen, offset as usize, data);
        state.operate()
    }
}
