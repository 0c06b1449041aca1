//! How fast an emulated device is, and when: what it makes of the seconds that a simulated model names.

use std::time::{Duration, Instant};

/// What sleeping may take beyond what it was asked for; the rest is waited out on the processor.
const SPIN: Duration = Duration::from_micros(60);
/// How soon work that nobody waits for is given up.
const STEP: Duration = Duration::from_millis(20);

/// A time during which a device is slower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// Its begin, seconds since the device's start.
    pub start_seconds: f64,
    /// Its end, seconds since the device's start.
    pub end_seconds: f64,
    /// How many times slower it is meanwhile.
    pub factor: f64,
}

/// The speed of an emulated device. The default is that of a model's own figures.
#[derive(Clone, Debug)]
pub struct Pace {
    /// How many times slower it is than a model's own figures say.
    pub slowdown: f64,
    /// Bytes a second at which models are copied to it; none: as long as each model says.
    pub copy_bytes_per_second: Option<f64>,
    /// Sets its noise apart from that of other devices; 0 leaves the model's own.
    pub seed: u64,
    /// In order, none overlapping the next.
    pub episodes: Vec<Episode>,
    /// When it was started.
    pub start: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        let start = Instant::now();
        Self { slowdown: 1.0, copy_bytes_per_second: None, seed: 0, episodes: Vec::new(), start }
    }
}

impl Pace {
    /// When work that takes `seconds` at the model's own figures ends, if it starts at `start`; both are seconds since
    /// the device's start. Work that is under way when an episode begins or ends goes on at the new speed.
    pub fn end(&self, start: f64, seconds: f64) -> f64 {
        let (mut at, mut left) = (start, seconds * self.slowdown);
        let first = self.episodes.partition_point(|episode| episode.end_seconds <= start);
        for episode in &self.episodes[first..] {
            let before = (episode.start_seconds - at).max(0.0);
            if left <= before {
                break;
            }
            (at, left) = (at + before, left - before);
            let during = (episode.end_seconds - at) / episode.factor;
            if left <= during {
                return at + left * episode.factor;
            }
            (at, left) = (episode.end_seconds, left - during);
        }
        at + left
    }

    /// Waits out work of so many seconds at the model's own figures that began at `started`, or until it is given up.
    pub(crate) fn spend(&self, started: Instant, seconds: f64, given_up: impl Fn() -> bool) {
        let start = started.saturating_duration_since(self.start).as_secs_f64();
        let takes = Duration::try_from_secs_f64(self.end(start, seconds) - start).unwrap_or(Duration::MAX);
        let mut step = STEP;
        while step < takes && !given_up() {
            sleep_until(started, step);
            step += STEP;
        }
        if !given_up() {
            sleep_until(started, takes);
        }
    }

    /// Seconds that bringing a model of so many bytes here takes; `alone` is what the model itself says.
    pub(crate) fn load_seconds(&self, bytes: u64, alone: f64) -> f64 {
        self.copy_bytes_per_second.map_or(alone, |rate| bytes as f64 / rate)
    }
}

/// Returns when `duration` has passed since `started`, to some microseconds.
pub(crate) fn sleep_until(started: Instant, duration: Duration) {
    let left = duration.saturating_sub(started.elapsed());
    if left > SPIN {
        std::thread::sleep(left - SPIN);
    }
    while started.elapsed() < duration {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paced(episodes: &[(f64, f64, f64)]) -> Pace {
        let episode = |&(start_seconds, end_seconds, factor): &_| Episode { start_seconds, end_seconds, factor };
        Pace { slowdown: 2.0, episodes: episodes.iter().map(episode).collect(), ..Pace::default() }
    }

    #[test]
    fn work_goes_on_at_each_episode_s_speed() {
        let pace = paced(&[(10.0, 13.0, 3.0), (13.0, 14.0, 2.0), (20.0, 30.0, 10.0)]);
        for (start, seconds, end) in [
            (0.0, 1.0, 2.0),
            (0.0, 5.0, 10.0),
            // One second before, the other at a third.
            (9.0, 1.0, 13.0),
            // 3 s at a third, 1 s at a half, the rest at full speed.
            (10.0, 2.0, 16.5),
            (11.5, 0.25, 13.0),
            (25.0, 0.25, 30.0),
            (14.0, 1.0, 16.0),
            (31.0, 1.0, 33.0),
        ] {
            assert!((pace.end(start, seconds) - end).abs() < 1e-9, "{start} {seconds}: {}", pace.end(start, seconds));
        }
    }

    #[test]
    fn copies_take_the_device_s_time_where_it_has_one() {
        assert_eq!(Pace::default().load_seconds(100, 1.5), 1.5);
        assert_eq!(Pace { copy_bytes_per_second: Some(50.0), ..Pace::default() }.load_seconds(100, 1.5), 2.0);
    }

    #[test]
    fn sleeping_is_never_short() {
        let (started, wanted) = (Instant::now(), Duration::from_micros(300));
        sleep_until(started, wanted);
        assert!(started.elapsed() >= wanted);
    }
}
