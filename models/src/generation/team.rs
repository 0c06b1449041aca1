//! The threads of a pool doing one computation together, phase after phase.
//!
//! Waking a pool for each of the hundreds of products of a step would cost more than small products take. So a step wakes
//! it once; between phases its threads wait for each other without sleeping.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Looks at the others so often before it lets other threads of the machine run.
const SPINS: u32 = 20_000;

/// What the threads of one computation share.
struct Team {
    members: usize,
    /// Members that have arrived at the end of a phase, over all phases.
    arrived: AtomicUsize,
    /// A member's computation panicked, so nobody must wait for it.
    broken: AtomicBool,
    /// Of each phase, how much of its work has been taken.
    taken: Vec<Taken>,
}

/// On a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Taken(AtomicUsize);

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
pub(crate) fn together(phases: usize, work: impl Fn(&mut Member<'_>) + Sync) {
    let members = rayon::current_num_threads();
    let taken = (0..phases).map(|_| Taken::default()).collect();
    let team = Team { members, arrived: AtomicUsize::new(0), broken: AtomicBool::new(false), taken };
    let run = || {
        let _alarm = Alarm(&team.broken);
        work(&mut Member { team: &team, phase: 0 });
    };
    if members == 1 {
        return run();
    }
    rayon::broadcast(|_| run());
}

impl Member<'_> {
    /// Takes pieces of `total` items, at most `most` at a time, until the team has taken all; then waits for the others.
    pub(crate) fn share(&mut self, total: usize, most: usize, mut work: impl FnMut(Range<usize>)) {
        let taken = self.team.taken.get(self.phase).map(|taken| &taken.0);
        while let Some(start) =
            taken.map(|taken| taken.fetch_add(most, Ordering::Relaxed)).filter(|start| *start < total)
        {
            work(start..total.min(start + most));
        }
        self.wait();
    }

    /// Ends the phase.
    #[expect(clippy::panic, reason = "another member has panicked already")]
    fn wait(&mut self) {
        let Team { members, arrived, broken, .. } = self.team;
        self.phase += 1;
        let all = self.phase * members;
        arrived.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0;
        while arrived.load(Ordering::Acquire) < all {
            if broken.load(Ordering::Acquire) {
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
                    member.share(done.len(), 7, |items| {
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
                    member.share(1, 1, |_| panic!("on purpose"));
                    member.share(1, 1, |_| ());
                });
            });
        }));
        assert!(outcome.is_err());
    }
}
