//! Work that waits for nobody but its own turn: it is done when nothing else is there, and now and then when something is.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    time::{Duration, Instant},
};

use super::on_pool;

/// A piece of such work; one that takes milliseconds, since a request may have to wait for its end.
pub(crate) type SpareWork = Box<dyn FnOnce() + Send>;

/// Time of others for each time of spare work that waits: a tenth of the device is its own.
const OTHERS: u32 = 9;

pub(super) struct Spare {
    queue: mpsc::Receiver<SpareWork>,
    waiting: VecDeque<SpareWork>,
    /// What the last piece took.
    last: Duration,
    /// How long others had the device while some waited.
    waited: Duration,
}

impl Spare {
    pub(super) fn new(queue: mpsc::Receiver<SpareWork>) -> Self {
        Self { queue, waiting: VecDeque::new(), last: Duration::ZERO, waited: Duration::ZERO }
    }

    /// Takes in what has come.
    pub(super) fn look(&mut self) {
        self.waiting.extend(self.queue.try_iter());
    }

    pub(super) fn is_there(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Others had the device for so long.
    pub(super) fn waited(&mut self, time: Duration) {
        self.look();
        if self.is_there() {
            self.waited += time;
        }
    }

    /// Whether some has waited for so long that it goes first.
    pub(super) fn is_owed(&self) -> bool {
        self.is_there() && self.waited > Duration::ZERO && self.waited >= self.last * OTHERS
    }

    /// Does the next piece.
    pub(super) fn run(&mut self, pool: Option<&rayon::ThreadPool>) {
        let Some(work) = self.waiting.pop_front() else { return };
        let started = Instant::now();
        // Whoever waits for a piece that panics is told by what it drops.
        if catch_unwind(AssertUnwindSafe(|| on_pool(pool, work))).is_err() {
            tracing::error!("spare_work_panicked");
        }
        (self.last, self.waited) = (started.elapsed(), Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_others_and_not_for_ever() {
        let (give, queue) = mpsc::channel::<SpareWork>();
        let mut spare = Spare::new(queue);
        spare.waited(Duration::from_secs(9));
        let (done, seen) = mpsc::channel();
        for number in 0..2 {
            let done = done.clone();
            give.send(Box::new(move || done.send(number).unwrap())).unwrap();
        }
        spare.look();
        // What others did before it came does not count.
        assert!(spare.is_there() && !spare.is_owed());
        spare.run(None);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [0]);
        spare.last = Duration::from_millis(10);
        spare.waited(Duration::from_millis(89));
        assert!(!spare.is_owed());
        spare.waited(Duration::from_millis(1));
        assert!(spare.is_owed());
        spare.run(None);
        assert!(!spare.is_there() && spare.waited.is_zero());
    }
}
