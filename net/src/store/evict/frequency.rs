//! How often artifacts are used: counts that fade, and a blend of them that learns which fading foretells uses best.

use serde::{Deserialize, Serialize};

/// Uses, of any artifact, after which a use counts half: from nearly recency alone to nearly frequency alone.
const HALF_LIVES: [f64; KINDS] = [8.0, 64.0, 512.0, 4096.0];
const KINDS: usize = 4;
/// The kind that counts where one has to do.
const USUAL: usize = 2;
/// How far one use moves the weights.
const PACE: f64 = 0.2;
/// The least weight, so that each kind can come back.
const LEAST: f64 = 0.001;
/// The share that each kind leaves to what it has never seen: what is new says little of the kinds.
const NOVEL: f64 = 0.0001;

/// The uses of one artifact: for each half-life how many there were, as they counted at the last of them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counts([f64; KINDS]);

impl Counts {
    /// What they are after `since` uses of any artifact.
    pub(super) fn after(&self, since: u64) -> Self {
        let faded = |kind: usize| self.0[kind] * fading(kind, since);
        Self(std::array::from_fn(faded))
    }

    /// Counts a use.
    pub(super) fn add(&mut self) {
        self.0.iter_mut().for_each(|count| *count += 1.0);
    }

    /// The count of the usual half-life.
    pub(super) fn usual(&self) -> f64 {
        self.0[USUAL]
    }
}

/// How much each kind of count is believed. Each foretells the next use: an artifact's part of all counts is how likely
/// it is. The weights go, by steps of expectation maximisation, to those under which what was used was likeliest.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Blend([f64; KINDS]);

impl Default for Blend {
    fn default() -> Self {
        Self([1.0 / KINDS as f64; KINDS])
    }
}

impl Blend {
    /// How likely the next use, after `uses` so far, is one of the artifact with these counts of now.
    pub(super) fn likelihood(&self, counts: &Counts, uses: u64) -> f64 {
        (0..KINDS).map(|kind| self.0[kind] * share(counts, kind, uses)).sum()
    }

    /// Learns that the artifact with these counts, taken just before, is used after `uses` others.
    pub(super) fn learn(&mut self, counts: &Counts, uses: u64) {
        let likely: [f64; KINDS] = std::array::from_fn(|kind| self.0[kind] * (share(counts, kind, uses) + NOVEL));
        let all: f64 = likely.iter().sum();
        // Never above 1, but in a state that was changed outside: it must not get worse by what is no number.
        let part = |kind: usize| (likely[kind] / all).min(1.0);
        let moved: [f64; KINDS] =
            std::array::from_fn(|kind| ((1.0 - PACE) * self.0[kind] + PACE * part(kind)).max(LEAST));
        let sum: f64 = moved.iter().sum();
        *self = Self(moved.map(|weight| weight / sum));
    }
}

/// The part of an artifact's count in those of all artifacts, whose sum is a geometric series.
fn share(counts: &Counts, kind: usize, uses: u64) -> f64 {
    let all = (1.0 - fading(kind, uses)) / (1.0 - fading(kind, 1));
    counts.0[kind] / all.max(1.0)
}

fn fading(kind: usize, uses: u64) -> f64 {
    (-(uses as f64) / HALF_LIVES[kind]).exp2()
}
