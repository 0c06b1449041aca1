//! The characters that a network tells apart, and how its columns become a text.

/// What nano-ocr reads.
const DEFAULT: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.- ";

/// The characters by their class; class 0 is none at all.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alphabet {
    characters: Vec<char>,
}

impl Default for Alphabet {
    fn default() -> Self {
        Self::new(DEFAULT)
    }
}

impl Alphabet {
    pub(super) fn new(characters: &str) -> Self {
        Self { characters: characters.chars().collect() }
    }

    /// One for each character, and one for none.
    pub(super) fn classes(&self) -> usize {
        self.characters.len() + 1
    }

    /// Connectionist temporal classification (Graves et al., 2006), decoded greedily: the best class of each column,
    /// repetitions once, without the class for none.
    pub(super) fn greedy(&self, scores: &[f32]) -> String {
        let mut text = String::new();
        let mut last = 0;
        for column in scores.chunks_exact(self.classes()) {
            let later = |best: usize, (class, score): (usize, &f32)| if *score > column[best] { class } else { best };
            let best = column.iter().enumerate().fold(0, later);
            if best != last {
                text.extend(best.checked_sub(1).and_then(|index| self.characters.get(index)));
            }
            last = best;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_count_once_unless_none_lies_between() {
        let alphabet = Alphabet::new("aé-");
        let scores = |best: &[usize]| -> Vec<f32> {
            best.iter().flat_map(|best| (0..4).map(move |class| if class == *best { 2.0 } else { -1.0 })).collect()
        };
        for (best, text) in [
            (&[][..], ""),
            (&[0, 0, 0], ""),
            (&[1, 1, 1], "a"),
            (&[1, 0, 1, 1], "aa"),
            (&[0, 1, 2, 2, 3, 0, 3, 1, 0], "aé--a"),
        ] {
            assert_eq!(alphabet.greedy(&scores(best)), text, "{best:?}");
        }
        assert_eq!(Alphabet::default().classes(), 66);
    }
}
