//! Memory for the large inputs of attempts, of which one model has half at most: one that does not answer holds nobody up.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// KiB of all, and of one model.
const ALL: usize = 256 << 10;
const OF_ONE: usize = ALL / 2;

/// What is left of it.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    all: Arc<Semaphore>,
    of_models: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

impl Default for Inputs {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL)), of_models: Arc::default() }
    }
}

impl Inputs {
    /// Waits until there is room for so many bytes of a job of this model.
    pub(super) async fn room(&self, model: &str, bytes: usize) -> Option<[OwnedSemaphorePermit; 2]> {
        let kib = u32::try_from(bytes.div_ceil(1024).clamp(1, OF_ONE)).ok()?;
        let own = self.of_model(model).acquire_many_owned(kib).await.ok()?;
        Some([own, self.all.clone().acquire_many_owned(kib).await.ok()?])
    }

    fn of_model(&self, model: &str) -> Arc<Semaphore> {
        let mut of_models = self.of_models.lock();
        if let Some(own) = of_models.get(model).and_then(Weak::upgrade) {
            return own;
        }
        of_models.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(OF_ONE));
        of_models.insert(model.to_owned(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_model_leaves_half_to_the_others() {
        let inputs = Inputs::default();
        let now = |model| inputs.room(model, 64 << 20).now_or_never().flatten();
        let held = [now("a"), now("a")];
        assert!(held.iter().all(Option::is_some) && now("a").is_none());
        let others = [now("b"), now("c")];
        assert!(others.iter().all(Option::is_some) && now("d").is_none());
        drop(held);
        assert!(now("a").is_some());
        drop(others);
        assert!(now("d").is_some() && inputs.of_models.lock().len() == 1);
    }
}
