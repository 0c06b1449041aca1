//! The measurement's own threads, and what they use of the processor.

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
}

/// One slice as it ran.
pub(super) struct Slice {
    pub(super) wall: Duration,
    /// Processor time of the thread that led it and that waited for the others.
    leader: Duration,
}

impl Slice {
    /// Whether the machine was ours: a leader that was put aside, or waited for a thread that was, has little
    /// processor time.
    fn undisturbed(&self) -> bool {
        self.leader.as_secs_f64() >= 0.75 * self.wall.as_secs_f64()
    }
}

impl Pool {
    /// Each thread calls `prepare` before anything else.
    pub(super) fn new(prepare: fn()) -> Result<Pool, ThreadPoolBuildError> {
        let threads = ThreadPoolBuilder::new()
            .num_threads(available_parallelism().map_or(1, |cores| cores.get()))
            .thread_name(|index| format!("measure-{index}"))
            .start_handler(move |_| prepare())
            .build()?;
        Ok(Pool { threads })
    }

    pub(super) fn thread_count(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Processor time of all threads of the pool and of the calling thread.
    pub(super) fn cpu(&self) -> Duration {
        thread_cpu() + self.threads.broadcast(|_| thread_cpu()).into_iter().sum::<Duration>()
    }

    /// How long one slice may take, so that a part's budget holds enough of them on any number of cores.
    pub(super) fn slice_limit(&self, budget: Duration) -> Duration {
        let share = budget.as_secs_f64() / (self.thread_count() * ENOUGH) as f64;
        LONGEST_SLICE.min(Duration::from_secs_f64(share))
    }

    /// Runs one slice; rayon work within it spreads over the pool.
    pub(super) fn run(&self, work: impl FnOnce() + Send) -> Slice {
        self.threads.install(|| {
            let (begun, used) = (Instant::now(), thread_cpu());
            work();
            Slice { wall: begun.elapsed(), leader: thread_cpu().saturating_sub(used) }
        })
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
            if slice.undisturbed() {
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
