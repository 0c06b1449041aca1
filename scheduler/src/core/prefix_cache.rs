//! What a replica has probably cached: beginnings of prompts, the longest unused forgotten first as its worker does.

use std::collections::{BTreeMap, HashMap};

/// Beginnings that are remembered of one replica, whatever its cache holds.
const MOST: usize = 8192;

/// What is believed of one replica's cache.
#[derive(Debug, Default)]
pub(super) struct PrefixCache {
    chunks: HashMap<u64, Chunk>,
    /// By when they were used last.
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    tokens: u64,
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    used: u64,
    tokens: u32,
    /// The worker has said that it read it.
    told: bool,
}

/// The longest known beginning of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub chunks: usize,
    /// The worker has said that it read it.
    pub told: bool,
    /// When its last chunk was used.
    pub used: u64,
}

impl PrefixCache {
    /// What is known of a prompt with these beginnings. A beginning is used whenever a longer one is, so it is forgotten
    /// after it, and the longest that is known is found by halving.
    pub(super) fn known(&self, beginnings: &[u64]) -> Known {
        let chunks = beginnings.partition_point(|hash| self.chunks.contains_key(hash));
        let last = chunks.checked_sub(1).and_then(|at| self.chunks.get(beginnings.get(at)?));
        last.map_or(Known::default(), |last| Known { chunks, told: last.told, used: last.used })
    }

    /// Chunks with these tokens are read, in order; `told`: the worker says so. What then does not fit is forgotten.
    pub(super) fn read(&mut self, chunks: impl DoubleEndedIterator<Item = (u64, u32)>, told: bool, budget: u64) {
        // The last is used first, so that it is forgotten before what it hangs on.
        for (hash, tokens) in chunks.rev() {
            let before = self.forget(hash);
            self.uses += 1;
            let told = told || before.is_some_and(|before| before.told);
            self.chunks.insert(hash, Chunk { used: self.uses, tokens, told });
            self.by_use.insert(self.uses, hash);
            self.tokens += u64::from(tokens);
        }
        while self.tokens > budget || self.chunks.len() > MOST {
            let Some(hash) = self.by_use.first_entry().map(|entry| *entry.get()) else { return };
            self.forget(hash);
        }
    }

    /// What was used no later than this is gone.
    pub(super) fn forget_unused_since(&mut self, used: u64) {
        while let Some(hash) = self.by_use.first_entry().filter(|entry| *entry.key() <= used).map(|entry| *entry.get())
        {
            self.forget(hash);
        }
    }

    fn forget(&mut self, hash: u64) -> Option<Chunk> {
        let chunk = self.chunks.remove(&hash)?;
        self.by_use.remove(&chunk.used);
        self.tokens -= u64::from(chunk.tokens);
        Some(chunk)
    }

    /// Beginnings that are remembered, and their tokens.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, u64) {
        assert_eq!(self.chunks.len(), self.by_use.len());
        (self.chunks.len(), self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cache: &mut PrefixCache, hashes: &[u64], budget: u64) {
        cache.read(hashes.iter().map(|hash| (*hash, 10)), true, budget);
    }

    #[test]
    fn the_longest_unused_goes_first_and_a_beginning_after_what_follows_it() {
        let mut cache = PrefixCache::default();
        read(&mut cache, &[1, 2, 3], 50);
        read(&mut cache, &[1, 4], 50);
        assert_eq!((cache.known(&[1, 2, 3]).chunks, cache.known(&[1, 4, 9]).chunks, cache.size()), (3, 2, (4, 40)));
        read(&mut cache, &[7, 8], 50);
        assert_eq!((cache.known(&[1, 2, 3]).chunks, cache.known(&[1, 4]).chunks, cache.size()), (2, 2, (5, 50)));
        // More than fits at all: its first chunks.
        read(&mut cache, &[20, 21, 22, 23, 24, 25, 26], 50);
        assert_eq!((cache.known(&[20, 21, 22, 23, 24, 25, 26]).chunks, cache.size()), (5, (5, 50)));
    }

    #[test]
    fn what_is_older_than_what_was_gone_is_forgotten() {
        let mut cache = PrefixCache::default();
        read(&mut cache, &[1, 2], 1000);
        read(&mut cache, &[3, 4], 1000);
        read(&mut cache, &[5, 6], 1000);
        cache.forget_unused_since(cache.known(&[3, 4]).used);
        assert_eq!([&[1, 2], &[3, 4], &[5, 6]].map(|chunks| cache.known(chunks).chunks), [0, 1, 2]);
    }

    #[test]
    fn what_is_only_expected_stays_told_once_it_was() {
        let mut cache = PrefixCache::default();
        cache.read([(1, 1), (2, 1)].into_iter(), false, 10);
        assert!(!cache.known(&[1, 2]).told);
        cache.read([(1, 1)].into_iter(), true, 10);
        cache.read([(1, 1), (2, 1)].into_iter(), false, 10);
        assert!(cache.known(&[1]).told && !cache.known(&[1, 2]).told);
    }

    #[test]
    fn no_more_is_remembered_than_a_bound() {
        let mut cache = PrefixCache::default();
        (0..3 * MOST as u64).for_each(|hash| read(&mut cache, &[hash], u64::MAX));
        assert_eq!(cache.size().0, MOST);
        assert_eq!((cache.known(&[3 * MOST as u64 - 1]).chunks, cache.known(&[0]).chunks), (1, 0));
    }
}
