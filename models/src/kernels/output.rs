//! A slice that several threads write, each its own part.

/// An output whose tiles several threads write, each its own.
pub(super) struct Output<T = f32> {
    start: *mut T,
    length: usize,
}

impl<T> Clone for Output<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Output<T> {}

// SAFETY: it is a slice cut into pieces that do not overlap; `Output::piece` says so.
unsafe impl<T: Send> Send for Output<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Output<T> {}

impl<T> Output<T> {
    pub(super) fn new(slice: &mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len() }
    }

    /// A piece of the slice.
    ///
    /// # Safety
    /// The slice is alive and no other thread reads or writes this piece meanwhile.
    #[inline(always)]
    pub(super) unsafe fn piece<'a>(self, at: usize, length: usize) -> &'a mut [T] {
        assert!(at + length <= self.length, "a piece lies inside its slice");
        // SAFETY: inside the slice by the assertion, unshared by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), length) }
    }
}
