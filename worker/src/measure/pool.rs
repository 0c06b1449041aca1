//! The measurement's own threads, and what they use of the processor.

use std::cell::Cell;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::gate::Gate;

/// Work that takes longer than this without a look at the gate would be felt.
const LONGEST_SLICE: Duration = Duration::from_millis(5);
/// Slices whose median is taken, and the fewest that make one.
const ENOUGH: usize = 31;
const FEWEST: usize = 3;

/// One thread for each core that this process may use.
pub(super) struct Pool {
    threads: ThreadPool,
    disturbed: Cell<u32>,
}

/// One slice as it ran.
pub(super) struct Slice {
    pub(super) wall: Duration,
    /// Whether another program took a core meanwhile.
    disturbed: bool,
}

impl Pool {
    /// Each thread calls `prepare` before anything else.
    pub(super) fn new(prepare: fn()) -> Result<Pool, ThreadPoolBuildError> {
        let threads = ThreadPoolBuilder::new()
            .num_threads(available_parallelism().map_or(1, |cores| cores.get()))
            .thread_name(|index| format!("measure-{index}"))
            .start_handler(move |_| prepare())
            .build()?;
        Ok(Pool { threads, disturbed: Cell::new(0) })
    }

    pub(super) fn thread_count(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Slices that were left out of a rate because other programs took the processor.
    pub(super) fn disturbed_slices(&self) -> u32 {
        self.disturbed.get()
    }

    /// Processor time of all threads of the pool and of the calling thread.
    pub(super) fn cpu(&self) -> Duration {
        thread_cpu() + self.threads.broadcast(|_| thread_cpu()).into_iter().sum::<Duration>()
    }

    /// Time that threads of the pool were ready to run while others had the cores. Asking wakes every thread, so that
    /// one which still waits is counted once it has run.
    fn kept_waiting(&self) -> Duration {
        self.threads.broadcast(|_| thread_kept_waiting()).into_iter().sum()
    }

    /// How long one slice may take, so that a part's budget holds enough of them on any number of cores.
    pub(super) fn slice_limit(&self, budget: Duration) -> Duration {
        let share = budget.as_secs_f64() / (self.thread_count() * ENOUGH) as f64;
        LONGEST_SLICE.min(Duration::from_secs_f64(share))
    }

    /// Runs one slice; rayon work within it spreads over the pool.
    pub(super) fn run(&self, work: impl FnOnce() + Send) -> Slice {
        let waited = self.kept_waiting();
        let (wall, leader) = self.threads.install(|| {
            let (begun, used) = (Instant::now(), thread_cpu());
            work();
            (begun.elapsed(), thread_cpu().saturating_sub(used))
        });
        let waited = self.kept_waiting().saturating_sub(waited);
        // The thread that leads the slice works all the time, unless it is put aside or waits for one that was; where
        // the others' work was stolen meanwhile, only their waiting shows it.
        let led_throughout = leader.as_secs_f64() >= 0.75 * wall.as_secs_f64();
        let all_ran = waited.as_secs_f64() <= 0.1 * wall.as_secs_f64() * self.thread_count() as f64;
        Slice { wall, disturbed: !(led_throughout && all_ran) }
    }

    /// The median rate, in units a second, of undisturbed slices that each do `units` of work; `None` when processor
    /// time reached `until`, or the gate closed, before there were enough.
    pub(super) fn median_rate(
        &self,
        gate: &Gate<'_>,
        until: Duration,
        units: f64,
        mut work: impl FnMut() + Send,
    ) -> Option<f64> {
        let mut seconds = Vec::with_capacity(ENOUGH);
        while seconds.len() < ENOUGH && self.cpu() < until {
            if !gate.pass() {
                return None;
            }
            let slice = self.run(&mut work);
            if slice.disturbed {
                self.disturbed.set(self.disturbed.get() + 1);
            } else {
                seconds.push(slice.wall.as_secs_f64());
            }
        }
        if seconds.len() < FEWEST {
            return None;
        }
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).filter(|&&median| median > 0.0).map(|median| units / median)
    }
}

/// Processor time of the calling thread.
fn thread_cpu() -> Duration {
    // SAFETY: timespec is plain numbers, and the call writes it.
    let time = unsafe {
        let mut time = std::mem::zeroed::<libc::timespec>();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time);
        time
    };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Time the calling thread was ready to run but did not; 0 where the system does not say.
fn thread_kept_waiting() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(times.split_whitespace().nth(1).and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(0))
}
