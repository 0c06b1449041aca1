//! A slice that several threads write, each its own part.

use std::marker::PhantomData;

/// Values that the threads of a team share out among themselves.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    start: *mut f32,
    length: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: what is read and written through it is for its user to keep apart; each method says so.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), slice: PhantomData }
    }

    /// A part to read.
    ///
    /// # Safety
    /// No thread writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn read(self, at: usize, length: usize) -> &'a [f32] {
        assert!(at.checked_add(length).is_some_and(|end| end <= self.length), "a part lies inside its slice");
        // SAFETY: inside the slice by the assertion, unwritten by the caller's word.
        unsafe { std::slice::from_raw_parts(self.start.add(at), length) }
    }

    /// A part to write.
    ///
    /// # Safety
    /// No other thread reads or writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn write(self, at: usize, length: usize) -> &'a mut [f32] {
        assert!(at.checked_add(length).is_some_and(|end| end <= self.length), "a part lies inside its slice");
        // SAFETY: inside the slice by the assertion, unshared by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), length) }
    }
}
