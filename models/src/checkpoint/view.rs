//! A tensor as it lies in a mapped file, whose every element was found to be inside it.

use std::ops::Range;

use orion_proto::{Error, Result};

use super::Element;

/// More dimensions than any model has.
const MOST_DIMENSIONS: usize = 16;

/// One dimension as it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    /// How many there are.
    pub(crate) size: usize,
    /// From one to the next, elements.
    pub(crate) stride: usize,
}

/// A tensor's place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) element: Element,
    /// Its sizes, outermost first.
    pub(crate) shape: Vec<usize>,
    /// How its elements are walked in row-major order; as many as `shape` says, perhaps cut into more axes.
    axes: Vec<Axis>,
    /// Byte of the file where its first element begins.
    start: usize,
}

/// A part of a file that holds so many elements of a type.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    pub(crate) element: Element,
    pub(crate) bytes: Range<usize>,
}

impl View {
    /// A tensor in a storage, from element `offset` on.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, saying what lies outside the storage; the caller names the tensor.
    pub(crate) fn new(storage: &Storage, offset: usize, shape: &[usize], axes: Vec<Axis>) -> Result<Self> {
        if shape.len() > MOST_DIMENSIONS {
            return Err(Error::invalid(format!("it has {} dimensions, at most {MOST_DIMENSIONS}", shape.len())));
        }
        let size = storage.element.size();
        let held = storage.bytes.len() / size;
        let count = checked_count(shape.iter().copied());
        // What repeats its elements could be of any size; no checkpoint needs it.
        let count = count.filter(|&n| n <= held).ok_or_else(|| {
            Error::invalid(format!("shape {shape:?} has more elements than the {held} of its storage"))
        })?;
        if checked_count(axes.iter().map(|axis| axis.size)) != Some(count) {
            return Err(Error::invalid(format!("shape {shape:?} does not have the elements of its strides")));
        }
        let last = axes
            .iter()
            .try_fold(offset, |last, axis| last.checked_add(axis.size.saturating_sub(1).checked_mul(axis.stride)?));
        if count > 0 && last.is_none_or(|last| last >= held) {
            return Err(Error::invalid(format!(
                "offset {offset} and its strides reach beyond the {held} elements of its storage"
            )));
        }
        // Without elements the offset may be anything.
        let start = if count == 0 { storage.bytes.start } else { storage.bytes.start + offset * size };
        Ok(Self { element: storage.element, shape: shape.to_vec(), axes, start })
    }

    /// A tensor whose elements lie one after the other, from element `offset` on.
    ///
    /// # Errors
    /// As [`View::new`].
    pub(crate) fn contiguous(storage: &Storage, offset: usize, shape: &[usize]) -> Result<Self> {
        let count = checked_count(shape.iter().copied()).unwrap_or(usize::MAX);
        Self::new(storage, offset, shape, vec![Axis { size: count, stride: 1 }])
    }

    /// Its elements.
    pub(crate) fn count(&self) -> usize {
        self.axes.iter().map(|axis| axis.size).product()
    }

    /// The parts of the file that hold its elements, in row-major order; none is empty.
    pub(crate) fn runs(&self) -> Runs<'_> {
        let size = self.element.size();
        // The innermost axes that lie one after the other are one run.
        let (mut outer, mut run) = (self.axes.len(), 1);
        while let Some(axis) = outer.checked_sub(1).and_then(|inner| self.axes.get(inner)) {
            if axis.size != 1 && axis.stride != run {
                break;
            }
            run *= axis.size;
            outer -= 1;
        }
        let left = self.count().checked_div(run).unwrap_or(0);
        Runs { axes: &self.axes[..outer], index: vec![0; outer], at: self.start, run: run * size, size, left }
    }
}

/// See [`View::runs`].
pub(crate) struct Runs<'v> {
    axes: &'v [Axis],
    index: Vec<usize>,
    at: usize,
    run: usize,
    size: usize,
    left: usize,
}

impl Iterator for Runs<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        self.left = self.left.checked_sub(1)?;
        let found = self.at..self.at + self.run;
        // As an odometer: the innermost axis turns, and carries.
        for (axis, index) in self.axes.iter().zip(&mut self.index).rev() {
            *index += 1;
            self.at += axis.stride * self.size;
            if *index < axis.size {
                break;
            }
            self.at -= axis.stride * self.size * axis.size;
            *index = 0;
        }
        Some(found)
    }
}

/// A product that a hostile file cannot overflow.
fn checked_count(mut sizes: impl Iterator<Item = usize>) -> Option<usize> {
    sizes.try_fold(1, usize::checked_mul)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn storage(elements: usize) -> Storage {
        Storage { element: Element::F16, bytes: 10..10 + 2 * elements }
    }

    fn axes(pairs: &[(usize, usize)]) -> Vec<Axis> {
        pairs.iter().map(|&(size, stride)| Axis { size, stride }).collect()
    }

    #[test]
    fn runs_follow_the_strides_and_join_what_is_contiguous() {
        let starts = |shape: &[usize], pairs: &[(usize, usize)], offset| {
            let view = View::new(&storage(24), offset, shape, axes(pairs)).unwrap();
            view.runs().map(|run| ((run.start - 10) / 2, run.len() / 2)).collect::<Vec<_>>()
        };
        assert_eq!(starts(&[2, 3, 4], &[(2, 12), (3, 4), (4, 1)], 0), [(0, 24)]);
        assert_eq!(starts(&[2, 4], &[(2, 12), (4, 1)], 1), [(1, 4), (13, 4)]);
        assert_eq!(starts(&[3, 2], &[(3, 1), (2, 3)], 0), [(0, 1), (3, 1), (1, 1), (4, 1), (2, 1), (5, 1)]);
        assert_eq!(starts(&[1, 2, 1], &[(1, 99), (2, 1), (1, 77)], 22), [(22, 2)]);
        assert_eq!(starts(&[4, 2], &[(2, 2), (2, 1), (2, 4)], 0).len(), 8);
        assert_eq!(starts(&[], &[], 5), [(5, 1)]);
        assert_eq!(starts(&[2, 0], &[(2, 5), (0, 1)], 999), []);
    }

    #[test]
    fn what_reaches_outside_is_refused() {
        for (shape, pairs, offset, words) in [
            (vec![5, 5], vec![(5, 5), (5, 1)], 0, "more elements than the 24"),
            (vec![1 << 40, 1 << 40], vec![(1 << 40, 0), (1 << 40, 0)], 0, "more elements"),
            (vec![24], vec![(24, 1)], 1, "beyond the 24"),
            (vec![2], vec![(2, 24)], 0, "beyond the 24"),
            (vec![2], vec![(2, usize::MAX)], 1, "beyond the 24"),
            (vec![4], vec![(2, 1)], 0, "does not have the elements"),
            (vec![1; 17], vec![(1, 1); 17], 0, "17 dimensions"),
        ] {
            let error = View::new(&storage(24), offset, &shape, axes(&pairs)).unwrap_err();
            assert!(error.message.contains(words), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_run_of_an_accepted_view_is_inside_and_they_hold_its_elements(
            pairs in prop::collection::vec((0usize..6, 0usize..9), 0..4), offset in 0usize..30, held in 0usize..40,
        ) {
            let shape: Vec<usize> = pairs.iter().map(|pair| pair.0).collect();
            if let Ok(view) = View::new(&storage(held), offset, &shape, axes(&pairs)) {
                let runs: Vec<_> = view.runs().collect();
                prop_assert!(runs.iter().all(|run| run.start >= 10 && run.end <= 10 + 2 * held && !run.is_empty()));
                prop_assert_eq!(runs.iter().map(Range::len).sum::<usize>(), 2 * view.count());
                // The same walk, index by index.
                let mut flat = Vec::new();
                for mut n in 0..view.count() {
                    let mut at = offset;
                    for &(size, stride) in pairs.iter().rev() {
                        at += n % size * stride;
                        n /= size;
                    }
                    flat.push(10 + 2 * at);
                }
                prop_assert_eq!(runs.into_iter().flat_map(|run| run.step_by(2)).collect::<Vec<_>>(), flat);
            }
        }
    }
}
