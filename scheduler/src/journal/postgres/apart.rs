//! A runtime of the journal's own: what waits for the server may outlive the process's.

use std::{io, sync::Arc};

use orion_proto::Result;
use tokio::runtime::{Builder, Handle, Runtime};

use super::unreachable;

/// Ends, without waiting, when nobody needs it any more.
#[derive(Clone, Debug)]
pub(super) struct Apart {
    handle: Handle,
    _own: Arc<Own>,
}

#[derive(Debug)]
struct Own(Option<Runtime>);

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Apart {
    pub(super) fn new() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("orion-postgres").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), _own: Arc::new(Own(Some(runtime))) })
    }

    /// Where it is done.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Does it there, for who waits elsewhere.
    ///
    /// # Errors
    /// UNAVAILABLE where it was not done.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        asked: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.handle.spawn(asked).await.map_err(unreachable)?
    }
}
