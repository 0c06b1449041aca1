//! The threads of a pool doing one computation together, phase after phase.
//!
//! Waking a pool for each of the hundreds of products of a step would cost more than small products take. So a step wakes
//! it once, and between phases nobody sleeps. A phase has ended when its work is done, not when everybody has been there:
//! a thread that the system gives no time holds nobody up but with the piece that it has taken.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Looks at the others so often before it lets other threads of the machine run.
const SPINS: u32 = 2_000;

/// What the threads of one computation share.
struct Team {
    /// A member's computation panicked, so nobody must wait for it.
    broken: AtomicBool,
    phases: Vec<Phase>,
    threads: usize,
}

/// How far the work of a phase is; each figure on a cache line of its own.
#[derive(Default)]
struct Phase {
    taken: Aligned,
    done: Aligned,
}

#[derive(Default)]
#[repr(align(64))]
struct Aligned(AtomicUsize);

/// How the work of a phase is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces {
    /// A piece has a multiple of so many items.
    pub(crate) unit: usize,
    /// And at most so many.
    pub(crate) most: usize,
}

impl Pieces {
    /// So many at a time.
    pub(crate) const fn even(items: usize) -> Self {
        Self { unit: items, most: items }
    }

    /// The size of the next piece where so many items are left: half of a thread's share, so that the last pieces, which
    /// other threads may have to wait for, are short.
    fn next(self, left: usize, threads: usize) -> usize {
        (left / (2 * threads)).min(self.most).next_multiple_of(self.unit).max(self.unit)
    }
}

/// One thread of a computation.
pub(crate) struct Member<'a> {
    team: &'a Team,
    phase: usize,
}

/// Tells the others when its thread panics.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

/// Runs the same computation of so many phases on every thread of the current pool, and returns when all have ended.
///
/// Outside of what it takes in [`Member::share`] a computation must read nothing that a later phase writes: it may be late.
pub(crate) fn together(phases: usize, work: impl Fn(&mut Member<'_>) + Sync) {
    let threads = rayon::current_num_threads();
    let phases = (0..phases).map(|_| Phase::default()).collect();
    let team = Team { broken: AtomicBool::new(false), phases, threads };
    let run = || {
        let _alarm = Alarm(&team.broken);
        work(&mut Member { team: &team, phase: 0 });
    };
    if threads == 1 {
        return run();
    }
    rayon::broadcast(|_| run());
}

impl Member<'_> {
    /// Takes pieces of `total` items until the team has taken all; then waits until all are done.
    #[expect(clippy::panic, reason = "the computation has too many phases, or another member has panicked already")]
    pub(crate) fn share(&mut self, total: usize, pieces: Pieces, mut work: impl FnMut(Range<usize>)) {
        let Some(Phase { taken, done }) = self.team.phases.get(self.phase) else {
            panic!("the computation has {} phases, it must not have more", self.team.phases.len());
        };
        self.phase += 1;
        loop {
            let size = pieces.next(total.saturating_sub(taken.0.load(Ordering::Relaxed)), self.team.threads);
            let start = taken.0.fetch_add(size, Ordering::Relaxed);
            if start >= total {
                break;
            }
            let end = total.min(start + size);
            work(start..end);
            done.0.fetch_add(end - start, Ordering::Release);
        }
        let mut spins = 0;
        while done.0.load(Ordering::Acquire) < total {
            if self.team.broken.load(Ordering::Acquire) {
                panic!("another thread of the computation panicked");
            }
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_and_phases_do_not_overlap() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let done: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
        pool.install(|| {
            together(50, |member| {
                for phase in 0..50 {
                    member.share(done.len(), Pieces { unit: 7, most: 70 }, |items| {
                        for item in items {
                            assert_eq!(done[item].fetch_add(1, Ordering::Relaxed), phase);
                        }
                    });
                }
            });
        });
        assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 50));
    }

    #[test]
    fn one_that_panics_keeps_nobody_waiting() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.install(|| {
                together(2, |member| {
                    member.share(1, Pieces::even(1), |_| panic!("on purpose"));
                    member.share(1, Pieces::even(1), |_| ());
                });
            });
        }));
        assert!(outcome.is_err());
    }
}
