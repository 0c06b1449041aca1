//! Where an artifact is fetched from: which addresses are tried, what came from them, and what they did wrong.

use std::collections::{HashMap, HashSet};

use crate::{
    origin::{Location, shown},
    transfer::relay::relayed_worker,
};

/// Addresses that are tried at once.
const MOST_DIALS: usize = 32;
/// An address that did so often what it may not is not tried again.
const MOST_FAULTS: u8 = 2;
/// Reasons that are kept for a person to read.
const MOST_REASONS: usize = 4;

/// The addresses of one fetch.
#[derive(Debug, Default)]
pub(in crate::transfer) struct Addresses {
    /// Those that were tried or are connected.
    known: HashSet<String>,
    /// How many are connected, or tried to be.
    dials: usize,
    faults: HashMap<String, u8>,
    /// How many chunks came from each.
    chunks: HashMap<String, usize>,
    /// Why some were left, the last few.
    reasons: Vec<String>,
}

impl Addresses {
    /// Whether an address is new and may be tried; then it is, until [`Self::end`].
    pub(super) fn begin(&mut self, address: &str) -> bool {
        let is_new = self.dials < MOST_DIALS && !address.is_empty() && self.known.insert(address.to_owned());
        self.dials += usize::from(is_new);
        is_new
    }

    /// Whether one of them is a node's, which is reached there.
    pub(in crate::transfer) fn have_nodes(&self) -> bool {
        self.known.iter().any(|address| !Location::is_one(address) && relayed_worker(address).is_none())
    }

    /// One of them is not tried any more.
    pub(super) fn end(&mut self) {
        self.dials = self.dials.saturating_sub(1);
    }

    /// Whether none is tried.
    pub(super) fn are_over(&self) -> bool {
        self.dials == 0
    }

    /// A chunk came from an address.
    pub(super) fn came(&mut self, address: &str) {
        *self.chunks.entry(address.to_owned()).or_default() += 1;
    }

    /// How many chunks came from it.
    pub(in crate::transfer) fn chunks_from(&self, address: &str) -> usize {
        self.chunks.get(address).copied().unwrap_or_default()
    }

    /// An address did what it may not; whether it was too often.
    pub(in crate::transfer) fn blame(&mut self, address: &str, why: &str) -> bool {
        self.note(address, why);
        let faults = self.faults.entry(address.to_owned()).or_default();
        *faults = faults.saturating_add(1);
        *faults >= MOST_FAULTS
    }

    /// Whether it did so too often.
    pub(in crate::transfer) fn is_banned(&self, address: &str) -> bool {
        self.faults.get(address).is_some_and(|faults| *faults >= MOST_FAULTS)
    }

    /// Remembers why an address was left.
    pub(in crate::transfer) fn note(&mut self, address: &str, why: &str) {
        let reason = format!("{}: {why}", shown(address));
        if self.reasons.last() != Some(&reason) {
            self.reasons.push(reason);
        }
        let count = self.reasons.len();
        self.reasons.drain(..count.saturating_sub(MOST_REASONS));
    }

    /// Why the last ones were left; nothing if none was.
    pub(super) fn reasons(&self) -> Option<String> {
        (!self.reasons.is_empty()).then(|| self.reasons.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_tried_once_and_so_many_at_once() {
        let mut addresses = Addresses::default();
        assert!(!addresses.begin("") && addresses.are_over());
        assert!(addresses.begin("a") && !addresses.begin("a"));
        let tried = (0..100).filter(|number| addresses.begin(&number.to_string())).count();
        assert_eq!(tried, MOST_DIALS - 1);
        addresses.end();
        assert!(addresses.begin("b") && !addresses.begin("c"));
        (0..MOST_DIALS).for_each(|_| addresses.end());
        assert!(addresses.are_over());
    }

    #[test]
    fn who_does_wrong_twice_is_banned_and_named() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.reasons(), None);
        assert!(!addresses.blame("a", "it lied") && !addresses.is_banned("a"));
        assert!(!addresses.blame("b", "it lied"));
        assert!(addresses.blame("a", "it lied again") && addresses.is_banned("a") && !addresses.is_banned("b"));
        assert_eq!(addresses.reasons().unwrap(), "a: it lied; b: it lied; a: it lied again");
        (0..9).for_each(|number| addresses.note("c", &number.to_string()));
        assert_eq!(addresses.reasons().unwrap(), "c: 5; c: 6; c: 7; c: 8");
        addresses.came("a");
        assert_eq!((addresses.chunks_from("a"), addresses.chunks_from("b")), (1, 0));
    }
}
