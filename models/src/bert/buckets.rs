//! Which rows are computed together: rows of about the same length, in pieces that keep every thread busy.

/// Tokens after which a bucket closes: its activations stay in a core's cache, and its weights are read once for all.
pub(super) const MOST_TOKENS: usize = 256;
/// Fewer tokens than these are bound by reading the weights: splitting them further gains nothing.
const FEWEST_TOKENS: usize = 64;
/// Padding that a bucket may always have, in tokens; beyond it, a quarter of its real tokens.
const FREE_PADDING: usize = 64;

/// The rows by falling length, cut into buckets of at most `max_rows`.
///
/// The longest come first, so that the last to end is a short one. Where `pads`, a bucket also closes before the padding
/// that brings its rows to one length would pass a quarter of its tokens.
pub(super) fn buckets(lengths: &[usize], max_rows: usize, threads: usize, pads: bool) -> Vec<Vec<usize>> {
    let total: usize = lengths.iter().sum();
    let pieces = total.div_ceil(MOST_TOKENS).next_multiple_of(threads.max(1));
    let tokens_wanted = total.div_ceil(pieces.max(1)).clamp(FEWEST_TOKENS, MOST_TOKENS);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));

    let mut buckets: Vec<Vec<usize>> = Vec::new();
    let (mut longest, mut tokens) = (0, usize::MAX);
    for row in order {
        let length = lengths[row];
        let rows = buckets.last().map_or(0, Vec::len);
        let padding = || longest * (rows + 1) - tokens - length;
        let full = tokens >= tokens_wanted || rows == max_rows;
        let padded = || pads && padding() > FREE_PADDING + (tokens + length) / 4;
        match buckets.last_mut() {
            Some(open) if !full && !padded() => {
                open.push(row);
                tokens += length;
            }
            _ => {
                buckets.push(vec![row]);
                (longest, tokens) = (length, length);
            }
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_is_in_one_bucket_within_its_limits(
            lengths in prop::collection::vec(1usize..513, 0..80),
            max_rows in 1usize..40,
            threads in 1usize..9,
            pads: bool,
        ) {
            let cut = buckets(&lengths, max_rows, threads, pads);
            let mut rows: Vec<usize> = cut.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
            for bucket in &cut {
                let real: usize = bucket.iter().map(|&row| lengths[row]).sum();
                let longest = bucket.iter().map(|&row| lengths[row]).max().unwrap_or(0);
                prop_assert!(bucket.len() <= max_rows);
                prop_assert!(real - lengths[bucket[bucket.len() - 1]] < MOST_TOKENS);
                prop_assert!(!pads || longest * bucket.len() <= real + real / 4 + FREE_PADDING);
            }
        }
    }

    #[test]
    fn equal_rows_are_shared_out_evenly() {
        let rows = |cut: Vec<Vec<usize>>| cut.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(rows(buckets(&[32; 8], 32, 2, false)), [4, 4]);
        assert_eq!(rows(buckets(&[32; 32], 32, 2, false)), [8; 4]);
        assert_eq!(rows(buckets(&[2; 3], 32, 2, false)), [3]);
    }
}
