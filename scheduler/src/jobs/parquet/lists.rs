//! How many values of lists a file's columns may hold at once: a few bytes of a file may be billions.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use orion_proto::{Error, Result};

/// Values of lists that pages may bring at once, and of all lists that are held.
pub(super) const VALUES: u64 = 4 << 20;
const HELD: u64 = 2 * VALUES;

/// Values of lists: what pages may still bring, how many this column holds of all, and should at most.
pub(super) struct Lists {
    pub(super) left: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
    own: u64,
    pub(super) share: u64,
}

impl Lists {
    /// Of one of so many columns, which hold all of these.
    pub(super) fn new(all: Arc<AtomicU64>, columns: usize) -> Self {
        Self { left: Arc::new(AtomicU64::new(u64::MAX)), all, own: 0, share: VALUES / columns.max(1) as u64 }
    }

    /// This column holds so many.
    pub(super) fn hold(&mut self, count: u64) -> Result<()> {
        let before = self.all.fetch_add(count, Ordering::Relaxed);
        self.all.fetch_sub(self.own, Ordering::Relaxed);
        let all = before.saturating_sub(std::mem::replace(&mut self.own, count)).saturating_add(count);
        if all > HELD {
            return Err(Error::invalid(format!("the file has rows whose lists have more than {HELD} values")));
        }
        Ok(())
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::Relaxed);
    }
}
