//! Who does the pieces of an operation.

use rayon::prelude::*;

/// Whether an operation is shared out among the pool's threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// It is.
    All,
    /// It is not: the others have work of their own.
    One,
}

impl Threads {
    /// Does independent things: as many at once as there are threads, each on one; those that are left over on all.
    pub(crate) fn share<R: Send>(things: usize, work: impl Fn(usize, Self) -> R + Sync) -> Vec<R> {
        let whole = things - things % rayon::current_num_threads();
        let mut done: Vec<R> = (0..whole).into_par_iter().with_max_len(1).map(|thing| work(thing, Self::One)).collect();
        done.par_extend((whole..things).into_par_iter().with_max_len(1).map(|thing| work(thing, Self::All)));
        done
    }

    /// How many there are.
    pub(super) fn count(self) -> usize {
        if self == Self::All { rayon::current_num_threads() } else { 1 }
    }

    /// Does the tasks of these numbers, in any order.
    pub(super) fn each(self, tasks: usize, work: impl Fn(usize) + Sync) {
        if self == Self::All && tasks > 1 {
            (0..tasks).into_par_iter().for_each(&work);
        } else {
            (0..tasks).for_each(work);
        }
    }
}
