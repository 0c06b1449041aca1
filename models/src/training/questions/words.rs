//! Which words a question has.

use std::collections::BTreeSet;

use orion_proto::Result;

use crate::unservable;

/// Words that are told apart, and bytes of each.
pub(super) const MOST_WORDS: usize = 1 << 14;
const MOST_BYTES: usize = 256;

/// The words of a text: runs of letters and digits, small.
pub(super) fn of(text: &str) -> impl Iterator<Item = String> {
    text.split(|of: char| !of.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// The words that are known, sorted.
#[derive(Clone, Debug)]
pub(super) struct Words(Vec<String>);

impl Words {
    pub(super) fn new(words: BTreeSet<String>) -> Result<Self> {
        Self::check(&words)?;
        if words.is_empty() {
            return Err(unservable("the questions have no words"));
        }
        Ok(Self(words.into_iter().collect()))
    }

    /// Refuses too many.
    pub(super) fn check(words: &BTreeSet<String>) -> Result<()> {
        // The longest words of a language are far below what is left of each.
        if words.len() > MOST_WORDS || words.iter().any(|word| word.len() > MOST_BYTES) {
            let text =
                format!("the questions have more than {MOST_WORDS} words, or one of more than {MOST_BYTES} bytes");
            return Err(unservable(text));
        }
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn all(&self) -> &[String] {
        &self.0
    }

    /// Of each word, whether a text has it.
    pub(super) fn values(&self, text: &str) -> Vec<f32> {
        let mut values = vec![0.0; self.0.len()];
        for word in of(text) {
            if let Ok(at) = self.0.binary_search(&word) {
                values[at] = 1.0;
            }
        }
        values
    }
}
