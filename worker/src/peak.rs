//! The memory that a batch takes beside the weights, on a CPU: how far the process grows while it runs.

/// What one model's batches have taught.
#[derive(Default)]
pub(crate) struct PeakMeter {
    /// Rows of the largest batch that was measured.
    rows: usize,
    /// Bytes by which measured batches left the process larger: buffers that the next one uses again.
    retained_bytes: u64,
}

/// Of this process, bytes.
struct Resident {
    now: u64,
    peak: u64,
}

impl PeakMeter {
    /// Does the work of so many rows; the bytes that it took if no batch of this model had more rows before, else 0. Also
    /// 0 where the system does not say. What other threads allocate meanwhile is counted in.
    pub(crate) fn measure<R>(&mut self, rows: usize, work: impl FnOnce() -> R) -> (R, u64) {
        if rows <= self.rows {
            return (work(), 0);
        }
        self.rows = rows;
        let Some(before) = forget_peak() else { return (work(), 0) };
        let done = work();
        let Some(after) = resident() else { return (done, 0) };
        let peak = self.retained_bytes + after.peak.saturating_sub(before.now);
        self.retained_bytes += after.now.saturating_sub(before.now);
        (done, peak)
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
    fn only_the_largest_batches_are_measured() {
        if std::env::var_os(ALONE).is_some() {
            return measured_alone();
        }
        let test = ["--exact", "peak::tests::only_the_largest_batches_are_measured", "--nocapture"];
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
        let mut meter = PeakMeter::default();
        let [small, again, large] = [(1, 64), (1, 256), (2, 256)].map(|(rows, size)| meter.measure(rows, take(size)).1);
        assert!((60 << 20..80 << 20).contains(&small), "{small}");
        assert_eq!(again, 0, "no more rows than before");
        assert!((250 << 20..280 << 20).contains(&large), "{large}");
    }

    #[test]
    fn the_kernel_s_lines_are_read() {
        let status = "Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t  120 kB\nVmRSS:\t   8 kB\n";
        assert_eq!((kibibytes(status, "VmHWM:"), kibibytes(status, "VmRSS:")), (Some(120), Some(8)));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }
}
