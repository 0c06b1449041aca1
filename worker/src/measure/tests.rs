use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::cache::{Cache, FOLDER, Figures};
use super::gate::Gate;
use super::pool::Pool;
use super::{MeasureOptions, all_parts, lock, measure_under};

const FINGERPRINT: &str = "0123456789abcdef";
const FIGURES: Figures = Figures {
    f32_flops: 1.5e11,
    bf16_flops: 0.1 + 0.2,
    memory_bytes_per_second: 2e10,
    disk_read_bytes_per_second: 3e9,
};
const IDLE: &(dyn Fn() -> bool + Sync) = &|| false;
/// Longer than a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(120);

fn options<'a>(
    data: &'a tempfile::TempDir,
    busy: &'a (dyn Fn() -> bool + Sync),
    patience: Duration,
) -> MeasureOptions<'a> {
    MeasureOptions { data_dir: data.path(), fingerprint: FINGERPRINT, busy, patience }
}

fn files_in(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(target_os = "linux")]
fn times_open(path: &std::path::Path) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    descriptors.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == path)).count()
}

#[test]
fn kept_figures_come_back_and_damaged_ones_do_not() {
    let data = tempfile::tempdir().unwrap();
    let cache = Cache::new(data.path(), FINGERPRINT);
    assert_eq!(cache.load(), None);
    cache.store(&FIGURES).unwrap();
    assert_eq!(cache.load(), Some(FIGURES));
    assert_eq!(Cache::new(data.path(), "fedcba9876543210").load(), None);
    let file = data.path().join(FOLDER).join(format!("{FINGERPRINT}.json"));
    let whole = std::fs::read(&file).unwrap();
    let negative = String::from_utf8(whole.clone()).unwrap().replace("150000000000", "-1");
    for damaged in [&whole[..whole.len() / 2], b"", b"[]", b"{\"f32_flops\": null}", negative.as_bytes()] {
        std::fs::write(&file, damaged).unwrap();
        assert_eq!(cache.load(), None, "{}", String::from_utf8_lossy(damaged));
        assert!(!file.exists());
        cache.store(&FIGURES).unwrap();
        assert_eq!(cache.load(), Some(FIGURES));
    }
    let other_version = String::from_utf8(whole).unwrap().replace(env!("CARGO_PKG_VERSION"), "0.0.0-other");
    std::fs::write(&file, other_version).unwrap();
    assert_eq!(cache.load(), None);
    assert_eq!(files_in(&data.path().join(FOLDER)), [format!("{FINGERPRINT}.json")]);
}

#[test]
fn the_lock_keeps_a_second_worker_out_until_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let patient = Gate::new(IDLE, Instant::now() + PATIENCE);
    let hasty = Gate::new(IDLE, Instant::now());
    let held = lock::acquire(&path, &patient).unwrap().unwrap();
    assert!(lock::acquire(&path, &hasty).unwrap().is_none());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lock::acquire(&path, &patient).unwrap().is_some());
        drop(held);
        assert!(waiting.join().unwrap());
    });
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(lock::acquire(&link, &patient).is_err());
    assert!(lock::acquire(folder.path(), &patient).is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_waited_takes_what_the_other_measured() {
    let data = tempfile::tempdir().unwrap();
    let lock_file = data.path().join("lock");
    let gate = Gate::new(IDLE, Instant::now() + PATIENCE);
    let held = lock::acquire(&lock_file, &gate).unwrap().unwrap();
    let never = || panic!("it must not measure");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| measure_under(&lock_file, &options(&data, &never, PATIENCE)));
        // Once the waiting one has opened the lock's file it has found no figures and stands in line.
        while times_open(&lock_file) < 2 {
            std::thread::yield_now();
        }
        Cache::new(data.path(), FINGERPRINT).store(&FIGURES).unwrap();
        drop(held);
        assert_eq!(waiting.join().unwrap(), FIGURES.measurement(true));
    });
}

#[test]
fn a_busy_machine_is_not_measured() {
    let data = tempfile::tempdir().unwrap();
    let asked = AtomicU32::new(0);
    let busy = || {
        asked.fetch_add(1, Ordering::Relaxed);
        true
    };
    let nothing = measure_under(&data.path().join("lock"), &options(&data, &busy, Duration::from_millis(50)));
    assert_eq!(nothing, Figures::default().measurement(false));
    assert!(asked.load(Ordering::Relaxed) > 0);
    assert_eq!(files_in(&data.path().join(FOLDER)), [""; 0], "nothing incomplete is kept");
}

#[test]
fn work_that_arrives_later_ends_the_measurement_too() {
    let data = tempfile::tempdir().unwrap();
    let asked = AtomicU32::new(0);
    let busy = || asked.fetch_add(1, Ordering::Relaxed) >= 4;
    let pool = Pool::new(|| ()).unwrap();
    let part = all_parts(&pool, data.path(), &Gate::new(&busy, Instant::now() + Duration::from_millis(500)));
    assert!(asked.load(Ordering::Relaxed) > 4);
    assert_eq!(part, Figures::default());
    assert_eq!(files_in(&data.path().join(FOLDER)), [""; 0]);
}

#[test]
fn figures_are_had_for_less_than_three_seconds_of_processor_and_nothing_stays() {
    let data = tempfile::tempdir().unwrap();
    let resident = || crate::inventory::Inventory::open().telemetry().resident_bytes;
    let before = resident();
    // At ordinary priority: tests that run beside this one would otherwise leave it no processor time at all.
    let pool = Pool::new(|| ()).unwrap();
    let begun = pool.cpu();
    let figures = all_parts(&pool, data.path(), &Gate::new(IDLE, Instant::now() + PATIENCE));
    let spent = pool.cpu() - begun;
    println!("{figures:?} for {spent:?} of processor time, {} slices disturbed", pool.disturbed_slices());
    // Where tests or other programs take the cores meanwhile, a rate may be missing, and must say so.
    assert!(figures.complete() || pool.disturbed_slices() > 0, "{figures:?}");
    assert!(figures.disk_read_bytes_per_second > 0.0, "{figures:?}");
    assert!(spent < Duration::from_secs(3), "{spent:?}");
    assert!(resident() < before + (128 << 20), "the buffers went back");
    assert_eq!(files_in(&data.path().join(FOLDER)), [""; 0]);
}

#[cfg(target_os = "linux")]
#[test]
fn its_threads_give_way_to_every_other() {
    // SAFETY: the call takes and returns a number; 0 names the calling thread.
    let policy = || unsafe { libc::sched_getscheduler(0) };
    let pool = Pool::new(super::priority::lower).unwrap();
    let policies = std::sync::Mutex::new(Vec::new());
    pool.run(|| policies.lock().unwrap().push(policy()));
    super::on_idle_thread(|| {
        policies.lock().unwrap().push(policy());
        Figures::default()
    });
    assert_eq!(policies.into_inner().unwrap(), [libc::SCHED_IDLE; 2]);
    assert_ne!(policy(), libc::SCHED_IDLE, "the caller keeps its own");
}
