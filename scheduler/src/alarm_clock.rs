//! Wakes the core when a device will soon be idle. A thread of its own: the runtime's timers count whole milliseconds,
//! and a batch takes less than one on its way to a worker nearby.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use orion_proto::{Code, Error, Result};
use parking_lot::{Condvar, Mutex};

use crate::{core::Nanos, scheduler::Scheduler};

/// Later than any alarm.
const NEVER: Nanos = Nanos::MAX;

/// One alarm, which any thread may set and one waits for.
pub(crate) struct AlarmClock {
    /// The same as in the setting, to look at without its lock.
    rings_at: AtomicU64,
    setting: Mutex<Setting>,
    changed: Condvar,
}

struct Setting {
    rings_at: Nanos,
    stopped: bool,
}

/// Stops the clock's thread when it is dropped.
pub(crate) struct Running(Arc<AlarmClock>);

impl AlarmClock {
    pub(crate) fn new() -> Arc<Self> {
        let setting = Mutex::new(Setting { rings_at: NEVER, stopped: false });
        Arc::new(Self { rings_at: AtomicU64::new(NEVER), setting, changed: Condvar::new() })
    }

    /// Rings at this time of the scheduler, or before.
    pub(crate) fn set(&self, at: Nanos) {
        if at >= self.rings_at.load(Ordering::Relaxed) {
            return;
        }
        let mut setting = self.setting.lock();
        if at < setting.rings_at {
            setting.rings_at = at;
            self.rings_at.store(at, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    /// Waits until it rings; it is not set any more then. False once it was stopped.
    fn wait(&self, started: Instant) -> bool {
        let mut setting = self.setting.lock();
        while !setting.stopped {
            if setting.rings_at == NEVER {
                self.changed.wait(&mut setting);
                continue;
            }
            let due = started + Duration::from_nanos(setting.rings_at);
            if Instant::now() >= due {
                setting.rings_at = NEVER;
                self.rings_at.store(NEVER, Ordering::Relaxed);
                return true;
            }
            self.changed.wait_until(&mut setting, due);
        }
        false
    }

    /// Wakes the scheduler's core whenever it rings, until what is returned or the scheduler is dropped.
    ///
    /// # Errors
    /// INTERNAL when the system gives no thread.
    pub(crate) fn run(self: Arc<Self>, started: Instant, scheduler: Weak<Scheduler>) -> Result<Running> {
        let clock = self.clone();
        let ring = move || {
            while clock.wait(started) {
                let Some(scheduler) = scheduler.upgrade() else { return };
                scheduler.with_core(|core, now| core.wake(now));
            }
        };
        let failed = |error| Error::new(Code::Internal, format!("the thread of the alarm clock: {error}"));
        thread::Builder::new().name("orion-alarm".into()).spawn(ring).map_err(failed)?;
        Ok(Running(self))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.setting.lock().stopped = true;
        self.0.changed.notify_one();
    }
}
