//! What a generation's tokens take, without the reading of prompts: its own comes before them, those of others between.

use super::Nanos;

/// The steps of one generation in which its replica read no prompt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DecodeTime {
    last: Option<Nanos>,
    took: Nanos,
    tokens: usize,
    /// Those beside which prompts were read too.
    all: usize,
}

impl DecodeTime {
    /// A step has come with so many tokens. `read`: when the replica last read a prompt, as far as that is known.
    pub(super) fn step(&mut self, now: Nanos, tokens: usize, read: Nanos) {
        self.all = self.all.saturating_add(tokens);
        if let Some(last) = self.last.replace(now).filter(|last| read <= *last) {
            self.took = self.took.saturating_add(now.saturating_sub(last));
            self.tokens = self.tokens.saturating_add(tokens);
        }
    }

    /// Seconds that all its tokens and one more, the last, take; none where no step was told from the reading of prompts.
    pub(super) fn whole(&self) -> Option<f64> {
        let tokens = self.all.saturating_add(1) as f64;
        (self.tokens > 0).then(|| self.took as f64 / 1e9 / self.tokens as f64 * tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_beside_which_prompts_are_read_count_for_nothing() {
        let mut time = DecodeTime::default();
        assert_eq!(time.whole(), None);
        time.step(5_000_000_000, 1, 0);
        assert_eq!(time.whole(), None, "its own prompt was before the first");
        time.step(5_010_000_000, 1, 5_000_000_000);
        time.step(7_000_000_000, 1, 6_000_000_000);
        time.step(7_010_000_000, 1, 6_900_000_000);
        assert!((time.whole().unwrap() - 0.05).abs() < 1e-9);
    }
}
