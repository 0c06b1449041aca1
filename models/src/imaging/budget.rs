//! Memory that all decoders of this process share.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that are free; who needs more than these waits for others to give theirs back.
pub(super) struct Budget {
    free: Mutex<u64>,
    given_back: Condvar,
}

impl Budget {
    pub(super) const fn new(bytes: u64) -> Self {
        Self { free: Mutex::new(bytes), given_back: Condvar::new() }
    }

    /// Does some work while it holds so many bytes, which must not be more than the whole budget.
    pub(super) fn with<R>(&self, bytes: u64, work: impl FnOnce() -> R) -> R {
        struct Held<'a>(&'a Budget, u64);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                *self.0.lock() += self.1;
                self.0.given_back.notify_all();
            }
        }
        let mut free = self.lock();
        while *free < bytes {
            free = self.given_back.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        drop(free);
        let _held = Held(self, bytes);
        work()
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn the_sum_of_what_is_held_stays_within_it() {
        let (budget, held) = (Budget::new(10), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for bytes in [10, 3, 7, 5, 5, 10, 1] {
                let (budget, held) = (&budget, &held);
                scope.spawn(move || {
                    for _ in 0..200 {
                        budget.with(bytes, || {
                            assert!(held.fetch_add(bytes, Ordering::SeqCst) + bytes <= 10);
                            std::thread::yield_now();
                            held.fetch_sub(bytes, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        // Also after a panic.
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| budget.with(10, || panic!("as meant"))));
        assert!(panicked.is_err() && budget.with(10, || true));
    }
}
