//! The tree by which parts are added: of n parts the first 2^k (the largest power of two below n) make one side, the rest the
//! other. Adding parts in their order, two sums that are sides of one node become that node's at once, so that few are held.

use std::ops::Range;

use half::bf16;

/// Sums of some parts, as few as the tree allows.
#[derive(Clone, Debug, Default)]
pub struct Partial {
    /// Parts of all.
    count: usize,
    /// So many numbers of each sum, from the first, are rounded to bf16.
    rounded: usize,
    /// In their order, next to each other or not.
    sums: Vec<(Range<usize>, Vec<f32>)>,
}

impl Partial {
    /// No sums yet, of so many parts.
    pub fn new(count: usize) -> Self {
        Self { count, ..Self::default() }
    }

    /// The same, where so many numbers of each sum, from the first, travel as bf16: every sum is rounded to it, so that it does
    /// not matter which of them have travelled.
    pub fn rounding(count: usize, rounded: usize) -> Self {
        Self { count, rounded, ..Self::default() }
    }

    /// How many numbers of each sum are rounded.
    pub fn rounded(&self) -> usize {
        self.rounded
    }

    fn round(&self, values: &mut [f32]) {
        values.iter_mut().take(self.rounded).for_each(|value| *value = bf16::from_f32(*value).to_f32());
    }

    /// Adds the sum of a subtree that follows all that were added.
    pub fn add(&mut self, parts: Range<usize>, values: Vec<f32>) {
        let (mut parts, mut values) = (parts, values);
        self.round(&mut values);
        while let Some((left, mut sum)) = self.sums.pop_if(|(left, _)| is_node(left, &parts, self.count)) {
            sum.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value);
            self.round(&mut sum);
            (parts, values) = (left.start..parts.end, sum);
        }
        self.sums.push((parts, values));
    }

    /// The sums, in their order.
    pub fn sums(&self) -> &[(Range<usize>, Vec<f32>)] {
        &self.sums
    }

    /// The sum of all parts, where all were added.
    pub fn whole(mut self) -> Option<Vec<f32>> {
        let all = 0..self.count;
        self.sums.pop_if(|(parts, _)| *parts == all).filter(|_| self.sums.is_empty()).map(|(_, sum)| sum)
    }

    /// The subtrees of which the worker that computes these parts holds the sums.
    pub fn subtrees(parts: Range<usize>, count: usize) -> Vec<Range<usize>> {
        let mut partial = Self::new(count);
        parts.for_each(|part| partial.add(part..part + 1, Vec::new()));
        partial.sums.into_iter().map(|(parts, _)| parts).collect()
    }
}

/// Whether two subtrees are the sides of one node. The left side is a whole power of two, and in its place; the right side is as
/// long, or ends with the last part of all.
fn is_node(left: &Range<usize>, right: &Range<usize>, count: usize) -> bool {
    let size = left.len();
    let in_place = left.end == right.start && size.is_power_of_two() && left.start.is_multiple_of(2 * size);
    in_place && (right.len() == size || (right.end == count && right.len() < size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tree as its definition says.
    fn by_definition(parts: &[f32], round: &impl Fn(f32) -> f32) -> f32 {
        match parts {
            [one] => round(*one),
            _ => {
                let (left, right) = parts.split_at(parts.len().next_power_of_two() / 2);
                round(by_definition(left, round) + by_definition(right, round))
            }
        }
    }

    proptest! {
        #[test]
        fn whoever_computes_what_the_sum_is_the_same_bits(
            parts in prop::collection::vec(-1e3f32..1e3, 1..80),
            cuts in prop::collection::vec(0usize..80, 0..6),
        ) {
            let count = parts.len();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (count + 1)).chain([0, count]).collect();
            cuts.sort_unstable();
            // The first number is rounded, the second is not.
            let mut all = Partial::rounding(count, 1);
            for cut in cuts.windows(2) {
                let mut own = Partial::rounding(count, 1);
                (cut[0]..cut[1]).for_each(|part| own.add(part..part + 1, vec![parts[part]; 2]));
                let subtrees = Partial::subtrees(cut[0]..cut[1], count);
                prop_assert!(own.sums().iter().map(|(parts, _)| parts).eq(&subtrees));
                prop_assert!(subtrees.len() <= 2 * count.ilog2() as usize + 1, "{subtrees:?} of {count}");
                own.sums.into_iter().for_each(|(parts, sum)| all.add(parts, sum));
            }
            let whole = all.whole().unwrap();
            let rounded = by_definition(&parts, &|value| bf16::from_f32(value).to_f32());
            prop_assert_eq!(whole[0].to_bits(), rounded.to_bits());
            prop_assert_eq!(whole[1].to_bits(), by_definition(&parts, &|value| value).to_bits());
        }
    }

    #[test]
    fn what_is_missing_makes_no_sum() {
        let mut partial = Partial::new(4);
        partial.add(0..2, vec![1.0]);
        partial.add(3..4, vec![1.0]);
        assert_eq!((partial.sums().len(), partial.whole()), (2, None));
    }
}
