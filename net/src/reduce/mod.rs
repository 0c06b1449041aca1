//! Sums of what several workers computed, the same bits whoever computed what.
//!
//! Numbers are added in the order of a fixed tree over the parts of a step, not in the order of workers: a worker sends the sums
//! of the largest subtrees that are its own, and whoever adds them up goes on from there. So workers may come, go and take more
//! or less of each step, and the sum is that of one worker alone. A ring, in which each adds its own to what it is sent, has
//! another order for each number of workers.

mod shares;
mod tree;

pub use shares::{Speeds, shares};
pub use tree::Partial;

use std::ops::Range;

/// The piece of `width` numbers that the member of this rank adds up for all.
pub fn piece(width: usize, rank: usize, members: usize) -> Range<usize> {
    width * rank / members..width * (rank + 1) / members
}
