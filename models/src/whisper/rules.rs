//! Which token may follow: no symbols, and time stamps in pairs that do not run backwards.

use std::ops::Range;

use super::vocabulary::Vocabulary;
use crate::kernels::log_sum_exp;

/// The latest first time stamp, in tokens of 0.02 s.
const MOST_FIRST_TIMESTAMP: usize = 50;

/// Sets the logits of what may not follow to −∞. `written` is what was sampled in this window so far.
///
/// A transcript is a time stamp, text, a time stamp, then the next pair's or the end; a time stamp is taken wherever all
/// of them together are likelier than any one token of text.
pub(super) fn apply(vocabulary: &Vocabulary, written: &[u32], logits: &mut [f32]) {
    let (text, timestamps) = (vocabulary.end as usize, vocabulary.first_timestamp as usize);
    for &token in &vocabulary.suppressed {
        logits[token as usize] = f32::NEG_INFINITY;
    }
    let is_timestamp = |token: u32| token as usize >= timestamps;
    match *written {
        [] => {
            forbid(logits, 0..timestamps);
            forbid(logits, timestamps + MOST_FIRST_TIMESTAMP + 1..usize::MAX);
        }
        [.., last] if !is_timestamp(last) => forbid(logits, timestamps..latest(vocabulary, written) + 1),
        // A segment's end: the start of the next one, which may be the same time, or the end of all.
        [.., before, last] if !is_timestamp(before) => {
            forbid(logits, 0..text);
            forbid(logits, timestamps..last as usize);
        }
        // A segment's start: its text.
        _ => forbid(logits, timestamps..usize::MAX),
    }
    let (others, stamps) = logits.split_at_mut(timestamps);
    let likeliest = others.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if log_sum_exp(stamps) > likeliest {
        others.fill(f32::NEG_INFINITY);
    }
}

/// The last time stamp's token.
fn latest(vocabulary: &Vocabulary, written: &[u32]) -> usize {
    let timestamp = written.iter().rev().find(|token| **token >= vocabulary.first_timestamp);
    timestamp.map_or(vocabulary.first_timestamp as usize, |token| *token as usize)
}

fn forbid(logits: &mut [f32], tokens: Range<usize>) {
    let end = tokens.end.min(logits.len());
    logits[tokens.start.min(end)..end].fill(f32::NEG_INFINITY);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whisper::tiny_whisper::{FIRST_TIMESTAMP, VOCABULARY, vocabulary};

    /// The tokens that may follow, all being equally likely but for time stamps, which are together less likely than any.
    fn may_follow(written: &[u32]) -> Vec<u32> {
        let mut logits = vec![0.0; VOCABULARY];
        logits[FIRST_TIMESTAMP as usize..].fill(-20.0);
        apply(&vocabulary(), written, &mut logits);
        (0..).zip(logits).filter(|(_, logit)| *logit > f32::NEG_INFINITY).map(|(token, _)| token).collect()
    }

    #[test]
    fn time_stamps_come_in_pairs_and_do_not_run_backwards() {
        let (vocabulary, first) = (vocabulary(), FIRST_TIMESTAMP);
        let last = VOCABULARY as u32 - 1;
        let text: Vec<u32> = (0..vocabulary.end).filter(|token| !vocabulary.suppressed.contains(token)).collect();
        let words = [text.clone(), vec![vocabulary.end]].concat();
        let stamps = |from: u32| (from..=last).collect::<Vec<u32>>();
        assert_eq!(may_follow(&[]), (first..=first + 50).collect::<Vec<u32>>());
        assert_eq!(may_follow(&[first + 3]), words);
        assert_eq!(may_follow(&[first + 3, 40]), [words.clone(), stamps(first + 4)].concat());
        assert_eq!(may_follow(&[first + 3, 40, first + 9]), [vec![vocabulary.end], stamps(first + 9)].concat());
        assert_eq!(may_follow(&[first + 3, 40, first + 9, first + 9]), words);
        assert_eq!(may_follow(&[first, 40, first + 9, first + 12, 41]), [words, stamps(first + 13)].concat());
        assert_eq!(may_follow(&[first, 40, last]), [vocabulary.end, last]);
    }

    #[test]
    fn a_time_stamp_is_taken_where_all_together_are_likelier_than_any_word() {
        let (vocabulary, first) = (vocabulary(), FIRST_TIMESTAMP as usize);
        for (likely, only_stamps) in [(-7.0, true), (-8.0, false)] {
            let mut logits = vec![f32::NEG_INFINITY; VOCABULARY];
            logits[70] = 0.0;
            // 1500 of them: e^7.3 times one.
            logits[first..].fill(likely);
            apply(&vocabulary, &[FIRST_TIMESTAMP, 70], &mut logits);
            assert_eq!(logits[70] == f32::NEG_INFINITY, only_stamps, "{likely}");
        }
    }
}
