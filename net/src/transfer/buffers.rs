//! Memory of chunks, used again.
//!
//! Given back to the system after each chunk it would have to be zeroed for the next, in pages of 2 MiB: with sixteen
//! transfers that was a quarter of all processor time.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Buffers that are kept, and bytes of one, at most.
const MOST: usize = 32;
const MOST_BYTES: usize = 1 << 20;

/// A node's free buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// One that comes back when nobody uses it any more.
struct Lent(Vec<u8>, Buffers);

impl Buffers {
    /// An empty one.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().pop().unwrap_or_default()
    }

    /// It is not used any more.
    pub(super) fn give(&self, mut buffer: Vec<u8>) {
        let mut free = self.0.lock();
        if free.len() < MOST && buffer.capacity() <= MOST_BYTES {
            buffer.clear();
            free.push(buffer);
        }
    }

    /// The bytes of one, which comes back after them.
    pub(super) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent(buffer, self.clone()))
    }

    /// Gives all back to the system.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.1.give(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lent_comes_back_empty_after_its_last_part() {
        let buffers = Buffers::default();
        let bytes = buffers.lend(vec![1; 1000]);
        let part = bytes.slice(10..20);
        drop(bytes);
        assert!(buffers.take().capacity() < 1000);
        drop(part);
        let again = buffers.take();
        assert!(again.capacity() >= 1000 && again.is_empty());
        (0..100).for_each(|_| buffers.give(Vec::with_capacity(10)));
        assert_eq!(buffers.0.lock().len(), MOST);
    }
}
