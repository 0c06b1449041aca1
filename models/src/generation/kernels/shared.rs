//! A slice that several threads write, each its own part.

use std::marker::PhantomData;

/// Values that the threads of a team share out among themselves.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a, T = f32> {
    start: *mut T,
    length: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: what is read and written through it is for its user to keep apart; each method says so.
unsafe impl<T: Send + Sync> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<'_, T> {}

impl<'a, T: Copy> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), slice: PhantomData }
    }

    /// A part to read.
    ///
    /// # Safety
    /// No thread writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn read(self, at: usize, length: usize) -> &'a [T] {
        assert!(at.checked_add(length).is_some_and(|end| end <= self.length), "a part lies inside its slice");
        // SAFETY: inside the slice by the assertion, unwritten by the caller's word.
        unsafe { std::slice::from_raw_parts(self.start.add(at), length) }
    }

    /// A part to write.
    ///
    /// # Safety
    /// No other thread reads or writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn write(self, at: usize, length: usize) -> &'a mut [T] {
        assert!(at.checked_add(length).is_some_and(|end| end <= self.length), "a part lies inside its slice");
        // SAFETY: inside the slice by the assertion, unshared by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), length) }
    }
}
