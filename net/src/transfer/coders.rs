//! Threads that read, check and decode chunks.

use std::{cell::RefCell, sync::Arc, sync::LazyLock, thread::available_parallelism};

use tokio::sync::Semaphore;

use crate::codec::Coder;

/// As many threads as the machine has: each more would only have buffers of its own.
#[derive(Debug)]
pub(super) struct Coders(Arc<Semaphore>);

impl Default for Coders {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(Self::threads())))
    }
}

impl Coders {
    /// How many there are.
    pub(super) fn threads() -> usize {
        // The system reads several files to tell it.
        static THREADS: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, usize::from));
        *THREADS
    }

    /// Has one of them do this, when it is free; nothing if that panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        code: impl FnOnce(&mut Coder) -> T + Send + 'static,
    ) -> Option<T> {
        // The semaphore is never closed.
        let permit = self.0.clone().acquire_owned().await.ok()?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            // Room for coding is kept from one chunk to the next.
            thread_local!(static CODER: RefCell<Coder> = RefCell::default());
            CODER.with_borrow_mut(code)
        });
        done.await.ok()
    }
}
