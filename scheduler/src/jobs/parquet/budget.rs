//! How much memory a file's columns may take: a few bytes of a file may be billions.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Bytes of pages, and of the values of lists, that are held for a file.
pub(super) const MOST: u64 = 256 << 20;
/// Records that are read at once.
const RECORDS: u64 = 64;

/// What a column has of it, for the records that are read at once.
pub(super) struct Share {
    all: Arc<AtomicU64>,
    /// Bytes that a value of its lists takes; 0: it has none.
    value_bytes: u64,
    /// Whether other records are read than those that the pages before were of.
    is_new: AtomicBool,
    /// Of its dictionary, of its last page, and of all pages of these records.
    dictionary: AtomicU64,
    page: AtomicU64,
    pages: AtomicU64,
    /// Since its group of rows began.
    loaded: AtomicU64,
    records: AtomicU64,
    /// Bytes that it should hold.
    fair: u64,
}

impl Share {
    /// Of one of so many columns, which hold all of this.
    pub(super) fn new(all: Arc<AtomicU64>, columns: usize, value_bytes: u64) -> Arc<Self> {
        let [dictionary, page, pages, loaded, records] = std::array::from_fn(|_| AtomicU64::new(0));
        let (is_new, fair) = (AtomicBool::new(true), MOST / 4 / columns.max(1) as u64);
        Arc::new(Self { all, value_bytes, is_new, dictionary, page, pages, loaded, records, fair })
    }

    /// Takes a dictionary; whether there is room.
    pub(super) fn dictionary(&self, bytes: u64) -> bool {
        self.change(self.dictionary.swap(bytes, Ordering::Relaxed), bytes)
    }

    /// Takes a page with so many values; whether there is room.
    pub(super) fn page(&self, bytes: u64, values: u64) -> bool {
        let bytes = bytes.saturating_add(values.saturating_mul(self.value_bytes));
        self.loaded.fetch_add(bytes, Ordering::Relaxed);
        // What is left of the page before is read with this one.
        let (last, before) = (self.page.swap(bytes, Ordering::Relaxed), self.pages.load(Ordering::Relaxed));
        let kept = if self.is_new.swap(false, Ordering::Relaxed) { last } else { before };
        let pages = kept.saturating_add(bytes);
        self.pages.store(pages, Ordering::Relaxed);
        self.change(before, pages)
    }

    fn change(&self, before: u64, now: u64) -> bool {
        let all = self.all.fetch_add(now, Ordering::Relaxed).saturating_add(now).saturating_sub(before);
        self.all.fetch_sub(before, Ordering::Relaxed);
        all <= MOST
    }

    /// How many records are to be read next.
    pub(super) fn next(&self) -> usize {
        self.is_new.store(true, Ordering::Relaxed);
        let (loaded, records) = (self.loaded.load(Ordering::Relaxed), self.records.load(Ordering::Relaxed));
        usize::try_from((self.fair.saturating_mul(records) / loaded.max(1)).clamp(1, RECORDS)).unwrap_or(1)
    }

    /// So many were read.
    pub(super) fn read(&self, records: usize) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = self.dictionary.load(Ordering::Relaxed).saturating_add(self.pages.load(Ordering::Relaxed));
        self.all.fetch_sub(held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_at_once_fits() {
        let all = Arc::new(AtomicU64::new(0));
        let share = Share::new(all.clone(), 4, 0);
        assert_eq!(share.next(), 1);
        assert!(share.dictionary(100) && share.page(16 << 20, 1));
        share.read(1);
        assert_eq!((share.next(), all.load(Ordering::Relaxed)), (1, 100 + (16 << 20)));
        share.read(63);
        assert_eq!(share.next(), 64, "the page had many");
        // Of the same records, and of others.
        assert!(share.page(30, 1) && share.page(40, 1));
        assert_eq!(all.load(Ordering::Relaxed), 100 + (16 << 20) + 70);
        share.next();
        assert!(share.page(50, 1) && !share.page(MOST, 1));
        share.next();
        assert!(!share.page(u64::MAX, u64::MAX));
        let others = Share::new(Arc::default(), 4, 10);
        assert!(others.page(5, 1) && !others.page(5, MOST / 10));
        drop(share);
        let of_a_group = Share::new(all.clone(), 1, 0);
        assert!(of_a_group.page(7, 0));
        drop(of_a_group);
    }
}
