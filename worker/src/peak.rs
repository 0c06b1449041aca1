//! The memory that a batch takes beside the weights, on a CPU: how far the process grows while it runs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Batches of the most rows that are measured: the least counts, since what others take only adds to it.
const TIMES: u32 = 3;

/// Models that are brought to memory or leave it beside the batches: what the process grows by then is not a batch's.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// A model is on its way while this lives.
pub(crate) struct Move(Arc<Moves>);

impl Moves {
    /// A model begins to come or to go.
    pub(crate) fn begin(self: &Arc<Self>) -> Move {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Move(self.clone())
    }

    /// How many there were, if none is under way.
    fn at_rest(&self) -> Option<usize> {
        let ended = self.ended.load(Ordering::SeqCst);
        (self.begun.load(Ordering::SeqCst) == ended).then_some(ended)
    }
}

impl Drop for Move {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// What one model's batches have taught.
#[derive(Default)]
pub(crate) struct PeakMeter {
    /// Rows of the largest batch that was measured.
    rows: usize,
    /// How often such a batch was.
    times: u32,
    /// The least that one took.
    bytes: u64,
    /// Bytes by which measured batches left the process larger: buffers that the next one uses again.
    retained_bytes: u64,
}

/// Of this process, bytes.
struct Resident {
    now: u64,
    peak: u64,
}

impl PeakMeter {
    /// Does the work of so many rows. Says what the largest batches take, if this was one of them and could be measured,
    /// else 0: fewer rows tell nothing new, and nothing is told by a batch beside which a model came or went, or by a
    /// system that does not say.
    pub(crate) fn measure<R>(&mut self, moves: &Moves, rows: usize, work: impl FnOnce() -> R) -> (R, u64) {
        if rows < self.rows || (rows == self.rows && self.times >= TIMES) {
            return (work(), 0);
        }
        let (Some(moved), Some(before)) = (moves.at_rest(), forget_peak()) else { return (work(), 0) };
        let done = work();
        let Some(after) = resident().filter(|_| moves.at_rest() == Some(moved)) else { return (done, 0) };
        let bytes = self.retained_bytes + after.peak.saturating_sub(before.now);
        self.retained_bytes += after.now.saturating_sub(before.now);
        (self.bytes, self.times) = if rows > self.rows { (bytes, 1) } else { (self.bytes.min(bytes), self.times + 1) };
        self.rows = rows;
        (done, self.bytes)
    }

    /// What of it the process does not hold between batches.
    pub(crate) fn room(&self) -> u64 {
        self.bytes.saturating_sub(self.retained_bytes)
    }

    /// What the largest batches take, as far as they were measured.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Sets the process's peak to what it holds now (proc(5), `/proc/pid/clear_refs`, since Linux 4.0).
fn forget_peak() -> Option<Resident> {
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    resident()
}

fn resident() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(Resident { now: kibibytes(&status, "VmRSS:")? << 10, peak: kibibytes(&status, "VmHWM:")? << 10 })
}

fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: &str = "ORION_TEST_ALONE";

    /// In a process of its own: other tests take and give back memory meanwhile, and mind what this one takes.
    #[test]
    fn only_the_largest_batches_are_measured_and_only_alone() {
        if std::env::var_os(ALONE).is_some() {
            return measured_alone();
        }
        let test = ["--exact", "peak::tests::only_the_largest_batches_are_measured_and_only_alone", "--nocapture"];
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        assert!(command.args(test).env(ALONE, "1").status().unwrap().success());
    }

    fn measured_alone() {
        if forget_peak().is_none() {
            return eprintln!("skipped: this system does not let a process forget its peak");
        }
        let take = |mebibytes: usize| move || drop(std::hint::black_box(vec![1u8; mebibytes << 20]));
        // A peak that must be forgotten.
        take(400)();
        let (mut meter, moves) = (PeakMeter::default(), Arc::new(Moves::default()));
        let mut measure = |rows: usize, mebibytes: usize| meter.measure(&moves, rows, take(mebibytes)).1 >> 20;
        assert!((60..80).contains(&measure(1, 64)));
        assert!((60..80).contains(&measure(1, 256)), "the least counts");
        let large = measure(2, 256);
        assert!((250..280).contains(&large), "{large}");
        assert_eq!(measure(1, 300), 0, "fewer rows");
        assert!((120..150).contains(&measure(2, 128)), "a later one knows better");
        assert!(measure(2, 300) > 0);
        assert_eq!(measure(2, 64), 0, "that is often enough");
        let mut beside = |begin: bool, end: bool| {
            let mut moved = (!begin).then(|| moves.begin());
            let work = || {
                if begin {
                    moved = Some(moves.begin());
                }
                if end {
                    moved = None;
                }
                take(64)();
            };
            meter.measure(&moves, 3, work).1
        };
        for (begin, end) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(beside(begin, end), 0, "a model moved: begins {begin}, ends {end}");
        }
        assert!(meter.measure(&moves, 3, take(64)).1 > 60 << 20, "a batch that nobody measured is not the largest");
    }

    #[test]
    fn the_kernel_s_lines_are_read() {
        let status = "Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t  120 kB\nVmRSS:\t   8 kB\n";
        assert_eq!((kibibytes(status, "VmHWM:"), kibibytes(status, "VmRSS:")), (Some(120), Some(8)));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }
}
