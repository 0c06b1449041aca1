//! Giving way to every other thread.

/// Lowers the calling thread to the lowest priority there is; where the system refuses, it stays as it was.
pub(super) fn lower() {
    // SAFETY: both calls take plain numbers; on Linux, 0 names the calling thread, not the process.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        let mut parameters = std::mem::zeroed::<libc::sched_param>();
        parameters.sched_priority = 0;
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters);
    }
}
