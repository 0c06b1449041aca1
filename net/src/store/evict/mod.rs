//! Which artifacts leave a node's store when its bytes are full.
//!
//! A model is fetched again at a cost in proportion to its bytes, so what keeping it is worth per byte is only how
//! likely it is used next: every policy orders artifacts by one number and takes from the low end. Bytes decide how
//! many leave, and none leaves that need not.
//!
//! `adaptive` blends counts of uses that fade at several paces, and remembers artifacts that left for a while, as
//! TinyLFU does: what comes back is known. It is not S3-FIFO, whose queues are too coarse for entries this few and
//! unequal: the tests compare the two.

mod frequency;
mod policy;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::frequency::{Blend, Counts};
pub use self::policy::{Policy, UnknownPolicy};

/// Artifacts that left and are remembered.
const REMEMBERED: usize = 256;

/// What is in a store and how it was used, and what leaves it. Its serialised form is the state that outlives a restart:
/// about 150 bytes for each artifact in the store and for each of the 256 that left last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Evictor {
    policy: Policy,
    /// Uses of all artifacts so far, the time that uses are ordered by: it does not jump.
    uses: u64,
    blend: Blend,
    artifacts: BTreeMap<String, Artifact>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Artifact {
    /// None once it has left.
    bytes: Option<u64>,
    /// The number of the use that it came with, and of the last one.
    came: u64,
    used: u64,
    /// When that was, in seconds of the clock.
    used_seconds: u64,
    counts: Counts,
}

/// Room that cannot be made: all that may leave is not enough.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for {needed} bytes in a quota of {quota}: {pinned} bytes are in use, {freeable} can be freed")]
pub struct NoRoom {
    /// Bytes that were to be free.
    pub needed: u64,
    /// Bytes that the store may hold.
    pub quota: u64,
    /// Bytes of artifacts in the store that are pinned.
    pub pinned: u64,
    /// Bytes of the others in the store.
    pub freeable: u64,
}

impl Evictor {
    /// An empty store's.
    pub fn new(policy: Policy) -> Self {
        Self { policy, uses: 0, blend: Blend::default(), artifacts: BTreeMap::new() }
    }

    /// Goes on with another policy. All of them look at the same records, so nothing is lost.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// What is in the store: key and bytes, in the order of keys.
    pub fn stored(&self) -> impl Iterator<Item = (&str, u64)> {
        self.artifacts.iter().filter_map(|(key, artifact)| Some((key.as_str(), artifact.bytes?)))
    }

    /// An artifact came into the store, or has other bytes now. It came because it was wanted: that counts as a use.
    pub fn admitted(&mut self, key: &str, bytes: u64, now_seconds: u64) {
        let came = self.uses.saturating_add(1);
        let new = Artifact { bytes: None, came, used: self.uses, used_seconds: now_seconds, counts: Counts::default() };
        let artifact = self.artifacts.entry(key.to_owned()).or_insert(new);
        if artifact.bytes.replace(bytes).is_none() {
            artifact.came = came;
        }
        self.used(key, now_seconds);
    }

    /// An artifact in the store was used; one that is not there is left as it is.
    pub fn used(&mut self, key: &str, now_seconds: u64) {
        let Some(artifact) = self.artifacts.get_mut(key).filter(|artifact| artifact.bytes.is_some()) else { return };
        artifact.counts = artifact.counts.after(self.uses.saturating_sub(artifact.used));
        self.blend.learn(&artifact.counts, self.uses);
        artifact.counts.add();
        self.uses = self.uses.saturating_add(1);
        artifact.used = self.uses;
        artifact.used_seconds = now_seconds;
    }

    /// An artifact left the store. It is remembered for a while, in case that it comes back.
    pub fn removed(&mut self, key: &str) {
        if let Some(artifact) = self.artifacts.get_mut(key) {
            artifact.bytes = None;
        }
        let gone = || self.artifacts.iter().filter(|(_, artifact)| artifact.bytes.is_none());
        if gone().count() > REMEMBERED
            && let Some(oldest) = gone().min_by_key(|(_, artifact)| artifact.used).map(|(key, _)| key.clone())
        {
            self.artifacts.remove(&oldest);
        }
    }

    /// What must leave so that `needed` bytes are free in a store of `quota` bytes, what is worth least first; each of
    /// them is needed. Nothing changes until it is [`Self::removed`].
    ///
    /// # Errors
    /// What is not pinned is not enough.
    pub fn victims(&self, quota: u64, needed: u64, pinned: &dyn Fn(&str) -> bool) -> Result<Vec<String>, NoRoom> {
        let (held, mut free): (Vec<_>, Vec<_>) = self.candidates().partition(|candidate| pinned(candidate.key));
        let sum = |part: &[Candidate<'_>]| part.iter().map(|candidate| u128::from(candidate.bytes)).sum::<u128>();
        let (held, freeable) = (sum(&held), sum(&free));
        let surplus = (held + freeable + u128::from(needed)).saturating_sub(quota.into());
        if surplus > freeable {
            let [pinned, freeable] = [held, freeable].map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
            return Err(NoRoom { needed, quota, pinned, freeable });
        }
        free.sort_by(|a, b| a.worth.total_cmp(&b.worth).then(a.used.cmp(&b.used)));
        Ok(fewest(&free, surplus).into_iter().map(str::to_owned).collect())
    }

    /// What leaves because its time is over, the oldest first, whether room is needed or not; only `ttl` has a time.
    pub fn expired(&self, now_seconds: u64, pinned: &dyn Fn(&str) -> bool) -> Vec<String> {
        let Policy::Ttl { seconds } = self.policy else { return Vec::new() };
        let over = |artifact: &Artifact| now_seconds.saturating_sub(artifact.used_seconds) >= seconds;
        let stored = self.artifacts.iter().filter(|(_, artifact)| artifact.bytes.is_some());
        let mut expired: Vec<_> = stored.filter(|(key, artifact)| over(artifact) && !pinned(key)).collect();
        expired.sort_by_key(|(_, artifact)| artifact.used);
        expired.into_iter().map(|(key, _)| key.clone()).collect()
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.artifacts.iter().filter_map(|(key, artifact)| {
            let counts = artifact.counts.after(self.uses.saturating_sub(artifact.used));
            let worth = match self.policy {
                Policy::Lru | Policy::Ttl { .. } => artifact.used as f64,
                Policy::Fifo => artifact.came as f64,
                Policy::Lfu => counts.usual(),
                Policy::Adaptive => self.blend.likelihood(&counts, self.uses),
            };
            Some(Candidate { key, bytes: artifact.bytes?, worth, used: artifact.used })
        })
    }
}

/// What may leave; of two that are worth the same, the one that was used longer ago does.
struct Candidate<'a> {
    key: &'a str,
    bytes: u64,
    worth: f64,
    used: u64,
}

/// The keys of the first candidates that have so many bytes together, but for those that the dearer ones make needless.
fn fewest<'a>(order: &[Candidate<'a>], bytes: u128) -> Vec<&'a str> {
    let mut sum = 0;
    let enough = order.iter().take_while(|candidate| {
        let short = sum < bytes;
        sum += if short { u128::from(candidate.bytes) } else { 0 };
        short
    });
    let mut chosen: Vec<_> = enough.collect();
    // The dearest are spared first.
    for place in (0..chosen.len()).rev() {
        let without = sum - u128::from(chosen[place].bytes);
        if without >= bytes {
            sum = without;
            chosen.remove(place);
        }
    }
    chosen.into_iter().map(|candidate| candidate.key).collect()
}
